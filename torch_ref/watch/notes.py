"""What could not be recorded, and why."""

import sys
from typing import Any


class Notes:
    """Collects them for meta.json.

    Attributes:
      absent: {tensor: why it is absent}.
      unreachable: where dropouts are whose masks could not be had.
    """

    def __init__(self):
        self.absent: dict[str, str] = {}
        self.unreachable: list[str] = []

    def cannot_reach(self, name: str) -> None:
        """Notes a dropout without a mask, and says so once."""
        if name not in self.unreachable:
            self.unreachable.append(name)
            print(
                f"note: the dropout of {name} cannot be recorded; its steps are "
                "judged without a mask",
                file=sys.stderr,
            )

    def entries(self) -> dict[str, Any]:
        """Returns those of meta.json, as they are by now."""
        return {
            "absent": dict(self.absent),
            "unreachable_dropout": list(self.unreachable),
        }
