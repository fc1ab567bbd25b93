"""Promises: the metrics that the head of a flagfile expects, read and checked.

    # Expect: accuracy >= 0.95
    # Expect: weight_error < 0.01, bias_error < 0.01
    # Expect: loss_gap < regularization_digits_none.loss_gap

A metric is an entry of `final` in summary.json; NAME.METRIC is a metric of another
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
_TIME = re.compile(r"^# Time on .*?about ([\d.]+) s", re.MULTILINE)
_PROMISE = re.compile(r"(\w+) (<=|>=|<|>) ([\w.+-]+)")


class Promise(NamedTuple):
    """One promise.

    Attributes:
      metric: metric of the experiment itself.
      relation: key of `RELATIONS`.
      bound: number, or "experiment.metric".
    """

    metric: str
    relation: str
    bound: str

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound}"

    def is_met(self, name: str, finals: Mapping[str, Mapping[str, float]]) -> bool:
        """Returns True if the run of an experiment kept the promise.

        Args:
          name: name of the experiment.
          finals: experiment -> its `final` metrics.
        """
        # Every comparison with NaN is False: a missing metric breaks the promise.
        missing = float("nan")
        try:
            bound = float(self.bound)
        except ValueError:
            other, _, metric = self.bound.partition(".")
            bound = finals.get(other, {}).get(metric, missing)
        value = finals[name].get(self.metric, missing)
        return RELATIONS[self.relation](value, bound)


def read_promises(flagfile: pathlib.Path) -> list[Promise]:
    """Reads the promises in the head of a flagfile.

    Raises:
      UserError: there are none, or one is malformed.
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


def read_seconds(flagfile: pathlib.Path) -> float:
    """Returns how long the head of a flagfile says that training takes; 1 if it does
    not."""
    found = _TIME.search(flagfile.read_text("utf-8"))
    return float(found[1]) if found else 1.0
