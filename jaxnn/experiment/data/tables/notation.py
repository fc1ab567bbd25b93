"""Texts that look like numbers in a notation that is not read as one."""

import re
from collections.abc import Sequence

from jaxnn.experiment.data.tables.cells import PADDED, number

_AMOUNT = r"[+-]?\d[\d.,' ]*"
_MONEY = r"[$€£¥]"

# What it looks like, and how to write it instead.
NOTATIONS = (
    (re.compile(rf"{_AMOUNT}%"), "percentages", "without the sign"),
    (
        re.compile(rf"[+-]?{_MONEY} ?{_AMOUNT}|{_AMOUNT}{_MONEY}"),
        "amounts of money",
        "without the sign",
    ),
    (
        re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?"),
        "numbers with a comma between thousands",
        "without the commas, or give --decimal=, if they are decimal commas",
    ),
    (
        re.compile(r"[+-]?\d*,\d+"),
        "numbers with a decimal comma",
        "with points, or give --decimal=,",
    ),
    (
        re.compile(r"[+-]?\d{1,3}([.' ]\d{3})+(,\d*)?"),
        "numbers with a mark between thousands",
        "without the marks",
    ),
    (re.compile(r"[+-]?\d+(_\d+)+"), "numbers with underscores", "without them"),
    (
        re.compile(
            r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}.*"
        ),
        "dates",
        "as a count of days or seconds",
    ),
    (PADDED, "digits with leading zeros", "without the zeros"),
    (
        re.compile(rf"[\u2212\u2013]?{_AMOUNT}"),
        "numbers with a dash for a minus",
        "with -",
    ),
    (
        re.compile(rf"\({_AMOUNT}\)|{_AMOUNT}"),
        "negative numbers in parentheses",
        "with -",
    ),
    (re.compile(r"0[xX][0-9a-fA-F]+"), "hexadecimal numbers", "with decimal digits"),
    (re.compile(r"\d{1,2}:\d{2}(:\d{2}.*)?"), "times", "as a count of minutes"),
)

# Texts that are looked at.
MOST = 1000


def looks_like(names: Sequence[str], decimal: str) -> str:
    """Returns what the texts of a column look like and what to do; "" if nothing.

    Args:
      names: distinct texts.
      decimal: mark before the decimals in numbers of the file.
    """
    odd = [
        name
        for name in names[:MOST]
        if number(name, decimal) is None or PADDED.fullmatch(name)
    ]
    for pattern, kind, instead in NOTATIONS:
        if odd and all(pattern.fullmatch(name) for name in odd):
            return (
                f"they look like {kind} ({odd[0]!r}); to train on them as numbers, "
                f"write them {instead}"
            )
    return ""
