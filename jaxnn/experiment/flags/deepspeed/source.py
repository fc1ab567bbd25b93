"""A user's ds_config.json as flat keys, "optimizer.params.lr", and their values by
type."""

import json
from typing import Any

from jaxnn.experiment.errors import UserError

OLD_NAMES = {"bfloat16": "bf16"}


class DsConfigFile:
    """What a file says.

    Attributes:
      name: of the file.
      values: key -> value; without nulls, which are DeepSpeed's way to say nothing.
      auto: keys whose value is "auto", which Hugging Face's trainer fills in from its
        own arguments.
    """

    def __init__(self, name: str, entries: dict[str, Any]):
        self.name = name
        self.values: dict[str, Any] = {}
        self.auto: list[str] = []
        self._flatten("", entries)

    def error(self, key: str, problem: str) -> UserError:
        """One line that names flag, file and key."""
        return UserError(f"--ds_config: {self.name}: {key}: {problem}")

    def number(self, key: str) -> float | None:
        """A number, or None where the file is silent."""
        return self._typed(key, "a number", (int, float), float)

    def whole(self, key: str) -> int | None:
        """A whole number; 32.0 is one."""
        value = self._typed(key, "a whole number", (int, float), float)
        if value is not None and not value.is_integer():
            raise self.error(
                key, f"must be a whole number, got {self.show(self.values[key])}"
            )
        return None if value is None else int(value)

    def boolean(self, key: str) -> bool | None:
        """true or false."""
        return self._typed(key, "true or false", (bool,), bool)

    def text(self, key: str) -> str | None:
        """A string."""
        return self._typed(key, "a string", (str,), str)

    def pair(self, key: str) -> tuple[float, float] | None:
        """Two numbers."""
        value = self.values.get(key)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(type(item) in (int, float) for item in value)
        ):
            raise self.error(key, f"must be two numbers, got {self.show(value)}")
        return float(value[0]), float(value[1])

    def refuse_without_type(self, block: str) -> None:
        """Raises UserError if an optimizer or scheduler block is there and does not say
        which."""
        if any(key.startswith(f"{block}.") for key in (*self.values, *self.auto)):
            raise self.error(f"{block}.type", "is missing; say which")

    @staticmethod
    def show(value: Any) -> str:
        """A value as JSON, shortened."""
        text = json.dumps(value)
        return text if len(text) <= 60 else text[:57] + "..."

    def _typed(self, key: str, kind: str, types: tuple[type, ...], convert: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) not in types:
            raise self.error(key, f"must be {kind}, got {self.show(value)}")
        try:
            return convert(value)
        except OverflowError:
            raise self.error(key, f"must be {kind}, got {self.show(value)}") from None

    def _flatten(self, prefix: str, entries: dict[str, Any]) -> None:
        for name, value in entries.items():
            if not prefix and OLD_NAMES.get(name, name) not in entries:
                name = OLD_NAMES.get(name, name)
            key = prefix + (json.dumps(name) if "." in name else name)
            if isinstance(value, dict) and value:
                self._flatten(f"{key}.", value)
            elif value == "auto":
                self.auto.append(key)
            elif value is not None:
                self.values[key] = value


def load(path: str) -> DsConfigFile:
    """Reads a file.

    Raises:
      UserError: it cannot be read, is not JSON, is not an object, or says a key twice.
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
    except (ValueError, RecursionError) as error:
        raise UserError(f"--ds_config: {path}: is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise UserError(
            f"--ds_config: {path}: must hold an object {{...}}, got "
            f"{DsConfigFile.show(entries)}"
        )
    return DsConfigFile(path, entries)


class _DuplicateKeyError(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _DuplicateKeyError(name)
    return dict(pairs)
