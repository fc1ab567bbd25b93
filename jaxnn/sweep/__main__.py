"""Trains one experiment with many settings of its flags, many networks in one program.

    python -m jaxnn.sweep --flagfile=FILE --grid='learning_rate=1e-4,1e-3; seed=0..4'
    python -m jaxnn.sweep --flagfile=FILE --grid='learning_rate=1e-4..1e-1' --random=64

--grid: axes are separated by semicolons, values by commas; those of a flag that takes a
list, by bars (hidden_sizes=64,32|128). a..b are the whole numbers from a to b. Under
--random, a..b of a flag that takes any number is drawn between them, by its logarithm
if both are above 0, else uniformly; a..b:uniform and a..b:log say which.

Each member trains as jaxnn.train would on one device, to rounding. Learning rates and
other numbers, seeds, starts and splits vary within one program; other flags take a
program for each of their values. Settings are ranked by --rank_by on the
validation split, or without --validation_fraction on the test split, averaged over
seeds and folds (--num_folds).

Writes sweep.csv (a row for each member), curves.csv (a row for each epoch of each),
best.flags (for jaxnn.train), summary.json and plots/ into --workdir; with --diagnose
diagnostics.csv (a row for each layer of each epoch), with --save_networks the trained
networks. A killed sweep goes on with --resume. Exit code 2 on bad input,
and if every member diverged.
"""

import pathlib
from typing import Any, NamedTuple

import jax
from absl import flags

from jaxnn import parallel, spreading
from jaxnn.devices import Devices
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, locks
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import quick_matplotlib
from jaxnn.metrics import METRICS
from jaxnn.sweep import (
    axes,
    chunks,
    curves,
    flag_roles,
    halving,
    members,
    networks,
    programs,
    ranking,
    running,
    store,
    table,
    training,
)
from jaxnn.sweep.members import Member
from jaxnn.sweep.programs import Program
from jaxnn.sweep.progress import SweepProgress
from jaxnn.sweep.ranking import Ranked
from jaxnn.sweep.records import LOSS, Record
from jaxnn.sweep.running import Reached
from jaxnn.train import configured

TABLE = "sweep.csv"
CURVES = "curves.csv"
BEST = "best.flags"
METRIC = "metric"
CONTENTS = (
    artifacts.FLAGS,
    artifacts.MODEL,
    artifacts.SUMMARY,
    store.PLAN,
    store.FOLDER,
    TABLE,
    CURVES,
    artifacts.DIAGNOSTICS,
    networks.FOLDER,
    BEST,
    "plots",
)


class Swept(NamedTuple):
    """A sweep that has ended.

    Attributes:
      members: all networks.
      records: member's number -> its curves, and how it ended.
      workdir: folder of its files.
      seconds: that training took, compiling included.
    """

    members: list[Member]
    records: dict[int, Record]
    workdir: pathlib.Path
    seconds: float


def main(experiment: Experiment, values: flags.FlagValues) -> Swept:
    """Flags -> members -> programs -> records -> table, flagfile and plots."""
    check(experiment, values.save_networks)
    chosen = make_members(experiment, values)
    check_ranking(values.rank_by, chosen)
    halving.check(values.halving, chosen)
    with configured(experiment), locks.released(), parallel.released():
        grouped = programs.group(chosen)
        check_splits(grouped)
        devices = choose_devices(experiment, len(chosen))
        for each in grouped:
            first = training.first_states(each, each.members[:1])[0]
            chunks.fitting(each, first)
        # Bad input up to here leaves no folder behind.
        workdir = artifacts.create_workdir(experiment, "sweep", CONTENTS)
        store.begin(workdir, plan(values, devices), experiment.resume)
        by = metric_of(grouped) if values.rank_by == METRIC else LOSS
        kept = workdir if values.save_networks else None
        reached = train(chosen, grouped, by, values.halving, devices, workdir, kept)
        finish(experiment, grouped, chosen, reached, workdir)
    seconds = reached.train_seconds + reached.compile_seconds
    return Swept(chosen, reached.records, workdir, seconds)


def check(experiment: Experiment, saves_networks: bool) -> None:
    """Raises UserError on flags of a single run that a sweep cannot obey."""
    if saves_networks and experiment.patience:
        raise UserError(
            "--save_networks: keeps the last networks, --patience the best; leave out "
            "one of them"
        )
    for flag in ("record", "init_params", "coordinator_address", "distributed"):
        default = getattr(Experiment(), flag)
        if getattr(experiment, flag) != default:
            raise UserError(f"--{flag}: a sweep has no use for it; leave it out")


def check_ranking(by: str, chosen: list[Member]) -> None:
    """Raises UserError if members are to be ranked by what does not compare."""
    command_line.check_known("rank_by", [by], (LOSS, METRIC))
    for flag in flag_roles.OF_THE_LOSS:
        if by == LOSS and flag in chosen[0].settings:
            raise UserError(
                f"--rank_by: {flag} of --grid changes what the loss is; give "
                f"--rank_by={METRIC}"
            )


def check_splits(grouped: list[Program]) -> None:
    """Raises UserError if some members are ranked by another split than others."""
    splits = [split for program in grouped for split in program.splits]
    if len({split.data.validation_inputs is None for split in splits}) > 1:
        raise UserError(
            "--grid: validation_fraction=0 has no validation split, which ranks the "
            "others; give all of them one"
        )


def metric_of(grouped: list[Program]) -> str:
    """Returns the name of the metric."""
    return METRICS[grouped[0].splits[0].data.task][0]


def make_members(experiment: Experiment, values: flags.FlagValues) -> list[Member]:
    """Returns the members that the flags ask for; raises UserError on bad ones."""
    grid = axes.parse(values.grid, experiment, is_random=values.random > 0)
    return members.make(
        experiment, grid, values.random, values.random_seed, values.max_members
    )


def choose_devices(experiment: Experiment, count: int) -> Devices:
    """Returns `--num_devices`, or all there are, but none without a member.

    Raises:
      UserError: more asked for than there are.
    """
    here = jax.local_devices()
    if experiment.num_devices > len(here):
        raise UserError(
            f"--num_devices: {experiment.num_devices} asked for, {len(here)} here"
        )
    return here[: min(experiment.num_devices or len(here), count)]


def plan(values: flags.FlagValues, devices: Devices) -> dict[str, Any]:
    """Returns what must be equal in a sweep and in one that resumes it."""
    names = ("grid", "random", "random_seed", "halving", "rank_by")
    return {name: values[name].value for name in names} | {"num_devices": len(devices)}


def train(
    chosen: list[Member],
    grouped: list[Program],
    by: str,
    factor: int,
    devices: Devices,
    workdir: pathlib.Path,
    kept: pathlib.Path | None = None,
) -> Reached:
    """Trains all members; the folder `kept`, if given, gets their networks."""
    epochs = max(len(program.plan) for program in grouped)
    settings = len({member.setting for member in chosen})
    rungs = halving.rungs(epochs, settings, factor)
    count = f"{len(grouped)} program{'s' if len(grouped) > 1 else ''}"
    for note in grouped[0].splits[0].data.notes:
        print(note)
    print(f"{len(chosen)} members, {count}, {len(devices)} devices", flush=True)
    total = running.total_epochs(chosen, grouped, rungs)
    try:
        with SweepProgress(total) as progress:
            parts = store.Store(workdir)
            sweep = running.Sweep(
                chosen, grouped, by, rungs, devices, parts, progress, kept
            )
            return running.run(sweep)
    except KeyboardInterrupt:
        print(f"go on with the same flags, --workdir={workdir} and --resume")
        raise


def finish(
    experiment: Experiment,
    grouped: list[Program],
    chosen: list[Member],
    reached: Reached,
    workdir: pathlib.Path,
) -> None:
    """Writes and prints what the sweep has found.

    Raises:
      UserError: every member diverged; sweep.csv tells where.
    """
    records = reached.records
    artifacts.write_text(workdir / TABLE, ranking.to_csv(chosen, records))
    artifacts.write_text(workdir / CURVES, curves.metrics(chosen, records))
    if experiment.diagnose:
        text = curves.diagnostics(chosen, records)
        artifacts.write_text(workdir / artifacts.DIAGNOSTICS, text)
    ranked = ranking.rank(chosen, records)
    best = ranking.best_member(ranked, records)
    if best is None:
        raise UserError(
            f"--grid: every member diverged, see {workdir / TABLE}; try a smaller "
            "learning_rate"
        )
    record = records[best.number]
    artifacts.write_text(workdir / BEST, ranking.to_flagfile(best, record))
    artifacts.write_summary(workdir, summary(experiment, reached, record))
    show(experiment, metric_of(grouped), ranked, records, workdir)
    print(
        f"seconds: compile {reached.compile_seconds:.2f}, train "
        f"{reached.train_seconds:.2f}"
    )
    print(f"best: {axes.spell(best.settings)}")
    print(f"again: python -m jaxnn.train --flagfile={workdir / BEST}")
    print(f"files: {workdir}")


def show(
    experiment: Experiment,
    metric: str,
    ranked: list[Ranked],
    records: dict[int, Record],
    workdir: pathlib.Path,
) -> None:
    """Prints the table and draws the plots."""
    record = records[ranked[0].members[0].number]
    split = record.judged_by.removesuffix(f"_{record.by}")
    loss, metric = f"{split}_loss", f"{split}_{metric}"
    columns = (loss, metric) if record.by == LOSS else (metric, loss)
    table.show(ranked, records, columns)
    if split == "test" and len(records) > 1:
        print(
            "ranked by the test split, which flatters the best: --validation_fraction "
            "ranks by samples of their own"
        )
    if experiment.plots:
        # matplotlib takes long to import.
        with quick_matplotlib.undocumented():
            from jaxnn.sweep import plots

        plots.draw(workdir, ranked, records, loss, metric)


def summary(experiment: Experiment, reached: Reached, best: Record) -> dict[str, Any]:
    """Returns summary.json: what this process did, and what the best has reached."""
    seconds = reached.train_seconds
    return {
        "experiment": experiment.name,
        "members": len(reached.records),
        "steps": reached.steps,
        "train_seconds": seconds,
        "compile_seconds": reached.compile_seconds,
        "samples_per_second": reached.samples / seconds if seconds else 0.0,
        **best.rows[best.kept - 1],
    }


def define_more(values: flags.FlagValues) -> None:
    """Defines the flags that only this program has."""
    flags.DEFINE_string(
        "grid",
        "",
        "Flags to vary and their values, FLAG=VALUES; FLAG=VALUES.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "rank_by",
        LOSS,
        "What ranks the settings: loss, or metric (accuracy, mae, ...).",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "save_networks",
        False,
        "Write each member's trained parameters into networks/NUMBER/.",
        flag_values=values,
    )
    for name, default, least, text in (
        ("random", 0, 0, "Settings to draw from --grid at random; 0: all of them."),
        ("random_seed", 0, 0, "Seed of these draws."),
        (
            "halving",
            0,
            0,
            "Successive halving: after a share of the epochs the best one in so many "
            "settings go on, for as many times longer; 0: all train all epochs.",
        ),
        ("max_members", 1000, 1, "Most members that a sweep may have."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=values)


def program(experiment: Experiment, values: flags.FlagValues) -> None:
    """Does as `main`, with each core of a CPU a device."""
    spreading.offer_cores(experiment)
    main(experiment, values)


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(
        program, __doc__, default_precision="fp32", define_more=define_more
    )


if __name__ == "__main__":
    command()
