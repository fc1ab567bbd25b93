"""A ds_config.json while it is read: its typed values, and the flags drafted from them.

Keys are flat: "optimizer.params.lr" is the entry lr of the block params of the block
optimizer.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from jaxnn.experiment.errors import UserError

# DeepSpeed still reads the old name where the new one is missing
# (runtime/precision_config.py get_bfloat16_config).
OLD_NAMES = {"bfloat16": "bf16"}


class DsConfigFile:
    """The entries of a ds_config.json.

    The typed getters return None if the file does not have the key, and raise UserError
    if the value has another type.

    Attributes:
      name: path of the file, for messages.
      values: key -> value, without nulls, which DeepSpeed treats as missing.
      auto: keys with the value "auto", which Hugging Face's Trainer replaces by its own
        arguments.
    """

    def __init__(self, name: str, entries: dict[str, Any]):
        self.name = name
        self.values: dict[str, Any] = {}
        self.auto: list[str] = []
        self._flatten("", entries)

    def error(self, key: str, problem: str) -> UserError:
        """Returns the error that names flag, file and key."""
        return UserError(f"--ds_config: {self.name}: {key}: {problem}")

    def number(self, key: str) -> float | None:
        """Returns a number."""
        return self._typed(key, "a number", (int, float), float)

    def whole(self, key: str) -> int | None:
        """Returns a whole number, which may be written as 32.0."""
        value = self._typed(key, "a whole number", (int, float), float)
        if value is None:
            return None
        if not value.is_integer():
            raise self.error(
                key, f"must be a whole number, got {show(self.values[key])}"
            )
        return int(value)

    def boolean(self, key: str) -> bool | None:
        """Returns true or false."""
        return self._typed(key, "true or false", (bool,), bool)

    def text(self, key: str) -> str | None:
        """Returns a string."""
        return self._typed(key, "a string", (str,), str)

    def pair(self, key: str) -> tuple[float, float] | None:
        """Returns two numbers."""
        value = self.values.get(key)
        if value is None:
            return None
        is_pair = isinstance(value, list) and len(value) == 2
        if not is_pair or not all(type(item) in (int, float) for item in value):
            raise self.error(key, f"must be two numbers, got {show(value)}")
        return float(value[0]), float(value[1])

    def refuse_without_type(self, block: str) -> None:
        """Raises UserError if an optimizer or scheduler block lacks its type."""
        if any(key.startswith(f"{block}.") for key in (*self.values, *self.auto)):
            raise self.error(f"{block}.type", "is missing; say which")

    def _typed(self, key: str, kind: str, types: tuple[type, ...], convert: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            return None
        # type() instead of isinstance: True is an int in Python, but no number in JSON.
        if type(value) not in types:
            raise self.error(key, f"must be {kind}, got {show(value)}")
        try:
            return convert(value)
        except OverflowError:
            # JSON allows integers that float() cannot represent.
            raise self.error(key, f"must be {kind}, got {show(value)}") from None

    def _flatten(self, prefix: str, entries: dict[str, Any]) -> None:
        for name, value in entries.items():
            if not prefix and OLD_NAMES.get(name, name) not in entries:
                name = OLD_NAMES.get(name, name)
            # A name that contains a dot stays in quotes, so that it cannot be taken for
            # a key of a block.
            key = prefix + (json.dumps(name) if "." in name else name)
            if isinstance(value, dict) and value:
                self._flatten(f"{key}.", value)
            elif value == "auto":
                self.auto.append(key)
            elif value is not None:
                self.values[key] = value


def load(path: str) -> DsConfigFile:
    """Reads a ds_config.json.

    Raises:
      UserError: the file cannot be read, is not a JSON object, or has a key twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = json.load(file, object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise UserError(f"--ds_config: cannot read {path}: {error.strerror}") from None
    except _DuplicateKeyError as error:
        raise UserError(
            f"--ds_config: {path}: {error}: is there twice; keep one of them"
        ) from None
    # RecursionError: json recurses into nested objects.
    except (ValueError, RecursionError) as error:
        raise UserError(f"--ds_config: {path}: is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise UserError(
            f"--ds_config: {path}: must hold an object {{...}}, got {show(entries)}"
        )
    return DsConfigFile(path, entries)


def show(value: Any) -> str:
    """Returns a value as JSON, shortened to 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Setting(NamedTuple):
    """The value that a ds_config gives to a flag.

    Attributes:
      value: value of the flag.
      key: key of the ds_config that decides it.
      is_stated: True if the file has the key; else the value is DeepSpeed's default,
        which a flag on the command line overrides.
      why: remark about the default, for the note.
    """

    value: Any
    key: str
    is_stated: bool = True
    why: str = ""


class Draft:
    """Settings and notes, collected block by block.

    Attributes:
      source: the file.
      flags: every flag, name -> value.
      given: flags that the user gave, name -> value.
      settings: flag -> its setting; flags without one keep their values.
      notes: lines for the user.
    """

    def __init__(
        self, source: DsConfigFile, flags: Mapping[str, Any], given: Collection[str]
    ):
        self.source = source
        self.flags = flags
        self.given = {name: flags[name] for name in given}
        self.settings: dict[str, Setting] = {}
        self.notes: list[str] = []

    def value(self, flag: str) -> Any:
        """Returns the value that a flag will have, given the settings so far."""
        setting = self.settings.get(flag)
        if setting is None or (not setting.is_stated and flag in self.given):
            return self.flags[flag]
        return setting.value

    def take(
        self,
        flag: str,
        key: str,
        read: Callable[[str], Any],
        default: Any,
        why: str = "",
    ) -> None:
        """Sets a flag to the value of a key, or to a default if the key is missing.

        A key that is "auto" leaves the flag alone.

        Args:
          flag: name of the flag.
          key: key of the ds_config.
          read: typed getter of the file.
          default: DeepSpeed's default.
          why: remark about the default, for the note.
        """
        if key not in self.source.auto:
            value = read(key)
            is_stated = value is not None
            value = value if is_stated else default
            self.settings[flag] = Setting(value, key, is_stated, why)

    def note(self, key: str, text: str) -> None:
        """Adds a note about a key."""
        self.notes.append(f"{key}: {text}")


class _DuplicateKeyError(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of equal keys, json.load silently keeps the last.
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _DuplicateKeyError(name)
    return dict(pairs)
