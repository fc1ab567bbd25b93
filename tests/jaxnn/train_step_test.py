"""Tests of jaxnn/train_step.py, with small whole numbers where arithmetic is exact."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import metrics, models, train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS
from jaxnn.train_step import Batch, TrainState

SGD = Experiment(optimizer="sgd", precision="fp32")
FP16 = Experiment(precision="fp16", optimizer="adam", hysteresis=1)
PARAMS = {"output": {"kernel": jnp.array([[1.0], [-2.0]]), "bias": jnp.array([1.0])}}
INPUTS = np.array([[1, 2], [3, 1], [0, 1], [2, 2], [9, 9], [9, 9]], np.float32)
TARGETS = np.array([[0], [1], [2], [-1], [7], [7]], np.float32)
BATCH = Batch(
    *map(jnp.asarray, (INPUTS, TARGETS, np.array([1, 1, 1, 1, 0, 0], np.float32)))
)
SIGNATURE = Signature((2,), 1)
RATES = jnp.array([0.5, 0.25, 0.125], jnp.float32)


def by_hand(kernel, bias):
    """Loss and gradients of the four real samples, in float64."""
    x, y = INPUTS[:4].astype(np.float64), TARGETS[:4]
    error = x @ kernel + bias - y
    return np.mean(error**2), {
        "kernel": 2 * x.T @ error / 4,
        "bias": 2 * error.sum(axis=0) / 4,
    }


def start(experiment, params=PARAMS):
    """(state, jitted train step) of the linear model."""
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    model = models.build(experiment, SIGNATURE)
    step = functools.partial(train_step.train_step, experiment, model, optimizer)
    return train_step.initial_state(
        {"params": params, "batch_stats": {}}, experiment, optimizer
    ), jax.jit(step)


def overflowing(batch=BATCH):
    """Targets so far off that a scaled FP16 gradient overflows."""
    return batch._replace(targets=batch.targets + 1000)


class TestInitialVariables:
    def test_are_float32_and_the_seeds(self):
        model = models.build(SGD, SIGNATURE)
        params = [
            train_step.initial_variables(model, seed, SIGNATURE)["params"]
            for seed in (0, 0, 1)
        ]
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
        chex.assert_trees_all_equal(params[0], params[1])
        assert (params[0]["output"]["kernel"] != params[2]["output"]["kernel"]).all()


class TestInitialState:
    @pytest.mark.parametrize(
        ("name", "rounded"),
        [("fp32", np.float32), ("fp16", np.float16), ("bf16", jnp.bfloat16)],
    )
    def test_masters_start_rounded_to_the_compute_format(self, name, rounded):
        params = {
            "w": jnp.asarray(np.random.default_rng(0).standard_normal(100), jnp.float32)
        }
        state, _ = start(FP16.replace(precision=name), params)
        expected = np.asarray(params["w"]).astype(rounded).astype(np.float32)
        np.testing.assert_array_equal(state.params["w"], expected, strict=True)
        assert (expected != np.asarray(params["w"])).any() == (name != "fp32")

    def test_counts_from_zero(self):
        state, _ = start(FP16)
        assert isinstance(state, TrainState)
        assert (int(state.step), int(state.updates), float(state.loss_scale.scale)) == (
            0,
            0,
            2**16,
        )


class TestGradients:
    @pytest.mark.parametrize("scale", [1, 2.0**10])
    def test_are_those_of_the_scaled_mean_over_real_samples(self, scale):
        model = models.build(SGD, SIGNATURE)
        gradients = functools.partial(train_step.gradients, SGD, model)
        loss, grads, _ = gradients(PARAMS, {}, BATCH, jnp.int32(0), jnp.float32(scale))
        expected_loss, expected = by_hand(np.array([[1], [-2]]), 1)
        assert loss == expected_loss
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(grads["output"][name], scale * expected[name])

    def test_masks_change_with_the_step(self):
        experiment = SGD.replace(model="mlp", hidden_sizes=(64,), dropout_rates=(0.5,))
        model = models.build(experiment, SIGNATURE)
        params = train_step.initial_variables(model, 0, SIGNATURE)["params"]
        gradients = functools.partial(train_step.gradients, experiment, model)
        losses = [
            float(gradients(params, {}, BATCH, jnp.int32(step), jnp.float32(1))[0])
            for step in (0, 0, 1)
        ]
        assert losses[0] == losses[1] != losses[2]

    @pytest.mark.parametrize("parts", [2, 3])
    def test_accumulation_is_exact_on_whole_numbers(self, parts):
        """The last part may be all padding; sums of whole numbers do not depend on
        their order."""
        experiment = SGD.replace(batch_size=6, accumulation_steps=parts)
        model = models.build(experiment, SIGNATURE)
        gradients = jax.jit(functools.partial(train_step.gradients, experiment, model))
        loss, grads, _ = gradients(PARAMS, {}, BATCH, jnp.int32(0), jnp.float32(1))
        expected_loss, expected = by_hand(np.array([[1], [-2]]), 1)
        assert loss == expected_loss
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(grads["output"][name], expected[name])

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
    def test_accumulation_rounds_once(self, dtype):
        """bfloat16 counts to 256 one by one, float16 to 2048."""
        count = 4096
        rows = train_step.Batch(*[jnp.ones(count, dtype)] * 3)

        def ones(batch_stats, microbatch, number):
            one = microbatch.inputs[0]
            return {}, one, {"w": one}, batch_stats

        _, loss, grads, _ = train_step.accumulate(ones, {}, rows, count)
        assert loss == grads["w"] == count
        assert loss.dtype == grads["w"].dtype == dtype

    def test_accumulation_draws_the_masks_of_the_whole_batch(self):
        """Sums of six rows in two orders: a few roundings of numbers below 32."""
        experiment = SGD.replace(
            model="mlp", hidden_sizes=(64,), dropout_rates=(0.5,), batch_size=6
        )
        model = models.build(experiment, SIGNATURE)
        params = train_step.initial_variables(model, 0, SIGNATURE)["params"]
        results = [
            jax.jit(
                functools.partial(
                    train_step.gradients,
                    experiment.replace(accumulation_steps=parts),
                    model,
                )
            )(params, {}, BATCH, jnp.int32(3), jnp.float32(1))
            for parts in (1, 3)
        ]
        atol = 16 * 32 * np.finfo(np.float32).eps
        chex.assert_trees_all_close(*results, rtol=0, atol=atol)
        assert (
            max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(results[0])) < 32
        )

    def test_batch_statistics_move_from_part_to_part(self):
        experiment = SGD.replace(
            model="mlp", hidden_sizes=(4,), normalization="batch", batch_size=4
        )
        model = models.build(experiment, SIGNATURE)
        variables = train_step.initial_variables(model, 0, SIGNATURE)
        rows = jax.tree.map(lambda x: x[:4], BATCH)

        def after(parts, batch, batch_stats):
            gradients = functools.partial(
                train_step.gradients,
                experiment.replace(accumulation_steps=parts),
                model,
            )
            return jax.jit(gradients)(
                variables["params"], batch_stats, batch, jnp.int32(0), jnp.float32(1)
            )[2]

        halves = [
            jax.tree.map(lambda x, s=start: x[s : s + 2], rows) for start in (0, 2)
        ]
        expected = after(1, halves[1], after(1, halves[0], variables["batch_stats"]))
        result = after(2, rows, variables["batch_stats"])
        chex.assert_trees_all_close(result, expected, rtol=4 * np.finfo(np.float32).eps)

    @pytest.mark.parametrize("parts", [1, 2, 3])
    def test_activations_come_in_forward_order_and_in_the_order_of_the_rows(
        self, parts
    ):
        """Sums of two products: the same in every part, but for a rounding where the
        compiler fuses them."""
        experiment = SGD.replace(
            model="mlp", hidden_sizes=(4, 3), batch_size=6, accumulation_steps=parts
        )
        model = models.build(experiment, SIGNATURE)
        params = train_step.initial_variables(model, 0, SIGNATURE)["params"]
        gradients = jax.jit(
            functools.partial(
                train_step.gradients, experiment, model, with_activations=True
            )
        )
        loss, _, _, activations = gradients(
            params, {}, BATCH, jnp.int32(0), jnp.float32(1)
        )
        assert [(layer, rows.shape) for layer, rows in activations.items()] == [
            ("hidden_0", (6, 4)),
            ("hidden_1", (6, 3)),
            ("output", (6, 1)),
        ]
        expected = (
            INPUTS @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"][None]
        )
        atol = 4 * np.finfo(np.float32).eps * float(jnp.abs(expected).max())
        np.testing.assert_allclose(activations["hidden_0"], expected, rtol=0, atol=atol)
        plain = jax.jit(functools.partial(train_step.gradients, experiment, model))(
            params, {}, BATCH, jnp.int32(0), jnp.float32(1)
        )
        assert len(plain) == 3
        np.testing.assert_allclose(loss, plain[0], rtol=8 * np.finfo(np.float32).eps)


class TestUpdate:
    def test_steps_against_the_direction(self):
        params, _ = train_step.update(
            OPTIMIZERS["sgd"](SGD),
            {"w": jnp.array([3.0])},
            OPTIMIZERS["sgd"](SGD).transform.init({}),
            {"w": jnp.array([2.0])},
            jnp.float32(0.5),
        )
        np.testing.assert_array_equal(params["w"], [2])


class TestTrainStep:
    def test_three_steps_of_sgd_are_exact(self):
        """Every number has few binary digits, so float32 makes no error."""
        state, step = start(SGD)
        kernel, bias = np.array([[1.0], [-2.0]]), np.array([1.0])
        for number, rate in enumerate([0.5, 0.25, 0.125]):
            state, result, grads = step(state, BATCH, RATES)
            loss, expected = by_hand(kernel, bias)
            kernel, bias = (
                kernel - rate * expected["kernel"],
                bias - rate * expected["bias"],
            )
            assert (result.loss, result.learning_rate, result.loss_scale) == (
                loss,
                rate,
                1,
            )
            assert not result.skipped
            assert not result.exhausted
            assert result.finite.all()
            np.testing.assert_array_equal(grads["output"]["kernel"], expected["kernel"])
            np.testing.assert_array_equal(state.params["output"]["kernel"], kernel)
            np.testing.assert_array_equal(state.params["output"]["bias"], bias)
            assert (int(state.step), int(state.updates)) == (number + 1, number + 1)

    def test_fp16_overflow_skips_bit_for_bit(self):
        state, step = start(FP16)
        state, _, _ = step(state, BATCH._replace(targets=BATCH.targets / 64), RATES)
        before, result, _ = step(state, overflowing(), RATES)
        chex.assert_trees_all_equal(
            (before.params, before.opt_state),
            (state.params, state.opt_state),
            strict=True,
        )
        assert result.skipped
        assert not result.exhausted
        assert result.loss_scale == state.loss_scale.scale
        assert (int(before.step), int(before.updates)) == (
            int(state.step) + 1,
            int(state.updates),
        )
        assert before.loss_scale.scale == state.loss_scale.scale / 2
        assert not result.finite[1:].all()

    def test_fp16_goes_on_at_the_scale_that_fits(self):
        """Each skip halves the scale and reads the same learning rate; the first clean
        step is update 1."""
        state, step = start(FP16)
        skips = []
        for _ in range(12):
            state, result, grads = step(state, BATCH, RATES)
            skips.append(bool(result.skipped))
            if not result.skipped:
                break
            assert result.learning_rate == RATES[0]
        assert skips == [True] * (len(skips) - 1) + [False]
        assert len(skips) > 1
        assert (int(state.step), int(state.updates)) == (len(skips), 1)
        assert result.loss_scale == 2.0 ** (16 - len(skips) + 1)
        _, expected = by_hand(np.array([[1], [-2]]), 1)
        np.testing.assert_array_equal(
            grads["output"]["kernel"], expected["kernel"]
        )  # a few binary digits: exact
        np.testing.assert_array_equal(grads["output"]["bias"], expected["bias"])

    def test_exhausted_at_the_smallest_scale(self):
        state, step = start(FP16.replace(min_loss_scale=2.0**16))
        _, result, _ = step(state, overflowing(), RATES)
        assert result.skipped
        assert result.exhausted

    @pytest.mark.parametrize("name", ["fp32", "bf16"])
    def test_other_formats_report_and_do_not_skip(self, name):
        state, step = start(SGD.replace(precision=name))
        state, result, _ = step(
            state, BATCH._replace(targets=BATCH.targets.at[0].set(jnp.nan)), RATES
        )
        assert not result.skipped
        assert not result.finite.any()
        assert int(state.updates) == 1

    def test_finite_names_the_tensors_in_the_pytrees_order(self):
        """An infinite weight on an input that is always 0 spoils that kernel's
        gradient... of nothing else."""
        state, step = start(SGD)
        _, result, grads = step(
            state, BATCH._replace(inputs=BATCH.inputs.at[0, 0].set(1e30)), RATES
        )
        finite = [bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads)]
        assert result.finite.tolist() == [bool(np.isfinite(result.loss)), *finite]
        assert finite == [True, False]  # bias, kernel

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [("fp16", "float32"), ("bf16", "float32"), ("fp32", "float32")],
    )
    def test_masters_and_gradients_stay_in_the_master_format(self, name, dtype):
        state, step = start(FP16.replace(precision=name))
        state, _, grads = step(state, BATCH, RATES)
        assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, grads))} == {
            dtype
        }

    def test_fp64(self):
        with jax.enable_x64(True):
            state, step = start(SGD.replace(precision="fp64"))
            state, result, grads = step(state, BATCH, RATES)
            leaves = jax.tree.leaves((state.params, grads, result.loss))
        assert {leaf.dtype.name for leaf in leaves} == {"float64"}


class TestEvalStep:
    def test_sums_real_samples_and_returns_all_outputs(self):
        model = models.build(SGD, SIGNATURE)
        sums, outputs = train_step.eval_step(
            SGD, model, metrics.absolute_error, PARAMS, {}, BATCH
        )
        error = INPUTS @ np.array([[1], [-2]]) + 1 - TARGETS
        np.testing.assert_array_equal(
            sums, [np.square(error[:4]).sum(), np.abs(error[:4]).sum()]
        )
        np.testing.assert_array_equal(outputs, INPUTS @ np.array([[1], [-2]]) + 1)
        assert outputs.dtype == sums.dtype == jnp.float32


class TestUnscale:
    def test_is_exact_for_powers_of_two(self):
        x = np.random.default_rng(0).standard_normal(100).astype(np.float32)
        out = train_step.unscale({"w": jnp.asarray(x * 2.0**16)}, jnp.float32(2**16))
        np.testing.assert_array_equal(out["w"], x)


class TestSumOver:
    sum_over = staticmethod(functools.partial(train_step.sum_over, axis_name="ranks"))

    def test_sums_arrays_of_every_size_and_dtype(self):
        rng = np.random.default_rng(0)
        tree = {
            "kernel": rng.standard_normal((2, 128, 256), np.float32),
            "bias": rng.standard_normal((2, 256), np.float32),
            "scale": rng.standard_normal((2,), np.float32),
            "half": rng.standard_normal((2, 8), np.float32).astype(np.float16),
        }
        summed = jax.vmap(self.sum_over, axis_name="ranks")(tree)
        for name, array in summed.items():
            expected = tree[name][0] + tree[name][1]
            np.testing.assert_array_equal(array, np.stack([expected, expected]))

    def test_small_arrays_share_a_message_and_large_ones_are_not_copied_into_it(self):
        large = jnp.zeros(train_step.OF_ITS_OWN)
        tree = {"a": large, "b": jnp.zeros(3), "c": jnp.zeros(5), "d": large}
        made = jax.make_jaxpr(self.sum_over, axis_env=[("ranks", 2)])
        program = str(made(tree))
        assert program.count("psum") == 3
        assert f"f32[{train_step.OF_ITS_OWN + 8}]" not in program
        assert "f32[8]" in program
