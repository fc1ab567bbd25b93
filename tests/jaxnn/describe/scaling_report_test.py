"""Flags and table of scaling on paper."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core
from rich.console import Console

from jaxnn import train_step
from jaxnn.describe import __main__ as describe
from jaxnn.describe import abstract_step, layer_table, scaling_report
from jaxnn.describe.scaling import Machine
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment

WHOLE = ("--devices=4", "--peak_tflops=2", "--bandwidth_gbs=3")


def machine(*given):
    _, values = command_line.parse(["", *given], "fp32", describe.define_more)
    return scaling_report.machine(values)


def step(**changes):
    settings = {"precision": "fp32", "batch_size": 8} | changes
    experiment = Experiment(model="mlp", hidden_sizes=(4,), **settings)
    return abstract_step.build(experiment, Signature((3,), 2))


class TestMachine:
    def test_units(self):
        given = (*WHOLE, "--utilization=0.5", "--latency_us=7")
        assert machine(*given) == pytest.approx(Machine(2e12, 0.5, 3e9, 7e-6))

    def test_none_without_devices(self):
        assert machine() is None

    @pytest.mark.parametrize(
        ("given", "flag"),
        [
            (("--devices=4", "--peak_tflops=2"), "bandwidth_gbs"),
            (("--devices=4", "--bandwidth_gbs=2"), "peak_tflops"),
            (("--peak_tflops=2",), "peak_tflops"),
            ((*WHOLE, "--devices=-1"), "devices"),
            ((*WHOLE, "--utilization=1.5"), "utilization"),
            ((*WHOLE, "--latency_us=-1"), "latency_us"),
        ],
    )
    def test_refuses(self, given, flag):
        with pytest.raises(UserError, match=f"^--{flag}: "):
            machine(*given)


class TestWork:
    def test_counts_every_microbatch(self):
        whole, parts = step(precision="fp16"), step(accumulation_steps=4)
        one = scaling_report.work_of(whole, layer_table.trace(whole))
        four = scaling_report.work_of(parts, layer_table.trace(parts))
        assert one.forward == pytest.approx(four.forward, rel=0.1)
        # 16 + 10 parameters, in the compute dtype.
        assert (one.gradients, four.gradients) == (52, 104)


def test_a_row_for_each_number_of_devices(capsys):
    described = step()
    scaling_report.print_scaling(
        described,
        layer_table.trace(described),
        Machine(1e12, 1.0, 1e9),
        4,
        Console(width=100),
    )
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [(row[0], row[1]) for row in rows] == [("1", "8"), ("2", "16"), ("4", "32")]
    assert rows[0][-2:] == ["100.0%", "100.0%"]


@pytest.mark.parametrize("changes", [{}, {"precision": "fp16"}])
def test_what_a_step_sums_over_devices_is_what_the_report_counts(changes):
    described = step(**changes)
    whole = functools.partial(
        train_step.train_step,
        described.experiment,
        described.model,
        described.optimizer,
        axis_name="devices",
    )
    rates = jax.ShapeDtypeStruct((1,), jnp.float32)
    traced = jax.make_jaxpr(whole, axis_env=[("devices", 8)])(
        described.state, described.batch, rates
    )
    work = scaling_report.work_of(described, layer_table.trace(described))
    # Besides the gradients the loss and the number of samples, each a float32.
    assert summed(traced.jaxpr) == work.gradients + 2 * 4


def summed(program) -> int:
    """Bytes of all that a program sums over devices."""
    size = 0
    for equation in program.eqns:
        if equation.primitive.name.startswith("psum"):
            size += sum(x.aval.size * x.aval.dtype.itemsize for x in equation.invars)
        size += sum(summed(inner) for inner in core.jaxprs_in_params(equation.params))
    return size
