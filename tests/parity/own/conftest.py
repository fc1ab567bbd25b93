"""Recordings that several files of tests judge."""

import pytest

from jaxnn.experiment.files.trace import Reader
from tests.parity.own import recorded


@pytest.fixture(scope="session")
def mlp_trace(tmp_path_factory) -> Reader:
    """A perceptron without dropout, whose forward returns its loss."""
    return Reader(recorded.record("mlp_function", tmp_path_factory.mktemp("own") / "m"))
