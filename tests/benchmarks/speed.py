"""Is a warm epoch spent in XLA? jaxnn against a bare `lax.scan` and an eager PyTorch
loop.

    python -m tests.benchmarks.speed [--rounds=9] [EXPERIMENT ...]

Training alone, without imports and compilation, in one process, all taking turns.
Targets: within 1.5x of the bare scan, 10x ahead of PyTorch on linear regression and
breast cancer, and no slower than half its speed with convolutions. PyTorch trains once
with its default threads and once with one: on a busy machine its threads wait for each
other, so each round counts the faster. What takes long trains fewer epochs than its
flagfile says, on all sides. Sharing the process with torch was measured to slow the
bare scan by 3 to 8 %. Exit code 1 if a target is missed.
"""

import argparse
import gc
import statistics
import sys
from collections.abc import Sequence

import torch

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags import command_line
from tests.benchmarks import bare_scan, eager_torch, product, stopwatch

LEAST_TIMES_AHEAD = {
    "linear_regression": 10,
    "breast_cancer": 10,
    "digits": 0,
    "cnn_digits": 0.5,
    "resnet_digits": 0.5,
    "lstm_sine": 0,
    "gru_sine": 0,
    "rnn_sine": 0,
    "transformer_text": 0,
}
MOST_TIMES_BARE, WITH_BARE = 1.5, ("linear_regression", "breast_cancer", "digits")
EPOCHS = {
    "cnn_digits": 10,
    "resnet_digits": 3,
    "lstm_sine": 2,
    "gru_sine": 2,
    "rnn_sine": 5,
    "transformer_text": 1,
}
TORCH_EPOCHS = {"linear_regression": 1, "breast_cancer": 10, "digits": 3}


def main(rounds: int, names: Sequence[str]) -> bool:
    """Prints a row per experiment; whether every target is met."""
    gc.freeze()  # As the product's command line does after its imports.
    print(f"median of {rounds} rounds; ratios: median of the rounds' ratios")
    print(
        f"{'':20}{'jaxnn':>10}{'bare scan':>11}{'torch':>10}   "
        f"{'jaxnn/bare':24}{'torch/jaxnn':24}"
    )
    return all([report(name, measure(name, rounds)) for name in names])


def measure(name: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of a whole training run by each competitor, one a round."""
    experiment, _ = command_line.parse(
        ["speed", f"--flagfile=launch/experiments/{name}.flags"], "fp32"
    )
    experiment = experiment.replace(epochs=EPOCHS.get(name, experiment.epochs))
    train.configure(experiment)  # Both sides under the same settings and XLA flags.
    data, epochs = load_dataset(experiment), TORCH_EPOCHS.get(name, experiment.epochs)
    threads = torch.get_num_threads()

    def run_torch(threads: int) -> float:
        torch.set_num_threads(threads)
        return (
            stopwatch.seconds(lambda: eager_torch.train(experiment, data, epochs))
            * experiment.epochs
            / epochs
        )

    run_torch(threads)
    competitors = {
        "jaxnn": lambda: product.train_seconds(experiment),
        "torch": lambda: run_torch(threads),
        "torch, 1 thread": lambda: run_torch(1),
    }
    if name in WITH_BARE:
        run_bare = bare_scan.make_run(experiment, data)
        competitors["bare"] = lambda: stopwatch.seconds(run_bare)
    times = stopwatch.take_turns(competitors, rounds)
    return times | {
        "torch": [min(pair) for pair in zip(times["torch"], times["torch, 1 thread"])]
    }


def report(name: str, times: dict[str, list[float]]) -> bool:
    """Prints one experiment's row; whether its targets are met."""
    cells = [
        f"{statistics.median(times[side]):8.3f} s" if side in times else ""
        for side in ("jaxnn", "bare", "torch")
    ]
    bare = (
        compare(times["jaxnn"], times["bare"], most=MOST_TIMES_BARE)
        if "bare" in times
        else ("", True)
    )
    ahead = compare(times["torch"], times["jaxnn"], least=LEAST_TIMES_AHEAD[name])
    print(
        f"{name:20}{cells[0]:>10}{cells[1]:>11}{cells[2]:>10}   "
        f"{bare[0]:24}{ahead[0]:24}",
        flush=True,
    )
    return bare[1] and ahead[1]


def compare(
    ours: Sequence[float], theirs: Sequence[float], most: float = 0, least: float = 0
) -> tuple[str, bool]:
    """A ratio beside its target, if it has one, and whether that is met."""
    ratio = stopwatch.median_ratio(ours, theirs)
    if not (most or least):
        return f"{ratio:5.2f}", True
    met = ratio <= most if most else ratio >= least
    return (
        f"{ratio:5.2f} ({'<=' if most else '>='} {most or least:g} "
        f"{stopwatch.verdict(met)})",
        met,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="EXPERIMENT",
        help=f"default: {' '.join(LEAST_TIMES_AHEAD)}",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - LEAST_TIMES_AHEAD.keys():
        parser.error(f"{unknown.pop()} is not among {', '.join(LEAST_TIMES_AHEAD)}")
    sys.exit(
        0 if main(arguments.rounds, arguments.names or list(LEAST_TIMES_AHEAD)) else 1
    )
