"""Measurements and places as the page spells them; everything is escaped where it
enters."""

from html import escape

from parity.judging.measure import EXACT
from parity.report.terminal import z


def worst(quantity: str, value: float) -> str:
    """The largest z of a quantity; "equal" for an equality that holds."""
    return "equal" if quantity in EXACT and value == 0 else z(value)


def place(step: int, tensor: str) -> str:
    """Where in a recording, as HTML."""
    return f"step {step} <code>{escape(tensor)}</code>" if tensor else f"step {step}"
