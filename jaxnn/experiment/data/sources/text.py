"""Text as characters, each of which is to be predicted from those before it."""

import pathlib

import numpy as np

from jaxnn.experiment.data import splits
from jaxnn.experiment.data.dataset import LANGUAGE, Dataset
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.read_file import read_text
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

UNKNOWN = "<unknown>"
"""The last token, for characters that the training split does not hold."""


def text(experiment: Experiment) -> Dataset:
    """The characters of `--data_path`, a UTF-8 file, or without it of Python's own help
    topics.

    Windows of `sequence_length` characters follow one another, [n, steps] int32; their
    targets are the characters one further on. The splits follow one another too, and no
    character of one is in another. The vocabulary is the sorted characters of the
    training split, then `UNKNOWN`. The help topics are those of the Python that runs.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or a split is too short for one
        window.
    """
    content = (
        read_text(pathlib.Path(experiment.data_path))
        if experiment.data_path
        else _help_topics()
    )
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
        validation_x = validation_y = None
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
    """[characters] int32: the place of each in the vocabulary, of an unknown one the
    last."""
    places = {character: place for place, character in enumerate(vocabulary)}
    return np.array(
        [places.get(character, len(vocabulary) - 1) for character in content], np.int32
    )


def decode(vocabulary: tuple[str, ...], tokens: np.ndarray) -> str:
    """The text of [n] tokens; an unknown character is U+FFFD."""
    return "".join(
        "\ufffd" if vocabulary[token] == UNKNOWN else vocabulary[token]
        for token in tokens
    )


def windows(tokens: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets [n, steps], end to end; the characters after the last whole
    window are left out."""
    count = max(0, len(tokens) - 1) // steps
    return tokens[: count * steps].reshape(count, steps), tokens[
        1 : count * steps + 1
    ].reshape(count, steps)


def _help_topics() -> str:
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def _check_lengths(
    experiment: Experiment, train: str, validation: str, test: str
) -> None:
    steps, source = experiment.sequence_length, experiment.data_path or "the text"
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if len(part) <= steps and (
            name != "validation" or experiment.validation_fraction
        ):
            raise UserError(
                f"--sequence_length: {source} has {len(part)} characters for the "
                f"{name} split; a window and the character after it need {steps + 1}; "
                "give a longer text or a shorter window"
            )
