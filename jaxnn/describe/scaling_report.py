"""Scaling on paper as a command shows it: its flags and its table."""

from absl import flags
from rich.console import Console

from jaxnn.describe import report, scaling, step_memory
from jaxnn.describe.abstract_step import AbstractStep
from jaxnn.describe.layer_table import Traced
from jaxnn.describe.scaling import Machine, Prediction, Work
from jaxnn.experiment.errors import UserError

MOST_DEVICES = 1_000_000
HEADERS = (
    "devices",
    "batch",
    "compute",
    "all-reduce",
    "step",
    "share",
    "samples/s",
    "efficiency",
    "at best",
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say what is scaled to."""
    flags.DEFINE_integer(
        "devices",
        0,
        "Predict data-parallel training on up to so many devices, each with the rows "
        "of one; needs --peak_tflops and --bandwidth_gbs.",
        flag_values=values,
    )
    for name, default, meaning in (
        ("peak_tflops", 0.0, "10^12 FLOP/s of a device in the compute dtype."),
        ("bandwidth_gbs", 0.0, "10^9 bytes/s that a device sends to the next one."),
        ("utilization", 1.0, "Share of --peak_tflops that training reaches."),
        ("latency_us", 0.0, "Microseconds that an empty message takes."),
    ):
        flags.DEFINE_float(
            name, default, f"With --devices: {meaning}", flag_values=values
        )


def machine(values: flags.FlagValues) -> Machine | None:
    """Returns what the flags describe; None without `--devices`.

    Raises:
      UserError: a flag is missing, out of bounds or without `--devices`.
    """
    given = [name for name in ("peak_tflops", "bandwidth_gbs") if values[name].present]
    if not values.devices:
        if given:
            raise UserError(
                f"--{given[0]}: predicts a step on --devices=N; give that too"
            )
        return None
    if not 1 <= values.devices <= MOST_DEVICES:
        raise UserError(f"--devices: must be 1 to {MOST_DEVICES}, got {values.devices}")
    for name in ("peak_tflops", "bandwidth_gbs"):
        if not values.get_flag_value(name, 0.0) > 0:
            raise UserError(f"--{name}: --devices needs it, above 0")
    if not 0 < values.utilization <= 1:
        raise UserError(
            f"--utilization: must be above 0 and at most 1, got {values.utilization:g}"
        )
    if values.latency_us < 0:
        raise UserError(f"--latency_us: must be at least 0, got {values.latency_us:g}")
    return Machine(
        values.peak_tflops * 1e12,
        values.utilization,
        values.bandwidth_gbs * 1e9,
        values.latency_us * 1e-6,
    )


def work_of(step: AbstractStep, traced: Traced) -> Work:
    """Returns what a device does in a step of all its microbatches."""
    parts = step.experiment.accumulation_steps
    backward = traced.gradient_flops - traced.forward_flops
    # jaxnn sums gradients in the compute dtype.
    size = step_memory.tree_size(step.compute_params)
    return Work(traced.forward_flops * parts, backward * parts, size)


def print_scaling(
    step: AbstractStep,
    traced: Traced,
    machine: Machine,
    devices: int,
    console: Console,
) -> None:
    """Prints a row for 1, 2, 4, ... devices."""
    work = work_of(step, traced)
    rows = len(step.batch.weights)
    table = report.empty_table(
        f"Data parallel on paper: {rows} rows a device, gradients of "
        f"{report.size(work.gradients)}",
        HEADERS,
        left=0,
    )
    for count in scaling.counts(devices):
        table.add_row(*_row(scaling.predict(work, machine, count), rows))
    console.print(table)
    console.print(
        "FLOPs counted from shapes. share: of the all-reduce (ring) in a step. "
        "efficiency: samples/s over those of as many devices alone, the sum coming "
        "after the backward pass as in jaxnn; at best: within it. Neither updates, "
        "data nor the slowest device count.\n"
    )


def _row(predicted: Prediction, rows: int) -> tuple[str, ...]:
    samples = predicted.devices * rows
    return (
        str(predicted.devices),
        str(samples),
        _time(predicted.compute),
        _time(predicted.all_reduce),
        _time(predicted.step),
        f"{predicted.communication:.1%}",
        report.count(samples / predicted.step),
        f"{predicted.efficiency:.1%}",
        f"{predicted.overlapped_efficiency:.1%}",
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
