"""Tests of parity/measured/difference.py."""

import pytest

from parity.measured.difference import factor_text


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (0.9844, "0.9844"),
        (2.0**-16, "1.526e-05 (1/65536, 2^-16)"),
        # A factor is told of because it is not 1.
        (1.00001, "1.00001"),
        (0.9999987, "0.9999987"),
    ],
)
def test_a_factor_never_reads_as_one(factor, text):
    assert factor_text(factor) == text
