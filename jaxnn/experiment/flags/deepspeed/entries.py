"""The entries of a ds_config, flat and typed.

Keys are flat: "optimizer.params.lr" is the entry lr of the block params of the block
optimizer.
"""

import json
import re
from typing import Any

from jaxnn.experiment.errors import UserError, one_line
from jaxnn.experiment.flags.deepspeed.showing import shortened, show
from jaxnn.experiment.flags.deepspeed.text import load, placeholder

# DeepSpeed still reads the old name where the new one is missing
# (runtime/precision_config.py get_bfloat16_config).
OLD_NAMES = {"bfloat16": "bf16"}

# Blocks whose values DeepSpeed converts by pydantic's rules: "true", "on" and 1 are
# true, "2" and 2.0 are 2.
CONVERTED = ("fp16", "bf16", "zero_optimization")
PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[^."]+')
WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


class DsConfigFile:
    """The entries of a ds_config.

    The typed getters return None if the file does not have the key, and raise UserError
    if the value has another type.

    Attributes:
      name: path of the file, for messages.
      values: key -> value, without nulls, which DeepSpeed mostly treats as missing.
      auto: keys with the value "auto", which Hugging Face's Trainer replaces by its own
        arguments.
      filled: those of them that `values` has, as the Trainer fills them in.
      nulls: keys with the value null.
    """

    def __init__(self, name: str, entries: dict[str, Any]):
        self.name = one_line(name)
        self.values: dict[str, Any] = {}
        self.auto: dict[str, None] = {}
        self.filled: set[str] = set()
        self.nulls: dict[str, None] = {}
        self._flatten("", entries)

    def error(self, key: str, problem: str) -> UserError:
        """Returns the error that names flag, file and key."""
        return UserError(f"--ds_config: {self.name}: {shortened(key)}: {problem}")

    def states(self, key: str) -> bool:
        """Returns True if the file itself gives the key a value."""
        return key in self.values and key not in self.filled

    def has_block(self, block: str) -> bool:
        """Returns True if the file has a block or a key in it."""
        keys = (*self.values, *self.auto, *self.nulls)
        return any(key == block or key.startswith(f"{block}.") for key in keys)

    def number(self, key: str) -> float | None:
        """Returns a number."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str) and _is_converted(key):
            value = _number_of(value)
        # type() instead of isinstance: True is an int in Python, but no number in JSON.
        if type(value) not in (int, float):
            raise self.wrong(key, "a number")
        try:
            return float(value)
        except OverflowError:
            # JSON allows integers that float() cannot represent.
            raise self.wrong(key, "a number") from None

    def whole(self, key: str) -> int | None:
        """Returns a whole number, which may be written as 32.0."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) and _is_converted(key):
            return int(value)
        try:
            number = self.number(key)
        except UserError:
            raise self.wrong(key, "a whole number") from None
        if number is None or not number.is_integer():
            raise self.wrong(key, "a whole number")
        return int(number)

    def boolean(self, key: str) -> bool | None:
        """Returns true or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        word = str(int(value)) if value in (0, 1) else str(value).lower()
        if _is_converted(key) and word in WORDS:
            return WORDS[word]
        raise self.wrong(key, "true or false")

    def text(self, key: str) -> str | None:
        """Returns a string."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def pair(self, key: str) -> tuple[float, float] | None:
        """Returns two numbers."""
        value = self.values.get(key)
        if value is None:
            return None
        is_pair = isinstance(value, list) and len(value) == 2
        if not is_pair or not all(type(item) in (int, float) for item in value):
            raise self.wrong(key, "two numbers")
        try:
            return float(value[0]), float(value[1])
        except OverflowError:
            raise self.wrong(key, "two numbers") from None

    def wrong(self, key: str, kind: str) -> UserError:
        """Returns the error that a value is not of the kind it must be of."""
        value = self.values[key]
        problem = f"must be {kind}, got {show(value)}"
        if isinstance(value, str) and placeholder(value):
            problem += (
                f"; {shortened(placeholder(value))} is a placeholder that a script "
                "fills in; write the value"
            )
        elif isinstance(value, str) and value.endswith(","):
            problem += (
                "; Hjson, which DeepSpeed reads, takes an unquoted word to the end of "
                "its line"
            )
        return self.error(key, problem)

    def _flatten(self, prefix: str, entries: dict[str, Any]) -> None:
        for name, value in entries.items():
            if not prefix and OLD_NAMES.get(name, name) not in entries:
                name = OLD_NAMES.get(name, name)
            # A name that contains a dot stays in quotes, so that it cannot be taken for
            # a key of a block.
            plain = not {".", '"'} & set(name) and name.isprintable()
            key = prefix + (name if plain else json.dumps(name))
            if isinstance(value, dict) and value:
                self._flatten(f"{key}.", value)
            elif value == "auto":
                self.auto[key] = None
            elif value is None:
                self.nulls[key] = None
            else:
                self.values[key] = value


def read(path: str) -> DsConfigFile:
    """Reads a ds_config; raises as `text.load`."""
    return DsConfigFile(path, load(path))


def parts(key: str) -> list[str]:
    """Returns the names of the blocks around an entry, and its own."""
    return PARTS.findall(key) if '"' in key else key.split(".")


def _is_converted(key: str) -> bool:
    return key.partition(".")[0] in CONVERTED


def _number_of(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
