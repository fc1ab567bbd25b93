"""`python -m parity.convert --port`: what it reads, writes and prints."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import handoff
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.results.console import table_console
from parity import whole_folder
from parity.own.environment import of_a_port
from parity.own.port_file import read_names
from parity.own_checkpoint import (
    from_deepspeed,
    plan,
    to_deepspeed,
    torch_half,
    tree_files,
)
from parity.own_checkpoint.torch_half import Held

NAMES = ("model", "optimizer", "convert", "inputs", "groups")
"""What a port's file may define here."""


def main(values: flags.FlagValues) -> None:
    """Converts --from into --to, which appears whole or not at all."""
    target = whole_folder.require_new(values.to)
    source = pathlib.Path(values["from"].value or "")
    _require_source(values["from"].value, bool(values.template))
    if not values.port:
        raise UserError("--port: not given; name the Python file of the port")
    port = read_names(pathlib.Path(values.port), NAMES)
    console = table_console()
    with (
        of_a_port(),
        whole_folder.beside(target) as partial,
        tempfile.TemporaryDirectory() as scratch,
    ):
        if values.template:
            template = pathlib.Path(values.template)
            lines = _back(
                source, template, port, partial, pathlib.Path(scratch), console
            )
        else:
            lines = _there(source, port, partial, pathlib.Path(scratch), console)
    for line in [*lines, f"wrote {target}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _require_source(name: str | None, has_template: bool) -> None:
    """Raises UserError if --from is not what the direction needs."""
    what = "DeepSpeed's checkpoint, or with --template a tree to put into it"
    if not name:
        raise UserError(f"--from: not given; give {what}")
    if not pathlib.Path(name).exists():
        raise UserError(f"--from: {name} is not there; give {what}")
    if tree_files.is_tree(pathlib.Path(name)) and not has_template:
        raise UserError(
            f"--template: not given; {name} is a tree, name the checkpoint of "
            "DeepSpeed that its values go into"
        )


def _there(
    source: pathlib.Path,
    port: Mapping[str, Any],
    target: pathlib.Path,
    scratch: pathlib.Path,
    console: Console,
) -> list[str]:
    """Writes the tree of DeepSpeed's checkpoint; returns what to print."""
    held = torch_half.read(source, scratch, port["groups"], "--from")
    kept = {n: a for n, a in held.arrays.items() if not n.startswith("buffers/")}
    handoff.require_finite(kept, source)
    made = plan.make(port, held, console)
    moments = from_deepspeed.moments_of(made, held)
    tree = from_deepspeed.tree_of(made, held, moments)
    tree_files.write(jax.tree.map(np.asarray, tree), target)
    said = from_deepspeed.notes(made, held, moments)
    filled = from_deepspeed.filled(made, moments)
    return [
        _facts(held),
        f"tensors: {_counts(held)} -> {len(made.leaves)} leaves, {filled} of "
        f"{len(jax.tree.leaves(made.state))} arrays of opt_state",
        _standing(from_deepspeed.counters_of(held)),
        *(f"note: {line}" for line in said),
    ]


def _back(
    source: pathlib.Path,
    template: pathlib.Path,
    port: Mapping[str, Any],
    target: pathlib.Path,
    scratch: pathlib.Path,
    console: Console,
) -> list[str]:
    """Writes DeepSpeed's checkpoint of a tree; returns what to print."""
    given = tree_files.read(source)
    held = torch_half.read(template, scratch, port["groups"], "--template")
    made = plan.make(port, held, console)
    values = to_deepspeed.values_of(made, held, given)
    new = {"counters": values.counters, "rate": values.rate}
    changed = torch_half.write(
        template, scratch, port["groups"], values.arrays, new, target
    )
    return [
        _facts(held),
        f"tensors: {len(changed)} of {len(held.arrays)} are not as in --template",
        _standing(values.counters),
        *(f"note: {line}" for line in values.notes),
    ]


def _facts(held: Held) -> str:
    about = held.about
    ranks = "1 rank" if about["ranks"] == 1 else f"{about['ranks']} ranks"
    return (
        f"{about['folder']}: ZeRO stage {about['stage']}, {ranks}, {about['dtype']}, "
        f"DeepSpeed {about['version']}"
    )


def _counts(held: Held) -> str:
    frozen = len(held.about["frozen"])
    params = len(select(held.arrays, "params")) - frozen
    buffers = len(select(held.arrays, "buffers"))
    keys = ", ".join(held.about["keys"]) or "no moments"
    return f"{params} params, {frozen} frozen, {buffers} buffers; {keys}"


def _standing(counters: Mapping[str, Any]) -> str:
    counted = counters["optimizer_step"]
    return (
        f"step {counters['step']}, updates {counters['updates']}, optimizer step "
        f"{counted if counted is not None else 'not counted'}, loss scale "
        f"{counters['loss_scale']:g}"
    )
