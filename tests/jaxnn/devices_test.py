"""Tests of jaxnn/devices.py, and that any number of devices trains to the same
parameters.

That is every network on 1, 2, 4 and 8 virtual ones, in one process. It compiles 48
programs, which takes longer than to run them: without fusion and LLVM's optimizations
half as long.
"""

import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import epochs, models, parallel, train, train_step
from jaxnn.devices import choose_devices
from jaxnn.experiment.catalogue import MODELS
from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.consistency import check
from jaxnn.models import resnet
from jaxnn.optimizers import OPTIMIZERS
from parity.free.spread import FLOAT32, deviation, start_apart
from parity.judging.measure import THRESHOLD
from parity.noise import norm, ulp

EPOCHS, SAMPLES = 17, 35
BASE = Experiment(
    batch_size=16,
    epochs=EPOCHS,
    loss="cross_entropy",
    learning_rate=0.01,
    precision="fp32",
)
"""51 steps. The last batch of an epoch has 3 samples: of eight devices six have padding
alone, of two parts one has."""
STEPS = EPOCHS * batches.steps_per_epoch(SAMPLES, BASE.batch_size)
MLP = dict(
    hidden_sizes=(8, 4),
    normalization="batch",
    dropout_rates=(0.5, 0.25),
    activation="tanh",
)
TWO, COUNTS = dict(accumulation_steps=2), (2, 4, 8)
XLA = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
)
OWN_STATISTICS = "mlp, own statistics"


def draw(*shape):
    return (
        np.random.default_rng(0).standard_normal((SAMPLES, *shape)).astype(np.float32)
    )


TABLE, IMAGES, SERIES = draw(6), draw(8, 8, 1), draw(6, 2)
TOKENS = np.random.default_rng(0).integers(0, 7, (SAMPLES, 7)).astype(np.int32)
CASES = {
    "linear": (TABLE, dict(loss="mse")),
    "logistic": (TABLE, TWO),
    "perceptron": (TABLE, dict(loss="perceptron", optimizer="sgd")),
    "mlp": (TABLE, MLP | TWO),
    OWN_STATISTICS: (TABLE, MLP | dict(sync_batch_norm=False)),
    "cnn": (
        IMAGES,
        dict(
            channels=(4,),
            normalization="batch",
            activation="gelu",
            pool="average",
            **TWO,
        ),
    ),
    "resnet": (IMAGES, {}),
    "rnn": (SERIES, dict(hidden_sizes=(4, 4), dropout_rates=(0.5, 0))),
    "lstm": (SERIES, dict(hidden_sizes=(4,), dropout_rates=(0.2,), **TWO)),
    "gru": (SERIES, dict(hidden_sizes=(4,))),
    "transformer": (
        TOKENS,
        dict(width=8, num_heads=2, num_layers=1, dropout_rates=(0.2,)),
    ),
    "transformer_encoder": (IMAGES, dict(width=8, num_heads=2, num_layers=1, **TWO)),
}


def data_of(inputs, loss):
    """Windows of tokens to continue, or examples of three classes, of two values each
    under mse."""
    if inputs is TOKENS:
        return Dataset(
            TOKENS[:, :-1],
            TOKENS[:, 1:],
            TOKENS[:1, :-1],
            TOKENS[:1, 1:],
            "language",
            tuple("abcdefg"),
        )
    values = inputs.reshape(SAMPLES, -1)[:, :3]
    if loss == "mse":
        return Dataset(inputs, values, inputs[:1], values[:1], "regression")
    classes = values.argmax(axis=1).astype(np.int32)
    return Dataset(
        inputs, classes, inputs[:1], classes[:1], "multiclass", ("a", "b", "c")
    )


class Training:
    """An experiment on so many devices; `end` trains it from given parameters."""

    def __init__(self, experiment, data, count):
        self.experiment, self.devices = experiment, jax.devices()[:count]
        self.model = models.build(experiment, data.signature)
        self.optimizer = OPTIMIZERS[experiment.optimizer](experiment)
        step = functools.partial(
            train_step.train_step,
            experiment,
            self.model,
            self.optimizer,
            axis_name=parallel.AXIS,
        )
        self.epoch = parallel.Compiled(
            parallel.make_epoch(
                step, lambda *_: (jnp.zeros(2), jnp.zeros(1)), self.devices
            )
        )
        self.rates, self.samples = (
            np.full(STEPS, experiment.learning_rate, np.float32),
            samples.training(data),
        )
        self.resident = epochs.make_resident(
            epochs.make_work(
                experiment,
                data,
                evaluation.splits(experiment, data),
                self.rates,
                self.devices,
            )[0]
        )

    def end(self, variables, params):
        """Flat parameters and running statistics after the last step."""
        count, parts = len(self.devices), self.experiment.accumulation_steps
        variables = {**variables, "params": trace.unflatten(params)}
        state = parallel.replicate(
            train_step.initial_state(variables, self.experiment, self.optimizer),
            self.devices,
        )
        none = parallel.shard(np.full((1, count), batches.PADDING, np.int32), count)
        for number in range(EPOCHS):
            ids = parallel.shard(
                batches.epoch_batches(self.experiment, SAMPLES, number), count, parts
            )
            state, *_ = self.epoch(state, ids, none, self.resident)
        assert_equal_copies(state)
        state = parallel.first(state)
        assert state.updates == STEPS
        return trace.flatten({"params": state.params, "batch_stats": state.batch_stats})


def assert_equal_copies(state):
    for copies in jax.tree.leaves(jax.tree.map(np.asarray, state)):
        np.testing.assert_array_equal(copies, np.broadcast_to(copies[:1], copies.shape))


def distances(name):
    """Number of devices -> tensor -> its distance from the run on one, in noise units.

    The unit is the standard deviation of eight runs on one device that start an ulp
    apart, at least an ulp.
    """
    inputs, changes = CASES[name]
    experiment = BASE.replace(model=name.split(",")[0], **changes)
    check(experiment)
    data = data_of(inputs, experiment.loss)
    alone = Training(experiment, data, 1)
    variables = jax.jit(
        lambda: train_step.initial_variables(alone.model, 0, data.signature)
    )()
    initial = {
        key: np.asarray(array)
        for key, array in trace.flatten(variables["params"]).items()
    }
    ends = [
        alone.end(variables, start)
        for start in start_apart(initial, FLOAT32, np.random.default_rng(1))
    ]
    units = {
        key: max(
            deviation(np.stack([end[key] for end in ends]).astype(np.float64)),
            norm(ulp(array, FLOAT32)),
        )
        for key, array in ends[0].items()
    }
    found = {}
    for count in COUNTS if name != OWN_STATISTICS else COUNTS[-1:]:
        end = Training(experiment, data, count).end(variables, initial)
        found[count] = {
            key: norm(end[key].astype(np.float64) - ends[0][key]) / unit
            for key, unit in units.items()
        }
    return found


def networks():
    """The distances of every case; the ResNet is cut to two blocks."""
    resnet.LAYOUTS[20] = resnet.LAYOUTS[20]._replace(blocks=(1, 1), channels=4)
    return {name: distances(name) for name in CASES}


def overflow():
    """Two steps in FP16, in the first of which sample 10 overflows, of the rows of
    device 5.

    Returns:
      Whether the gradients of each device's own rows are finite at each step, and what
      each device decided.
    """
    experiment = Experiment(
        batch_size=16, precision="fp16", initial_scale_power=4, hysteresis=1
    )
    inputs, targets = np.ones((32, 1), np.float32), np.zeros((32, 1), np.float32)
    inputs[10] = 60_000
    training = Training(
        experiment, Dataset(inputs, targets, inputs[:1], targets[:1], "regression"), 8
    )
    own = jax.jit(functools.partial(train_step.gradients, experiment, training.model))
    step = parallel.make_recorded_step(
        functools.partial(
            train_step.train_step,
            experiment,
            training.model,
            training.optimizer,
            axis_name=parallel.AXIS,
        ),
        training.devices,
    )
    params = {"output": {"kernel": jnp.zeros((1, 1)), "bias": jnp.ones(1)}}
    states = [
        train_step.initial_state(
            {"params": params, "batch_stats": {}}, experiment, training.optimizer
        )
    ]
    state, finite, skipped = parallel.replicate(states[0], training.devices), [], []
    for ids in parallel.shard(np.arange(32, dtype=np.int32).reshape(2, 16), 8).swapaxes(
        0, 1
    ):
        half = jax.tree.map(jnp.float16, params)
        alone = [
            own(
                half,
                {},
                train_step.Batch(jnp.float16(inputs[rows]), targets[rows], jnp.ones(2)),
                jnp.int32(0),
                jnp.float32(16),
            )[1]
            for rows in ids
        ]
        finite.append(
            [
                all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
                for grads in alone
            ]
        )
        state, result, _ = step(
            state,
            *parallel.put_rows(training.samples, ids, training.devices),
            training.rates,
        )
        assert_equal_copies(state)
        states.append(parallel.first(state))
        skipped.append(np.asarray(result.skipped).tolist())
    kept = [
        [
            np.array_equal(a, b)
            for a, b in zip(*(jax.tree.leaves((s.params, s.opt_state)) for s in pair))
        ]
        for pair in itertools.pairwise(states)
    ]
    return {
        "finite": finite,
        "skipped": skipped,
        "kept": kept,
        "updates": [int(s.updates) for s in states],
        "scale": [float(s.loss_scale.scale) for s in states],
    }


def in_process(name, path):
    """What a function of this file returns in a process with eight virtual devices."""
    environment = os.environ | {"XLA_FLAGS": " ".join(XLA), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.jaxnn.devices_test", name, path],
        env=environment,
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


class TestChooseDevices:
    @pytest.fixture
    def eight(self, monkeypatch):
        devices = [f"device {number}" for number in range(8)]
        monkeypatch.setattr(jax, "local_devices", lambda: devices)
        return devices

    def test_all_of_them_or_as_many_as_asked_for(self, eight):
        assert choose_devices(BASE.replace(batch_size=16)) == eight
        assert choose_devices(BASE.replace(batch_size=16, num_devices=2)) == eight[:2]

    @pytest.mark.parametrize(
        ("changes", "divisor", "fewer"),
        [
            (dict(batch_size=12), "the 8 devices here", 6),
            (dict(batch_size=7), "the 8 devices here", 7),
            (
                dict(batch_size=24, accumulation_steps=2),
                "the 8 devices here times --accumulation_steps=2",
                6,
            ),
        ],
    )
    def test_a_batch_that_does_not_divide_names_the_remedy(
        self, eight, changes, divisor, fewer
    ):
        message = (
            rf"^--batch_size: {changes['batch_size']} is not divisible by {divisor}; "
            rf"change it, or leave devices out with --num_devices={fewer}$"
        )
        with pytest.raises(UserError, match=message):
            choose_devices(BASE.replace(**changes))
        assert len(choose_devices(BASE.replace(**changes, num_devices=fewer))) == fewer

    def test_more_than_there_are_names_flag_and_remedy(self):
        count = len(jax.local_devices()) + 1
        with pytest.raises(
            UserError,
            match=rf"^--num_devices: {count} asked for, .*device_count={count}$",
        ):
            choose_devices(BASE.replace(num_devices=count, batch_size=count))


class TestNetworks:
    def test_any_number_of_devices_trains_to_the_same_parameters(self, tmp_path):
        found = in_process("networks", tmp_path / "distances.json")
        own_statistics = found.pop(OWN_STATISTICS)
        assert set(found) == set(MODELS)
        for name, by_count in found.items():
            assert set(by_count) == set(map(str, COUNTS))
            assert (
                max(z for by_tensor in by_count.values() for z in by_tensor.values())
                <= THRESHOLD
            ), (name, by_count)
        assert max(own_statistics["8"].values()) > 100 * THRESHOLD, (
            "other mathematics, and the same test sees it"
        )


class TestOverflow:
    def test_on_one_device_skips_the_step_on_all(self, tmp_path):
        found = in_process("overflow", tmp_path / "overflow.json")
        assert found["finite"] == [[device != 5 for device in range(8)], [True] * 8]
        assert found["skipped"] == [[True] * 8, [False] * 8]
        assert all(found["kept"][0])
        assert not any(found["kept"][1])
        assert found["updates"] == [0, 0, 1]
        assert found["scale"] == [16, 8, 8]


if __name__ == "__main__":
    train.configure(BASE)
    pathlib.Path(sys.argv[2]).write_text(
        json.dumps({"networks": networks, "overflow": overflow}[sys.argv[1]]())
    )
