"""The description of a network as tables on a terminal. 1 GB is 10^9 bytes."""

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from jaxnn import freezing
from jaxnn.describe import step_memory
from jaxnn.describe.abstract_step import AbstractStep
from jaxnn.describe.layer_table import NETWORK, Layer, Traced
from jaxnn.describe.step_memory import CompiledStep

PUBLISHED = {"memory": 15e9, "activations": 12e9}
"""Published figures, in bytes, for training ResNet-50 in FP16 at batch 256.

They come with the rule that the backward pass does twice the forward pass.
"""

_MEANING = {
    "flops": "FLOPs",
    "arguments": "bytes of arguments: state and batch",
    "outputs": "bytes of results",
    "temporaries": "bytes of temporaries: activations, gradients, scratch",
    "peak": "bytes at the peak",
}
"""Field of `CompiledStep` -> what it is called in the table."""


def print_layers(step: AbstractStep, traced: Traced, console: Console) -> None:
    """Prints a row for each layer, then the totals."""
    rows = len(step.microbatch.weights)
    shape = _shape(step.microbatch.inputs.shape[1:])
    experiment = step.experiment
    table = empty_table(
        f"{experiment.model}, {experiment.precision}: {rows} x {shape} at once",
        ("layer", "type", "output", "parameters", "FLOPs", "kept"),
        left=3,
    )
    for layer in traced.layers:
        table.add_row(*_layer_row(layer))
    table.add_section()
    num_params = sum(layer.num_params for layer in traced.layers)
    kept = sum(traced.kept.values())
    forward = count(traced.forward_flops)
    table.add_row("total", "", "", f"{num_params:,}", forward, size(kept))
    if step.experiment.freeze:
        trained = freezing.trained(step.experiment, step.state.params)
        num_trained = sum(leaf.size for leaf in jax.tree.leaves(trained))
        table.add_row("frozen", "", "", f"{num_params - num_trained:,}", "", "")
    console.print(table)
    console.print(
        "FLOPs: of the forward pass, counted from shapes, 2 a multiply-add. Forward "
        f"{forward}, forward and backward {count(traced.gradient_flops)}: the backward "
        f"pass does {_backward_ratio(traced):.2f} times the forward pass.\n"
        "kept: for the backward pass, by the layer that makes it. "
        f"{NETWORK} is what the network does between its layers.\n"
    )


def _layer_row(layer: Layer) -> tuple[str, ...]:
    # A module in a module is indented below it. Zeros are left out.
    *parents, name = layer.name.split("/")
    return (
        "  " * len(parents) + name,
        layer.kind,
        _shape(layer.output.shape) if layer.output else "",
        f"{layer.num_params:,}" if layer.num_params else "",
        count(layer.flops) if layer.flops else "",
        size(layer.kept) if layer.kept else "",
    )


def print_memory(step: AbstractStep, traced: Traced, console: Console) -> None:
    """Prints what a step holds, tensor by tensor."""
    table = empty_table(
        "Memory of a training step, from shapes", ("tensors", "bytes"), left=1
    )
    for purpose, number in step_memory.held(step):
        table.add_row(purpose, size(number))
    largest_first = sorted(traced.kept.items(), key=lambda item: -item[1])
    for dtype, number in largest_first:
        table.add_row(
            f"activations that autodiff keeps for the backward pass, {dtype}",
            size(number),
        )
    table.add_section()
    table.add_row("total", size(_held(step) + sum(traced.kept.values())))
    console.print(table)
    console.print(
        "Autodiff's activations are jax.vjp's residuals, the same on every backend "
        "and before the compiler, which may compute some of them twice instead of "
        "keeping them.\n"
    )


def print_compiled(
    step: AbstractStep,
    has_loops: bool,
    forward: CompiledStep,
    whole: CompiledStep,
    console: Console,
) -> None:
    """Prints the compiler's own analysis of forward pass and training step."""
    table = empty_table(
        f"Compiled for {jax.default_backend()}, by the compiler's own analysis",
        ("", "forward pass", "training step"),
        left=1,
    )
    for field in CompiledStep._fields:
        values = [getattr(program, field) for program in (forward, whole)]
        unit = count if field == "flops" else size
        if any(values):
            table.add_row(_MEANING[field], *(unit(value or 0) for value in values))
    console.print(table)
    _print_caveats(step, has_loops, forward, whole, console)
    console.print()


def _print_caveats(
    step: AbstractStep,
    has_loops: bool,
    forward: CompiledStep,
    whole: CompiledStep,
    console: Console,
) -> None:
    if has_loops or step.experiment.accumulation_steps > 1:
        console.print(
            "This analysis counts the body of a loop once: trust the FLOPs that are "
            "counted from shapes."
        )
    elif forward.flops and whole.flops:
        console.print(
            "The training step, its update included, does "
            f"{whole.flops / forward.flops:.2f} times the FLOPs of the forward pass."
        )
    is_cpu = jax.default_backend() == "cpu"
    if is_cpu and step.experiment.precision in ("fp16", "bf16"):
        console.print(
            f"On a CPU the compiler computes {step.experiment.precision} products in "
            "float32: its temporaries say nothing about the memory of an accelerator."
        )


def print_published_figures(
    step: AbstractStep, traced: Traced, console: Console
) -> None:
    """Prints the published figures for ResNet-50 beside these."""
    held = _held(step)
    kept = sum(traced.kept.values())
    # What a framework keeps that differentiates layer by layer.
    outputs = sum(
        step_memory.size_of(layer.output) for layer in traced.layers if layer.num_params
    )
    ratio = f"{_backward_ratio(traced):.2f}"
    table = empty_table(
        "ResNet-50, FP16, batch 256",
        ("", "published", "autodiff keeps", "outputs of layers"),
        left=1,
    )
    published = f"about {size(PUBLISHED['activations'])}"
    table.add_row("activations", published, size(kept), size(outputs))
    published = f"about {size(PUBLISHED['memory'])}"
    table.add_row("memory in all", published, size(held + kept), size(held + outputs))
    table.add_row("FLOPs, backward pass / forward pass", "about 2", ratio, ratio)
    console.print(table)
    console.print(
        "Published: the figures that are quoted for training ResNet-50 in FP16 at "
        "batch 256. Autodiff keeps: as in the tables above. Outputs of layers: an "
        "estimate of what a framework keeps that has a formula for the gradient of "
        "each layer and applies ReLU and sums in place: the output of each layer with "
        "parameters, once. Neither holds the scratch memory of convolutions or an "
        "allocator's reserve, as the published total may."
    )


def is_published_example(step: AbstractStep) -> bool:
    """Returns True for ResNet-50 in FP16 on 256 images of 224 x 224."""
    experiment = step.experiment
    network = (experiment.model, experiment.resnet_depth, experiment.precision)
    inputs = step.microbatch.inputs.shape
    return network == ("resnet", 50, "fp16") and inputs == (256, 224, 224, 3)


def count(number: float) -> str:
    """A count with a unit: 2.04 T."""
    return _scaled(number, ("", " k", " M", " G", " T", " P"))


def size(number: float) -> str:
    """Bytes with a unit: 14.2 GB."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    power = 0
    # Not 1000: three digits of 999.7 are 1000.
    while number >= 999.5 and power < len(units) - 1:
        number /= 1000
        power += 1
    digits = f"{number:.3g}" if power else f"{number:.0f}"
    return digits + units[power]


def _held(step: AbstractStep) -> int:
    """Bytes that a step holds beside activations."""
    return sum(number for _, number in step_memory.held(step))


def _backward_ratio(traced: Traced) -> float:
    """FLOPs of the backward pass over those of the forward pass."""
    return traced.gradient_flops / traced.forward_flops - 1


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def empty_table(title: str, headers: tuple[str, ...], left: int) -> Table:
    """Returns an empty table, whose first `left` columns are aligned to the left."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position < left else "right")
    return table
