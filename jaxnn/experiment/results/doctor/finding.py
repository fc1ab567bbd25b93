"""One thing that is wrong with a run."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
      name: of the disease, for programs: "overfitting".
      sentence: what it is, the figure that shows it, and the flag to change.
    """

    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"
