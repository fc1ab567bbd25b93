"""Tests of parity/own/port.py: what does not fit a recording is said in one line."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, Writer
from parity.judging.measure import THRESHOLD
from parity.own.environment import of_a_port
from parity.own.judge_port import judge_port
from parity.own.port import Port
from tests.parity.own import recorded
from tests.parity.own.ports import layers, mlp_function, nnx_mlp, resnet


class MLP(nn.Module):
    """The recorded perceptron in linen."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(layers.LayerNorm(nnx_mlp.EPSILON, name="norm")(dense("hidden")(x)))
        return dense("out")(x)


class RoundingMLP(nn.Module):
    """The perceptron, but what the norm is given keeps a bit or two."""

    @nn.compact
    def __call__(self, x):
        large = jnp.asarray(2.0**23, x.dtype)
        # XLA would see that nothing is added.
        sums = jax.lax.optimization_barrier(dense("hidden")(x) + large)
        x = nn.relu(layers.LayerNorm(nnx_mlp.EPSILON, name="norm")(sums - large))
        return dense("out")(x)


def dense(name):
    return nn.Dense({"hidden": nnx_mlp.HIDDEN, "out": nnx_mlp.CLASSES}[name], name=name)


def rewritten(trace, folder, change, **meta):
    """Copies a trace whose steps are changed."""
    writer = Writer(folder, "full", {**trace.meta, **meta})
    for number in range(len(trace)):
        writer.write(number, change(number, trace.read(number)))
    return Reader(folder)


def judge(trace, optimizer=None, **changed):
    """Judges the perceptron by its port, of which something is changed."""
    given = {
        "model": mlp_function.model,
        "loss": mlp_function.loss,
        "convert": mlp_function.convert,
    } | changed
    with of_a_port():
        port = Port(trace, given["model"], given["loss"], optimizer, given["convert"])
        return judge_port(port, THRESHOLD)


def refusal(trace, **changed):
    """Returns the one line by which a port is refused."""
    with pytest.raises(UserError) as caught:
        judge(trace, **changed)
    text = str(caught.value)
    assert "\n" not in text
    return text


def without(leaf):
    """Returns a converter that forgets a layer's leaf."""

    def convert(state):
        tree = mlp_function.convert(state)
        del tree["out"][leaf]
        return tree

    return convert


def with_more(state):
    return {**mlp_function.convert(state), "more": {"bias": state["out.bias"]}}


def untransposed(state):
    tree = mlp_function.convert(state)
    return {**tree, "hidden": {**tree["hidden"], "kernel": state["hidden.weight"]}}


def of_nnx(convert):
    """Returns the nnx port without dropout, as the recorded program."""
    model = nnx_mlp.MLP(nnx.Rngs(0))
    model.dropout.rate = 0.0
    return {"model": model, "convert": convert}


class TestConvert:
    def test_no_rearrangement(self, mlp_trace):
        def convert(state):
            tree = mlp_function.convert(state)
            return {
                **tree,
                "norm": {**tree["norm"], "scale": tree["norm"]["scale"] ** 2},
            }

        assert "norm/scale[0] is not an entry" in refusal(mlp_trace, convert=convert)

    @pytest.mark.parametrize("kind", ["linen", "nnx", "function"])
    def test_forgets_a_parameter(self, mlp_trace, kind):
        port = ported(kind, without("bias"))
        assert refusal(mlp_trace, **port) == (
            "convert: torch trains out.bias, which no leaf of the port is made of"
        )

    @pytest.mark.parametrize("kind", ["linen", "nnx"])
    def test_lacks_what_the_model_has(self, mlp_trace, kind):
        def convert(state):
            tree = mlp_function.convert(state)
            return {"out": tree["out"], "hidden": tree["hidden"], "other": tree["norm"]}

        text = refusal(mlp_trace, **ported(kind, convert))
        assert "norm/" in text or "other/" in text

    def test_lacks_what_a_function_reads(self, mlp_trace):
        def convert(state):
            tree = mlp_function.convert(state)
            tree["last"] = tree.pop("out")
            return tree

        text = refusal(mlp_trace, convert=convert)
        assert text == "model: it raised KeyError: 'out'"

    @pytest.mark.parametrize("kind", ["linen", "nnx"])
    def test_has_what_the_model_lacks(self, mlp_trace, kind):
        text = refusal(mlp_trace, **ported(kind, with_more))
        assert text.startswith("convert: more/bias is no ")

    @pytest.mark.parametrize("kind", ["linen", "nnx", "function"])
    def test_has_other_shapes(self, mlp_trace, kind):
        text = refusal(mlp_trace, **ported(kind, untransposed))
        if kind == "function":
            assert text.startswith("model: it raised TypeError: dot_general requires")
        else:
            assert text == (
                "convert: hidden/kernel is (16, 8), the model has it in shape (8, 16)"
            )

    def test_lacks_running_statistics(self, tmp_path):
        trace = Reader(recorded.record("resnet", tmp_path / "t", steps=1))
        text = refusal(trace, model=resnet.model, convert=resnet.convert)
        assert "it returns no batch_stats/" in text
        assert 'return {"params": ..., "batch_stats": ...}' in text


def ported(kind, convert):
    if kind == "nnx":
        return of_nnx(convert)
    model = MLP() if kind == "linen" else mlp_function.model
    return {"model": model, "convert": convert}


class TestModelAndLoss:
    def test_arguments_that_were_not_recorded(self, mlp_trace):
        text = refusal(mlp_trace, model=lambda params, x, mask, types: x)
        assert text.startswith("model: its argument 'types' is none of")

    def test_a_loss_with_other_arguments(self, mlp_trace):
        text = refusal(mlp_trace, loss=lambda outputs, a, b, c: outputs.mean())
        assert text.startswith("loss: its argument 'c' is none of what torch's forward")

    def test_a_loss_that_is_no_number(self, mlp_trace):
        text = refusal(mlp_trace, loss=lambda outputs, labels: outputs[:, 0])
        assert text.startswith("loss: it is (16,), not one number")

    def test_a_loss_that_fails(self, mlp_trace):
        text = refusal(mlp_trace, loss=lambda outputs, labels: 1 / 0)
        assert text == "loss: it raised ZeroDivisionError: division by zero"

    def test_no_loss_of_a_model_that_returns_none(self, mlp_trace):
        assert "the model returns none; give loss" in refusal(mlp_trace, loss=None)

    def test_a_loss_of_whole_numbers(self, mlp_trace):
        text = refusal(mlp_trace, loss=lambda outputs, labels: labels.sum())
        assert text.startswith("loss: it is int32")

    def test_a_layer_that_loses_its_digits(self, mlp_trace):
        text = refusal(mlp_trace, model=RoundingMLP())
        assert text.startswith("could not judge: step 0 loses its digits at norm: ")

    def test_dropout_that_the_port_lacks(self, tmp_path):
        trace = Reader(recorded.record("nnx_mlp", tmp_path / "t", steps=1))
        text = refusal(trace)
        assert text.startswith("dropout: torch drew 1 masks in a forward pass, the po")

    def test_dropout_that_torch_lacks(self, mlp_trace):
        text = refusal(mlp_trace, model=nnx_mlp.model)
        assert text.startswith("dropout: torch drew 0 masks in a forward pass, the po")

    def test_what_is_no_model(self, mlp_trace):
        assert "model: a str is no flax.linen" in refusal(mlp_trace, model="MLP")

    def test_a_class_in_place_of_a_model(self, mlp_trace):
        assert "model: MLP is a class; give MLP(...)" in refusal(mlp_trace, model=MLP)

    def test_what_is_no_optimizer(self, mlp_trace):
        text = refusal(mlp_trace, optimizer=1e-3)
        assert text.startswith("optimizer: a float has no init and update")


class TestRecording:
    def test_in_flaxs_names(self, mlp_trace, tmp_path):
        trace = rewritten(mlp_trace, tmp_path / "t", lambda n, s: s, names="flax")
        assert "own.judge_step takes this" in refusal(trace)

    def test_of_the_version_before(self, mlp_trace, tmp_path):
        trace = rewritten(mlp_trace, tmp_path / "t", lambda n, s: s, version=2)
        del trace.meta["names"]
        assert "own.judge_step takes this" in refusal(trace)

    def test_of_an_unknown_precision(self, mlp_trace, tmp_path):
        trace = rewritten(mlp_trace, tmp_path / "t", lambda n, s: s, precision="int8")
        assert "precision 'int8' is none of fp32, fp16, bf16" in refusal(trace)

    def test_without_steps(self, mlp_trace, tmp_path):
        Writer(tmp_path / "t", "full", mlp_trace.meta)
        assert "the trace has no whole step" in refusal(Reader(tmp_path / "t"))

    def test_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="no readable trace there"):
            Reader(pathlib.Path(tmp_path / "none"))

    def test_with_dropout_that_cannot_be_played_back(self, mlp_trace, tmp_path):
        meta = {"unreachable_dropout": ["attention"]}
        trace = rewritten(mlp_trace, tmp_path / "t", lambda n, s: s, **meta)
        assert "drew dropout masks inside attention" in refusal(trace)

    def test_with_a_digest_of_its_input(self, mlp_trace, tmp_path):
        def digested(number, step):
            return {n.replace("inputs/x", "digests/x"): a for n, a in step.items()}

        trace = rewritten(mlp_trace, tmp_path / "t", digested)
        assert "the input x was too large" in refusal(trace)

    def test_whose_weights_are_no_numbers(self, mlp_trace, tmp_path):
        def broken(number, step):
            nan = np.full_like(step["params/out.bias"], np.nan)
            return step | {"params/out.bias": nan} if number else step

        trace = rewritten(mlp_trace, tmp_path / "t", broken)
        assert refusal(trace) == (
            "cannot judge: step 1 of the recording begins with params/out.bias that "
            "is not finite: the training itself broke down; record fewer steps or "
            "mend it"
        )

    def test_whose_loss_is_no_number_on_either_side(self, mlp_trace, tmp_path):
        def broken(number, step):
            return step | {"loss": np.float32(np.nan)}

        trace = rewritten(mlp_trace, tmp_path / "t", broken)
        text = refusal(trace, loss=lambda outputs, labels: outputs.sum() * jnp.nan)
        assert "the loss of step 0 is nan in the recording and in the port" in text

    def test_whose_loss_alone_is_no_number_diverges(self, mlp_trace, tmp_path):
        def broken(number, step):
            return step | {"loss": np.float32(np.nan)} if number else step

        _, verdict = judge(rewritten(mlp_trace, tmp_path / "t", broken))
        first = verdict.first_divergence
        assert (first.step, first.quantity) == (1, "loss")

    def test_without_activations_is_judged_by_the_rest(self, mlp_trace, tmp_path):
        def bare(number, step):
            return {n: a for n, a in step.items() if "/activations/" not in n}

        trace = rewritten(mlp_trace, tmp_path / "t", bare)
        _, verdict = judge(trace, model=MLP(), optimizer=recorded.optimizer())
        assert verdict.is_parity
        assert "activations" not in verdict.quantities

    def test_of_a_skipped_step_does_not_feed_the_optimizer(self, mlp_trace, tmp_path):
        def repeated(number, step):
            """Step 0 is skipped; step 1 is what step 0 was."""
            first = mlp_trace.read(0)
            return first if number else first | skipped(first)

        trace = rewritten(mlp_trace, tmp_path / "t", repeated)
        measurements, verdict = judge(trace, optimizer=recorded.optimizer())
        failed = {m.quantity for m in measurements if m.z > THRESHOLD}
        assert failed == {"skipped"}, verdict.first_divergence


def skipped(step):
    """Returns the tensors that an overflow leaves otherwise."""
    before = {"updated": "params", "updated_moments": "moments"}
    kept = {
        name: step[name.replace(kind, before[kind], 1)]
        for name in step
        if (kind := name.split("/")[0]) in before
        and name.replace(kind, before[kind], 1) in step
    }
    return kept | {"skipped": np.bool_(True), "grad_norm": np.float32(np.inf)}
