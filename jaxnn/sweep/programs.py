"""Members that one compiled program trains, with their data and rates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.evaluation import EvaluationSplit
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.samples import Samples
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import flag_roles
from jaxnn.sweep.members import Member


class Split(NamedTuple):
    """A way to split the data, and what follows from it.

    Attributes:
      data: data set.
      splits: evaluated after each epoch, the test split first.
      evaluated: [batches, rows] int32 ids in the concatenated splits.
      owners: [batches] index of the split of each of these batches.
      plan: steps of each epoch.
    """

    data: Dataset
    splits: list[EvaluationSplit]
    evaluated: np.ndarray
    owners: np.ndarray
    plan: list[int]


class Program(NamedTuple):
    """Members that differ in numbers, rates, start and samples alone.

    Attributes:
      members: who they are.
      splits: the different splits of their data, whose arrays have equal shapes.
      split_of: member's number -> index of its split.
      learning_rates: member's number -> [updates] float32.
      varying: flags whose numbers a step gets as arguments.
    """

    members: list[Member]
    splits: list[Split]
    split_of: dict[int, int]
    learning_rates: dict[int, np.ndarray]
    varying: tuple[str, ...]

    @property
    def base(self) -> Experiment:
        """An experiment of them, for all in which they agree."""
        return self.members[0].experiment

    @property
    def plan(self) -> list[int]:
        """Steps of each epoch."""
        return self.splits[0].plan

    def split(self, member: Member) -> Split:
        """Returns the split of a member."""
        return self.splits[self.split_of[member.number]]

    def samples(self) -> tuple[Samples, Samples]:
        """Returns training and evaluated samples of all splits, concatenated.

        Those of a split begin at `offsets`.
        """
        training, evaluated = self._parts()
        return _joined(training), _joined(evaluated)

    @property
    def num_bytes(self) -> int:
        """Size of these samples on a device."""
        return sum(part.num_bytes for parts in self._parts() for part in parts)

    def _parts(self) -> tuple[list[Samples], list[Samples]]:
        """Returns the samples of each split, unread."""
        training = [samples.training(split.data) for split in self.splits]
        evaluated = [
            samples.evaluated(split.data, split.splits) for split in self.splits
        ]
        return training, evaluated

    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns [splits] where the samples of each begin, trained and evaluated."""
        trained = [len(split.data.train_inputs) for split in self.splits]
        evaluated = [sum(len(s.inputs) for s in split.splits) for split in self.splits]
        return _begins(trained), _begins(evaluated)


def group(members: Sequence[Member]) -> list[Program]:
    """Groups members by the program that trains them, in the order of the first.

    Loads the data of all.

    Raises:
      UserError: data or schedule do not suit a member's flags.
    """
    loaded: dict[Experiment, Split] = {}
    groups: dict[Any, list[Member]] = {}
    for member in members:
        split = _split(member.experiment, loaded)
        groups.setdefault(_key(member.experiment, split), []).append(member)
    return [_program(found, loaded) for found in groups.values()]


def place_ids(ids: np.ndarray, offset: int) -> np.ndarray:
    """Returns ids of a split as ids of the concatenated samples; padding stays."""
    return np.where(ids == batches.PADDING, ids, ids + np.int32(offset))


def _program(members: list[Member], loaded: dict[Experiment, Split]) -> Program:
    found: dict[Experiment, int] = {}
    split_of, rates = {}, {}
    for member in members:
        key = _split_key(member.experiment)
        split_of[member.number] = found.setdefault(key, len(found))
        steps = batches.total_steps(
            member.experiment, len(loaded[key].data.train_inputs)
        )
        rates[member.number] = schedules.learning_rates(member.experiment, steps)
    return Program(
        members,
        [loaded[key] for key in found],
        split_of,
        rates,
        flag_roles.varying([member.experiment for member in members]),
    )


def _split(experiment: Experiment, loaded: dict[Experiment, Split]) -> Split:
    """Returns the split of an experiment, loaded once."""
    key = _split_key(experiment)
    if key not in loaded:
        data = load_dataset(experiment)
        splits = evaluation.splits(experiment, data)
        ids, owners = evaluation.plan(experiment, splits)
        plan = batches.plan(experiment, len(data.train_inputs))
        loaded[key] = Split(data, splits, ids, owners, plan)
    return loaded[key]


def _split_key(experiment: Experiment) -> Experiment:
    """Returns what data set and batches depend on, and a bit more."""
    same = {name: getattr(experiment, name) for name in flag_roles.OF_THE_SPLIT}
    return flag_roles.program(experiment).replace(**same)


def _key(experiment: Experiment, split: Split) -> tuple:
    """Returns what is equal among the members of a program, and no others."""
    data = split.data
    # Images of bytes are scaled in the step, by constants of their training split.
    is_scaled_there = data.scaling is not None and not data.scaled_on_host
    return (
        flag_roles.program(experiment),
        data.signature,
        tuple(split.plan),
        split.evaluated.shape,
        tuple(split.owners),
        _split_key(experiment) if is_scaled_there else None,
    )


def _joined(parts: list[Samples]) -> Samples:
    read = [part.read() for part in parts]
    if len(read) == 1:
        return read[0]
    return read[0]._replace(
        inputs=np.concatenate([part.inputs for part in read]),
        targets=np.concatenate([part.targets for part in read]),
    )


def _begins(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts])[:-1]
