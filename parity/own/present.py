"""Judges a port and says so: a table, verdict.json and report.html."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.results import run_log
from jaxnn.experiment.results.console import table_console
from parity.judging.recording import Judgement
from parity.own import epochs, propose
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.port import Port, require_readable
from parity.report import page, published_score, terminal

VERDICT = "verdict.json"
PAGE = "report.html"
STACK = "torch"
PACKAGES = ("jax", "flax", "optax", "numpy")


def judge_and_present(
    folder: pathlib.Path,
    model: Any,
    loss: Callable | None,
    optimizer: Any,
    convert: Callable | Mapping | None,
    threshold: float,
    quiet: bool = False,
) -> Judgement:
    """Returns the judgement; arguments are those of `parity.own.judge`."""
    console = table_console(quiet)
    start = time.perf_counter()
    with of_a_port():
        trace = Reader(folder)
        require_readable(trace)
        if convert is None:
            convert = propose.converter(trace, model, console)
        if isinstance(convert, Mapping):
            convert = propose.from_origins(convert)
        port = Port(trace, model, loss, optimizer, convert)
        say(console, f"{folder}: judging {len(trace)} steps")
        judged = judgement(port, threshold)
    seconds = time.perf_counter() - start

    title = f"{folder.name} {trace.meta['precision']}"
    terminal.print_judgements({STACK: judged}, title, console)
    for note in notes(port):
        say(console, f"note: {note}")
    write(folder, title, judged, trace, seconds)
    say(console, f"seconds: {seconds:.1f}; files: {folder / PAGE}, {VERDICT}")
    return judged


def notes(port: Port) -> list[str]:
    """Returns what was not compared, and what is odd, a line each."""
    found = []
    for kind, why in port.ported.meta.get("absent", {}).items():
        found.append(f"{kind} is not in the recording: {why}")
    if not port.has_activations:
        found.append("activations are not in the recording, so they were not compared")
    elif not port.modules:
        found.append(
            "no module of the port holds what a module of torch holds, so activations "
            "were not compared"
        )
    if port.optimizer is None:
        found.append("no optimizer was given, so updates were not compared")
    order = epochs.note(port.ported)
    if order:
        found.append(order)
    for leaf, other in port.converted.weights.repeated.items():
        if leaf != other:
            found.append(
                f"{leaf} and {other} hold one tensor of torch; trained apart they part"
            )
    return found


def write(
    folder: pathlib.Path, title: str, judged: Judgement, trace: Reader, seconds: float
) -> None:
    """Writes verdict.json and report.html beside the trace."""
    content = {"name": title, **judged.as_json(), "seconds": seconds}
    artifacts.write_text(folder / VERDICT, json.dumps(content, indent=2) + "\n")
    facts = {
        "seconds": f"{seconds:.1f}",
        "versions": run_log.versions(PACKAGES) | trace.meta["versions"],
        "optimizer of the recording": str(trace.meta.get("optimizer")),
        "ZeRO stage": str(trace.meta.get("zero_stage")),
    }
    page.write(folder / PAGE, title, {STACK: judged}, facts, published_score.read())


def say(console: Console, line: str) -> None:
    """Prints a line as it is."""
    console.out(line, highlight=False)
