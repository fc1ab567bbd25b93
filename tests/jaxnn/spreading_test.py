"""Tests of jaxnn/spreading.py."""

import json
import os
import subprocess
import sys

import jax
import pytest

from jaxnn import models, spreading, train_step
from jaxnn.devices import choose_devices
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS

LSTM = dict(model="lstm", hidden_sizes=(128,), batch_size=64)
SERIES = Signature((64, 16), 10)


def paying(signature, most=2, **settings):
    experiment = Experiment(precision="fp32", loss="cross_entropy", **settings)
    model = models.build(experiment, signature)

    def make():
        variables = train_step.initial_variables(model, 0, signature)
        optimizer = OPTIMIZERS[experiment.optimizer](experiment)
        return train_step.initial_state(variables, experiment, optimizer)

    state = jax.eval_shape(make)
    return spreading.paying_devices(experiment, model, state, signature, most)


class TestPayingDevices:
    @pytest.mark.parametrize(
        ("signature", "settings"),
        [
            (
                Signature((32, 32, 3), 10),
                dict(model="cnn", channels=(32, 64), hidden_sizes=(128,)),
            ),
            (SERIES, LSTM),
            (
                Signature((128,), 256, num_tokens=256, per_step=True),
                dict(model="transformer", num_layers=2, width=128, batch_size=16),
            ),
        ],
    )
    def test_what_computes_much_with_few_parameters_is_spread(
        self, signature, settings
    ):
        assert paying(signature, **{"batch_size": 128, **settings}) == 2

    @pytest.mark.parametrize(
        ("signature", "settings"),
        [
            (Signature((1,), 2), dict(model="linear", batch_size=32)),
            (Signature((30,), 2), dict(model="mlp", hidden_sizes=(16, 8))),
            # Enough work, but each parameter is used only once for each sample.
            (Signature((784,), 10), dict(model="mlp", hidden_sizes=(2048, 2048))),
            # Few parameters, but little work.
            (Signature((4, 1), 2), dict(model="rnn", hidden_sizes=(8,))),
        ],
    )
    def test_what_meets_more_than_it_computes_is_not(self, signature, settings):
        assert paying(signature, **{"batch_size": 128, **settings}) == 1

    def test_more_work_pays_for_more_cores(self):
        # 64 steps of 64 samples on 4 gates of 128 units, thrice: 1.8 GFLOP.
        assert paying(SERIES, most=64, **LSTM) == 4
        assert paying(SERIES, most=64, **{**LSTM, "batch_size": 256}) == 16

    @pytest.mark.parametrize(
        ("batch_size", "accumulation_steps", "count"), [(63, 1, 3), (66, 2, 3)]
    )
    def test_divides_each_microbatch(self, batch_size, accumulation_steps, count):
        settings = dict(batch_size=batch_size, accumulation_steps=accumulation_steps)
        assert paying(SERIES, most=4, **{**LSTM, **settings}) == count


class TestChooser:
    def test_all_devices_where_the_user_made_them(self, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
        assert spreading.chooser(Experiment(), None, None, None) is None

    def test_asked_without_num_devices_alone(self, monkeypatch):
        monkeypatch.setattr(jax, "local_devices", lambda: ["a", "b", "c", "d"])
        experiment = Experiment(batch_size=12)
        assert choose_devices(experiment, lambda most: most - 1) == ["a", "b", "c"]
        two = choose_devices(experiment.replace(num_devices=2), lambda most: 1)
        assert two == ["a", "b"]


class TestOfferCores:
    PROGRAM = (
        "import json, jax\n"
        "from jaxnn import spreading\n"
        "from jaxnn.experiment import cores\n"
        "from jaxnn.experiment.flags.config import Experiment\n"
        "spreading.offer_cores(Experiment(distributed={distributed}))\n"
        "print(json.dumps([len(jax.devices()), cores.usable()]))"
    )

    @pytest.mark.parametrize(
        ("environment", "distributed", "expected"),
        [
            ({}, False, None),
            ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, False, 3),
            ({"JAX_NUM_CPU_DEVICES": "5"}, False, 5),
            # Across processes all devices would be used.
            ({}, True, 1),
        ],
    )
    def test_unless_the_user_chose(self, environment, distributed, expected):
        inherited = {
            name: value for name, value in os.environ.items() if name != "XLA_FLAGS"
        }
        program = self.PROGRAM.format(distributed=distributed)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=inherited | {"JAX_PLATFORMS": "cpu"} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        devices, cores = json.loads(done.stdout)
        assert devices == (expected or cores)
