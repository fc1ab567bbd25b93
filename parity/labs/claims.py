"""What a lab asserts: a measured figure against a bound."""

from typing import NamedTuple

from jaxnn.experiment.results.promises import RELATIONS


class Claim(NamedTuple):
    """An assertion that can fail.

    Attributes:
      text: what is claimed, a sentence without its figures.
      measured: figure of this run; NaN keeps no claim.
      relation: key of `RELATIONS`.
      bound: what the figure is held against.
      of_full_size: True if a lab at reduced size is too small to show it.
    """

    text: str
    measured: float
    relation: str
    bound: float
    of_full_size: bool = False

    @property
    def is_met(self) -> bool:
        """True if the figure keeps the bound; never for NaN."""
        return bool(RELATIONS[self.relation](self.measured, self.bound))

    @property
    def figures(self) -> str:
        """The figure and what it should be: "0.97, should be >= 0.95"."""
        return f"{self.measured:.4g}, should be {self.relation} {self.bound:.4g}"
