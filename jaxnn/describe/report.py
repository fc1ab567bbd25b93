"""The description of a network as a person reads it. 1 GB is 10^9 bytes."""

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from jaxnn.describe import step_memory
from jaxnn.describe.abstract_step import AbstractStep
from jaxnn.describe.layer_table import NETWORK, Traced
from jaxnn.describe.step_memory import CompiledStep

SEED = {"memory": 15e9, "activations": 12e9}
"""Bytes of training ResNet-50 in FP16 with mini-batches of 256 (seed document 003); its
backward pass does 2x."""


def print_layers(step: AbstractStep, traced: Traced, console: Console) -> None:
    """Prints a row a layer, then the totals."""
    experiment, rows = step.experiment, len(step.part.weights)
    table = _table(
        f"{experiment.model}, {experiment.precision}: {rows} x "
        f"{_shape(step.part.inputs.shape[1:])} at once",
        ("layer", "type", "output", "parameters", "FLOPs", "kept"),
        left=3,
    )
    for layer in traced.layers:
        *parents, name = layer.name.split("/")
        table.add_row(
            "  " * len(parents) + name,
            layer.kind,
            _shape(layer.output.shape) if layer.output else "",
            f"{layer.num_params:,}" if layer.num_params else "",
            count(layer.flops) if layer.flops else "",
            size(layer.kept) if layer.kept else "",
        )
    table.add_section()
    num_params = sum(layer.num_params for layer in traced.layers)
    table.add_row(
        "total",
        "",
        "",
        f"{num_params:,}",
        count(traced.forward_flops),
        size(sum(traced.kept.values())),
    )
    console.print(table)
    ratio = traced.gradient_flops / traced.forward_flops
    console.print(
        "FLOPs: of the forward pass, counted from shapes, 2 a multiply-add. Forward "
        f"{count(traced.forward_flops)}, forward and backward "
        f"{count(traced.gradient_flops)}: the backward pass does {ratio - 1:.2f} times "
        "the forward pass.\nkept: for the backward pass, by the layer that makes it. "
        f"{NETWORK} is what the network does between its layers.\n"
    )


def print_memory(step: AbstractStep, traced: Traced, console: Console) -> None:
    """Prints what a step holds, tensor by tensor."""
    table = _table(
        "Memory of a training step, from shapes", ("tensors", "bytes"), left=1
    )
    held = step_memory.held(step)
    for what, number in held:
        table.add_row(what, size(number))
    for dtype, number in sorted(traced.kept.items(), key=lambda item: -item[1]):
        table.add_row(
            f"activations that autodiff keeps for the backward pass, {dtype}",
            size(number),
        )
    table.add_section()
    table.add_row(
        "total", size(sum(number for _, number in held) + sum(traced.kept.values()))
    )
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
    """Prints what the compiled programs say of themselves."""
    backend = jax.default_backend()
    table = _table(
        f"Compiled for {backend}, by the compiler's own analysis",
        ("", "forward pass", "training step"),
        1,
    )
    for what in CompiledStep._fields:
        values = [getattr(program, what) for program in (forward, whole)]
        if any(values):
            table.add_row(
                _MEANING[what],
                *((count if what == "flops" else size)(value or 0) for value in values),
            )
    console.print(table)
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
    if backend == "cpu" and step.experiment.precision in ("fp16", "bf16"):
        console.print(
            f"On a CPU the compiler computes {step.experiment.precision} products in "
            "float32: its temporaries say nothing about the memory of an accelerator."
        )
    console.print()


_MEANING = {
    "flops": "FLOPs",
    "arguments": "bytes of arguments: state and batch",
    "outputs": "bytes of results",
    "temporaries": "bytes of temporaries: activations, gradients, scratch",
    "peak": "bytes at the peak",
}


def print_seed_figures(step: AbstractStep, traced: Traced, console: Console) -> None:
    """Prints a seed document's figures beside these, where the network is the one that
    it speaks of."""
    if not is_seed_example(step):
        return
    held, kept = (
        sum(number for _, number in step_memory.held(step)),
        sum(traced.kept.values()),
    )
    outputs = sum(
        step_memory.size_of(layer.output) for layer in traced.layers if layer.num_params
    )
    ratio = traced.gradient_flops / traced.forward_flops - 1
    table = _table(
        "ResNet-50, FP16, mini-batch 256",
        ("", "document", "autodiff keeps", "outputs of layers"),
        left=1,
    )
    table.add_row(
        "activations", f"about {size(SEED['activations'])}", size(kept), size(outputs)
    )
    table.add_row(
        "memory in all",
        f"about {size(SEED['memory'])}",
        size(held + kept),
        size(held + outputs),
    )
    table.add_row(
        "FLOPs, backward pass / forward pass", "about 2", f"{ratio:.2f}", f"{ratio:.2f}"
    )
    console.print(table)
    console.print(_SEED_NOTE)


_SEED_NOTE = (
    'Document: "Resnet50 training in FP16 at mini-batch size 256" (seed document 003). Autodiff keeps: as in the '
    "tables above. Outputs of layers: an estimate of what a framework keeps that has a formula for the gradient of "
    "each layer and applies ReLU and sums in place: the output of each layer with parameters, once. Neither holds the "
    "scratch memory of convolutions or an allocator's reserve, as the document's total may."
)


def is_seed_example(step: AbstractStep) -> bool:
    """Whether this is ResNet-50 in FP16 on 256 images of 224 x 224."""
    experiment = step.experiment
    return (experiment.model, experiment.resnet_depth, experiment.precision) == (
        "resnet",
        50,
        "fp16",
    ) and step.part.inputs.shape == (256, 224, 224, 3)


def count(number: float) -> str:
    """A count with a unit: 2.04 T."""
    return _scaled(number, ("", " k", " M", " G", " T", " P"))


def size(number: float) -> str:
    """Bytes with a unit: 14.2 GB."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    power = 0
    while number >= 999.5 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    return (f"{number:.3g}" if power else f"{number:.0f}") + units[power]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _table(title: str, headers: tuple[str, ...], left: int) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position < left else "right")
    return table
