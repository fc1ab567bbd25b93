"""What a lab is: a title, two sentences, and a function that measures and draws."""

from collections.abc import Callable
from typing import NamedTuple

from parity.labs.bench import Bench
from parity.labs.claims import Claim


class Findings(NamedTuple):
    """What a lab has found.

    Attributes:
      sections: HTML of its pictures and tables, in order.
      claims: what it asserts of them.
    """

    sections: list[str]
    claims: list[Claim]


class Lab(NamedTuple):
    """A lab. Its flags, if it trains, stand in launch/labs/NAME.flags.

    Attributes:
      title: of its page.
      says: what its pictures show, two sentences.
      measure: runs it on a bench; whatever it does, sweeps or not, it returns findings.
      reduced: flags after those of the flagfile under --reduced.
      with_data: flags after those of the flagfile if --data_path is given.
    """

    title: str
    says: str
    measure: Callable[[Bench], Findings]
    reduced: tuple[str, ...] = ()
    with_data: tuple[str, ...] = ()
