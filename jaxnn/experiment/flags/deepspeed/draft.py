"""The flags drafted from a ds_config while it is read."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from jaxnn.experiment.flags.deepspeed.entries import DsConfigFile


class Setting(NamedTuple):
    """The value that a ds_config gives to a flag.

    Attributes:
      value: value of the flag.
      key: key of the ds_config that decides it.
      is_stated: True if the file has the key; else the value is a default, or what
        "auto" stands for, which a flag overrides.
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
      given: flags that the user gave, in a flagfile too, name -> value.
      typed: flags of the command line, which alone can contradict the file.
      settings: flag -> its setting; flags without one keep their values.
      notes: lines for the user.
      passed: keys without a meaning in JAX that DeepSpeed is to get, key -> value.
      ignored: keys that DeepSpeed ignores, with what that means.
    """

    def __init__(
        self,
        source: DsConfigFile,
        flags: Mapping[str, Any],
        given: Collection[str],
        typed: Collection[str] = (),
    ):
        self.source = source
        self.flags = flags
        self.given = {name: flags[name] for name in given}
        self.typed = {name: flags[name] for name in typed}
        self.settings: dict[str, Setting] = {}
        self.notes: list[str] = []
        self.passed: dict[str, Any] = {}
        self.ignored: list[str] = []

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

        Args:
          flag: name of the flag.
          key: key of the ds_config.
          read: typed getter of the file.
          default: DeepSpeed's default.
          why: remark about the default, for the note.
        """
        value = read(key)
        is_stated = value is not None and self.source.states(key)
        value = default if value is None else value
        self.settings[flag] = Setting(value, key, is_stated, why)

    def give_up(self, flags: Collection[str]) -> None:
        """Lets the file decide flags that the user gave."""
        for name in flags:
            self.given.pop(name, None)
            self.typed.pop(name, None)

    def note(self, key: str, text: str) -> None:
        """Adds a note about a key."""
        self.notes.append(f"{key}: {text}")
