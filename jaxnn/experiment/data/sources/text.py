"""Text as characters, each of which is predicted from those before it."""

import pathlib

import numpy as np

from jaxnn.experiment.catalogue import LANGUAGE
from jaxnn.experiment.data import splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.read_file import read_text
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# The last token, for characters that the training split does not hold.
UNKNOWN = "<unknown>"


def text(experiment: Experiment) -> Dataset:
    """Returns windows of characters of `--data_path`, or of Python's help topics.

    Inputs are [n, sequence_length] int32 windows that follow one another, targets the
    same windows one character later. The splits follow one another too and share no
    character. The vocabulary is the sorted characters of the training split, then
    `UNKNOWN`. The help topics are those of the running Python and differ by version.

    Raises:
      UserError: the file cannot be read or is not UTF-8, or a split is too short for
        one window.
    """
    if experiment.data_path:
        content = read_text(pathlib.Path(experiment.data_path))
    else:
        content = _help_topics()
    train, validation, test = (
        content[part] for part in splits.contiguous(experiment, len(content))
    )
    _check_lengths(experiment, train, validation, test)

    vocabulary = (*sorted(set(train)), UNKNOWN)
    (x, y), (validation_x, validation_y), (test_x, test_y) = (
        windows(encode(vocabulary, part), experiment.sequence_length)
        for part in (train, validation, test)
    )
    if not experiment.validation_fraction:
        validation_x = None
        validation_y = None
    return Dataset(
        x,
        y,
        test_x,
        test_y,
        LANGUAGE,
        vocabulary,
        validation_x,
        validation_y,
        description=Description(LANGUAGE, vocabulary=vocabulary),
    )


def encode(vocabulary: tuple[str, ...], content: str) -> np.ndarray:
    """Returns [characters] int32 tokens; unknown characters are the last token."""
    places = {character: place for place, character in enumerate(vocabulary)}
    unknown = len(vocabulary) - 1
    return np.array([places.get(character, unknown) for character in content], np.int32)


def windows(tokens: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns [n, steps] inputs and targets; an incomplete window is dropped."""
    # The last window needs one token more, as its last target.
    count = max(0, len(tokens) - 1) // steps
    inputs = tokens[: count * steps].reshape(count, steps)
    targets = tokens[1 : count * steps + 1].reshape(count, steps)
    return inputs, targets


def _help_topics() -> str:
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def _check_lengths(
    experiment: Experiment, train: str, validation: str, test: str
) -> None:
    """Raises UserError if a split is too short for one window and its target."""
    steps = experiment.sequence_length
    source = experiment.data_path or "the text"
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        is_used = name != "validation" or experiment.validation_fraction
        if len(part) <= steps and is_used:
            raise UserError(
                f"--sequence_length: {source} has {len(part)} characters for the "
                f"{name} split; a window and the character after it need {steps + 1}; "
                "give a longer text or a shorter window"
            )
