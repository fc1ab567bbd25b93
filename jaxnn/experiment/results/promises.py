"""The metric that a flagfile's head promises, read and checked.

    # Expect: accuracy >= 0.95
    # Expect: weight_error < 0.01, bias_error < 0.01
    # Expect: loss_gap < regularization_digits_none.loss_gap

Metrics are those of the `final` entry of summary.json; NAME.METRIC is that of another
experiment.
"""

import operator
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from jaxnn.experiment.errors import UserError

RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_LINE = re.compile(r"^# Expect: (.+)$", re.MULTILINE)
_PROMISE = re.compile(r"(\w+) (<=|>=|<|>) ([\w.+-]+)")


class Promise(NamedTuple):
    """One promise.

    Attributes:
      metric: of the experiment itself.
      relation: a key of `RELATIONS`.
      bound: a number, or "experiment.metric".
    """

    metric: str
    relation: str
    bound: str

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound}"

    def is_met(self, name: str, finals: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether the run of an experiment kept it.

        Args:
          name: of the experiment.
          finals: experiment -> its `final` metrics.
        """
        try:
            bound = float(self.bound)
        except ValueError:
            other, _, metric = self.bound.partition(".")
            bound = finals.get(other, {}).get(metric, float("nan"))
        return RELATIONS[self.relation](
            finals[name].get(self.metric, float("nan")), bound
        )


def read_promises(flagfile: pathlib.Path) -> list[Promise]:
    """The promises in a flagfile's head.

    Raises:
      UserError: there is none, or one that cannot be read.
    """
    line = _LINE.search(flagfile.read_text())
    promises = line.group(1).split(", ") if line else []
    matches = [_PROMISE.fullmatch(promise) for promise in promises]
    if not matches or not all(matches):
        raise UserError(
            f"--flagfile: {flagfile} has no line such as '# Expect: accuracy >= 0.95' "
            "in its head"
        )
    return [Promise(*match.groups()) for match in matches if match]
