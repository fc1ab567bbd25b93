"""Tests of parity/oracle/step.py against the replay in float64."""

import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import models, optimizers, step
from parity.replay import Replay
from tests.parity.oracle.networks import assert_near

EXPERIMENT = Experiment(
    dataset="iris",
    model="mlp",
    hidden_sizes=(6, 5),
    normalization="batch",
    dropout_rates=(0.5, 0),
    loss="cross_entropy",
    optimizer="adamw",
    weight_decay=0.1,
    clip_norm=0.5,
    batch_size=16,
    precision="fp32",
)
FLOAT64 = np.dtype(np.float64)


@pytest.fixture(scope="module")
def data():
    return load_dataset(EXPERIMENT)


def recorded(experiment, data, rows):
    """Returns a step as a trace has it, float32, after a few updates."""
    rng = np.random.default_rng(0)
    params, batch_stats = models.initial(experiment, data.signature)
    grads = {name: rng.standard_normal(array.shape) for name, array in params.items()}
    moments = {
        name: array + rng.uniform(0, 1, array.shape)
        for name, array in optimizers.initial_moments(experiment, params).items()
    }
    kinds = {
        "params": params,
        "batch_stats": batch_stats,
        "grads": grads,
        "moments": moments,
    }
    arrays = {
        f"{kind}/{name}": array.astype(np.float32)
        for kind, flat in kinds.items()
        for name, array in flat.items()
    }
    return arrays | {
        "batch/ids": np.arange(rows, dtype=np.int32),
        "optimizer_step": np.int32(4),
        "loss_scale": np.float32(1),
        "learning_rate": np.float32(0.1),
    }


def by_oracle(experiment, data, number, found):
    ids = found["batch/ids"]
    return step.gradients(
        experiment,
        data.signature,
        select(found, "params"),
        select(found, "batch_stats"),
        data.train_inputs[ids],
        data.train_targets[ids],
        number,
    )


class TestGradients:
    @pytest.mark.parametrize(("rows", "parts"), [(16, 1), (11, 4), (3, 4)])
    def test_are_the_replays(self, data, rows, parts):
        # Full and smaller batches. The last microbatch may be empty.
        experiment = EXPERIMENT.replace(accumulation_steps=parts)
        found = recorded(experiment, data, rows)
        replay = Replay(experiment, data)
        theirs = replay.gradients(replay.inputs(7, found), FLOAT64)
        assert_near(by_oracle(experiment, data, 7, found), theirs)

    def test_depend_on_the_step_through_the_masks(self, data):
        found = recorded(EXPERIMENT, data, 16)
        first, again, other = (
            by_oracle(EXPERIMENT, data, number, found)["loss"] for number in (0, 0, 1)
        )
        assert first == again != other

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"params/output/kernel": None},
                r"^params/output/kernel: is missing, the network's is \(5, 3\); ",
            ),
            (
                {"params/hidden_0/bias": np.zeros(7)},
                r"^params/hidden_0/bias: is \(7,\), the network's is \(6,\); ",
            ),
            (
                {"params/hidden_2/bias": np.zeros(7)},
                "^params/hidden_2/bias: --model=mlp has no such parameter",
            ),
            (
                {"batch_stats/norm_1/var": None},
                r"^batch_stats/norm_1/var: is missing, the network's is \(5,\); ",
            ),
            (
                {"batch_stats/norm_2/var": np.ones(5)},
                "^batch_stats/norm_2/var: --model=mlp has no such statistic",
            ),
        ],
    )
    def test_refuse_what_is_not_the_networks(self, data, change, message):
        found = recorded(EXPERIMENT, data, 16) | change
        found = {name: array for name, array in found.items() if array is not None}
        with pytest.raises(UserError, match=message):
            by_oracle(EXPERIMENT, data, 0, found)

    def test_what_is_not_finite_comes_back(self, data):
        # Without a warning, which pytest would turn into an error.
        found = recorded(EXPERIMENT, data, 16)
        found["params/output/kernel"] *= np.float32(1e38)
        found["params/output/kernel"][0, 0] = np.inf
        result = by_oracle(
            EXPERIMENT.replace(normalization="none"),
            data,
            0,
            {name: array for name, array in found.items() if "norm" not in name},
        )
        assert not np.isfinite(result["loss"])


class TestUpdate:
    @pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
    def test_is_the_replays(self, data, optimizer):
        experiment = EXPERIMENT.replace(
            optimizer=optimizer, weight_decay=0.1 * (optimizer == "adamw")
        )
        found = recorded(experiment, data, 16)
        replay = Replay(experiment, data)
        theirs = replay.update(replay.inputs(7, found), FLOAT64)
        ours = step.update(
            experiment,
            select(found, "params"),
            select(found, "grads"),
            select(found, "moments"),
            found["optimizer_step"],
            found["learning_rate"],
        )
        assert_near(ours, theirs, relative=1e-13)

    def test_names_a_gradient_or_moment_that_is_missing(self, data):
        found = recorded(EXPERIMENT, data, 16)
        for kind in ("grads", "moments/second"):
            tensors = {
                name: array
                for name, array in found.items()
                if name != f"{kind}/output/bias"
            }
            with pytest.raises(UserError, match=f"^{kind}/output/bias: is missing"):
                step.update(
                    EXPERIMENT,
                    select(tensors, "params"),
                    select(tensors, "grads"),
                    select(tensors, "moments"),
                    4,
                    np.float32(0.1),
                )
