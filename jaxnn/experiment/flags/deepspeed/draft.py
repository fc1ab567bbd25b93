"""What a ds_config means in flags, as it is being read."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from jaxnn.experiment.flags.deepspeed.source import DsConfigFile


class Setting(NamedTuple):
    """The value of one flag.

    Attributes:
      value: of the flag.
      key: of the ds_config that it comes from.
      is_stated: whether the file says so; else it is DeepSpeed's default, which gives
        way to a flag.
      why: what is worth knowing about the default.
    """

    value: Any
    key: str
    is_stated: bool = True
    why: str = ""


class Draft:
    """Collects settings and notes.

    Attributes:
      source: the file.
      flags: every flag, name -> value.
      given: those of them that the user gave.
      settings: flag -> its setting; a flag that is missing here is left as it is.
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
        """What a flag will be, as far as is known by now."""
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
        """Sets a flag to what a key says, or to DeepSpeed's default; "auto" leaves it
        alone."""
        if key not in self.source.auto:
            value = read(key)
            is_stated = value is not None
            self.settings[flag] = Setting(
                value if is_stated else default, key, is_stated, why
            )

    def note(self, key: str, text: str) -> None:
        """A line about a key."""
        self.notes.append(f"{key}: {text}")
