"""Tests of torch_ref/faults/objective.py: by how much each fault moves a run."""

import numpy as np
import pytest
import torch

from jaxnn.experiment.files.trace import select
from tests.torch_ref.faults.cases import BATCH, FIRST
from tests.torch_ref.faults.formulas import (
    UNIT,
    assert_within,
    data_of,
    experiment_of,
    pair,
    wide,
)
from torch_ref.dropout import dropout, mask_source


class TestObjective:
    @pytest.mark.parametrize(
        ("name", "factor", "loss_factor", "number"),
        [
            ("loss_summed-mlp", BATCH, BATCH, FIRST),
            ("half_factor-line", 0.5, 0.5, FIRST),
            ("accumulation_not_averaged-mlp-accumulation_steps=2", 2, 1, FIRST),
        ],
    )
    def test_power_of_two(self, steps, name, factor, loss_factor, number):
        plain, planted = pair(steps, name, number)
        assert planted["loss"] == loss_factor * plain["loss"]
        for key, array in select(plain, "grads").items():
            np.testing.assert_array_equal(
                planted[f"grads/{key}"], np.float32(factor) * array
            )

    def test_smaller_batch_as_if_full(self, steps):
        """The last of the first epoch; a gradient, a sum of 71 terms of either sign,
        carries their roundings."""
        plain, planted = pair(steps, "padding_counted-mlp", 3)
        samples = len(plain["batch/ids"])
        assert samples == 71
        assert float(planted["loss"]) == pytest.approx(
            float(plain["loss"]) * samples / BATCH, rel=4 * UNIT
        )
        largest = max(abs(array).max() for array in wide(plain, "grads").values())
        for key, array in wide(plain, "grads").items():
            np.testing.assert_allclose(
                planted[f"grads/{key}"],
                array * samples / BATCH,
                rtol=0,
                atol=samples * UNIT * largest,
            )

    def test_last_part_alone(self, steps):
        """The gradient of the sum is that of both parts; what the first has added to it
        is gone."""
        plain, planted = pair(steps, "last_part_only-mlp-accumulation_steps=2")
        activations = plain["activations/output"][:, 0]
        weights = np.repeat([0, 1], BATCH // 2)
        targets = data_of("mlp").train_targets[plain["batch/ids"]][:, 0]
        residuals = (
            1 / (1 + np.exp(-activations.astype(np.float64))) - targets
        ) / BATCH
        for step, used in ((plain, 1), (planted, weights)):
            assert float(step["grads/output/bias"][0]) == pytest.approx(
                float(np.sum(residuals * used)), abs=BATCH * UNIT / BATCH
            )

    @pytest.mark.parametrize(
        "flag", ["", "-precision=fp16", "-precision=bf16", "-accumulation_steps=2"]
    )
    def test_gradients_add_up(self, steps, flag):
        """In the format that DeepSpeed keeps them in: one rounding."""
        plain, planted = pair(steps, f"gradients_not_zeroed-mlp{flag}")
        before = steps(f"gradients_not_zeroed-mlp{flag}")[FIRST - 1]
        unit = {"-precision=fp16": 2.0**-11, "-precision=bf16": 2.0**-8}.get(
            flag, 2.0**-24
        )
        for key, array in wide(plain, "grads").items():
            wanted = array + before[f"grads/{key}"]
            assert (
                abs(planted[f"grads/{key}"] - wanted)
                <= unit * abs(wanted) + 2.0**-25 / 256
            ).all()

    def test_forward_pass_of_the_step_before(self, steps):
        """y = w x + b of the previous step's parameters: three roundings."""
        _, planted = pair(steps, "stale_parameters-line")
        before, inputs = (
            steps("stale_parameters-line")[FIRST - 1],
            data_of("line").train_inputs[planted["batch/ids"]],
        )
        weight, bias = (
            float(before[f"params/output/{leaf}"].item()) for leaf in ("kernel", "bias")
        )
        size = abs(weight * inputs) + abs(bias)
        assert (
            abs(
                planted["activations/output"]
                - (weight * inputs.astype(np.float64) + bias)
            )
            <= 3 * UNIT * size
        ).all()

    def test_divided_by_the_scale_once_more(self, steps):
        """Adam's first moment is b1 m + (1 - b1) g / scale."""
        _, planted = pair(steps, "unscaled_twice-mlp-precision=fp16")
        grads, before = wide(planted, "grads"), wide(planted, "moments/first")
        wanted = {
            name: 0.9 * before[name] + 0.1 * array / 256
            for name, array in grads.items()
        }
        assert_within(
            wide(planted, "updated_moments/first"),
            wanted,
            4,
            {
                name: abs(before[name]) + abs(array) / 256
                for name, array in grads.items()
            },
        )

    def test_masks_of_the_first_step(self, steps):
        """A unit that is dropped moves no weight behind it: the output kernel's
        gradient is 0 in the same rows."""
        planted = steps("dropout_mask_reused-mlp")
        assert (planted[FIRST]["batch/ids"] != planted[0]["batch/ids"]).any()
        experiment = experiment_of("mlp")
        masks = [mask_source(experiment.seed, step, 0) for step in (0, FIRST)]
        ones = torch.ones(BATCH, 8)
        first, other = (dropout(ones, 0.2, 1, source) for source in masks)
        assert (first != other).any()
        hidden = torch.relu(torch.from_numpy(planted[FIRST]["activations/hidden_1"]))
        output, kernel, bias = (
            torch.from_numpy(planted[FIRST][name])
            for name in (
                "activations/output",
                "params/output/kernel",
                "params/output/bias",
            )
        )
        torch.testing.assert_close(hidden * first @ kernel + bias, output)
        assert not torch.allclose(hidden * other @ kernel + bias, output)

    def test_kept_units_are_not_divided(self, steps):
        _, planted = pair(steps, "dropout_not_divided-mlp")
        source = mask_source(experiment_of("mlp").seed, FIRST, 0)
        mask = (dropout(torch.ones(BATCH, 8), 0.2, 1, source) > 0).float()
        hidden = torch.relu(torch.from_numpy(planted["activations/hidden_1"]))
        kernel, bias = (
            torch.from_numpy(planted[f"params/output/{leaf}"])
            for leaf in ("kernel", "bias")
        )
        torch.testing.assert_close(
            hidden * mask @ kernel + bias,
            torch.from_numpy(planted["activations/output"]),
        )

    def test_loss_of_probabilities(self, steps):
        """-log softmax(softmax(z))_t by hand, in float64 from the recorded logits."""
        _, planted = pair(steps, "probabilities_as_logits-transformer")
        logits = planted["activations/output"].astype(np.float64)
        targets = data_of("transformer").train_targets[planted["batch/ids"]]
        wanted = -np.take_along_axis(
            log_softmax(np.exp(log_softmax(logits))), targets[..., None], -1
        ).mean()
        assert float(planted["loss"]) == pytest.approx(wanted, rel=32 * UNIT)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
