"""Universal approximation: error against width, with the functions drawn."""

import math

import jax
import numpy as np

from jaxnn import models, train_step
from jaxnn.experiment.results.plots import canvas
from parity.labs import figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run

DRAWN = 4
"""Widths whose functions are drawn."""

Found = dict[str, dict[int, list[Run]]]
"""Function -> width -> runs."""


def measure(bench: Bench) -> Findings:
    """Trains every width on every function."""
    swept = runs.split(bench.swept("sweep"), "function")
    found = {
        function: {w[0]: of for w, of in runs.split(all_of, "hidden_sizes").items()}
        for function, all_of in swept.items()
    }
    sections = [_errors(found), _functions(bench, found), _table(found)]
    return Findings(sections, _claims(found))


def errors(of: list[Run]) -> np.ndarray:
    """Returns [runs], root mean square error on the test split."""
    return np.sqrt(runs.kept(of, "test_loss"))


def _errors(found: Found) -> str:
    figure, (axes,) = figures.grid(1, size=(10, 3.6))
    for number, (function, of) in enumerate(found.items()):
        values = np.array([errors(each) for each in of.values()])
        style = figures.stroke(number, 1)
        name = function.replace("_", " ")
        axes.plot(list(of), np.median(values, axis=1), label=name, **style)
        ends = (values.min(axis=1), values.max(axis=1))
        axes.fill_between(list(of), *ends, color=style["color"], alpha=0.15, lw=0)
    axes.set(xscale="log", yscale="log", xlabel="hidden units", ylabel="RMS error")
    figures.legend_below(figure, axes, len(found))
    return figures.picture(
        figure,
        "Error on the test split against the width: median of seeds, and from the "
        "least to the largest.",
    )


def _functions(bench: Bench, found: Found) -> str:
    widths = list(next(iter(found.values())))
    chosen = [
        widths[p] for p in np.linspace(0, len(widths) - 1, DRAWN).round().astype(int)
    ]
    figure, panels = figures.grid(len(chosen), len(found), (2.9, 2.2), sharex=True)
    panel = iter(panels)
    for function, of in found.items():
        data = bench.data(f"--function={function}")
        x = canvas.unscaled(data, np.asarray(data.test_inputs))[:, 0]
        order = np.argsort(x)
        for width in chosen:
            axes = next(panel)
            axes.plot(x[order], data.test_targets[order, 0], **canvas.TRUTH)
            learned = _outputs(of[width][0], data)
            axes.plot(x[order], learned[order], color=canvas.DARK, linestyle="--")
            units = "unit" if width == 1 else "units"
            axes.set_title(
                f"{function.replace('_', ' ')}, {width:,} {units}", fontsize=9
            )
    return figures.picture(
        figure,
        "True function (gray) and what the network of seed 0 made of it (dashed).",
    )


def _outputs(run: Run, data) -> np.ndarray:
    """Returns [samples], what a trained network makes of the test split."""
    model = models.build(run.experiment, data.signature)
    forward = jax.jit(train_step.forward, static_argnums=(0, 1))
    inputs = np.asarray(data.test_inputs)
    return np.asarray(forward(run.experiment, model, *run.network(), inputs))[:, 0]


def _table(found: Found) -> str:
    widths = list(next(iter(found.values())))
    head = ["RMS error", *(f"{width:,} units" for width in widths)]
    rows = [
        [
            f.replace("_", " "),
            *(tables.number(float(np.median(errors(of[w])))) for w in of),
        ]
        for f, of in found.items()
    ]
    return tables.table(head, rows)


def _claims(found: Found) -> list[Claim]:
    def median(function: str, width: int) -> float:
        of = found.get(function, {}).get(width)
        return float(np.median(errors(of))) if of else math.nan

    widths = list(next(iter(found.values())))
    least, most = min(widths), max(widths)
    return [
        Claim(
            "width buys accuracy: error of the sine at the best width over that of the "
            "narrowest network",
            *(
                min(median("sine", w) for w in widths) / median("sine", least),
                "<",
                0.05,
            ),
        ),
        Claim(
            "a single unit is monotone and cannot follow a whole wave: RMS error of "
            "the sine, whose own deviation is 0.71",
            *(median("sine", least), ">", 0.2),
        ),
        Claim(
            "a jump costs more than no kink: error of the square wave over that of the "
            "sine, at the widest network",
            *(median("square_wave", most) / median("sine", most), ">", 5.0),
            of_full_size=True,
        ),
    ]


LAB = Lab(
    "Universal approximation",
    "One hidden layer approximates any continuous function if it is wide enough: the "
    "error falls with the width until training, not width, is what limits it. A jump "
    "is no continuous function, and its error stays at the jump.",
    measure,
    reduced=(
        "--grid=hidden_sizes=1|30; function=sine; seed=0",
        "--epochs=200",
    ),
)
