"""The trace of a resumed run, behind that of the run whose checkpoint it took up."""

import pathlib

import numpy as np

from jaxnn.experiment.files.trace import Reader


class Continued(Reader):
    """Reads the two as one run; what was judged of the first need not be judged again.

    Args:
      folder: the resumed run's.
      before: the other, from its first step, at least up to where the resumed one
        begins.

    Attributes:
      first: the step of the run that the resumed trace begins with.

    Raises:
      UserError: as `Reader` does.
    """

    def __init__(self, folder: pathlib.Path, before: Reader):
        super().__init__(folder)
        self._before, self.first = before, int(self.meta.get("first_step", 0))

    def __len__(self) -> int:
        return self.first + super().__len__()

    def read(self, step: int) -> dict[str, np.ndarray]:
        """A step of the run, counted from its beginning."""
        return (
            super().read(step - self.first)
            if step >= self.first
            else self._before.read(step)
        )
