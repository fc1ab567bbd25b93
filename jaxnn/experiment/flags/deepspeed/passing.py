"""Keys of a ds_config that have a meaning for DeepSpeed alone: `--ds_extra`.

They are about memory and communication. JAX has no use for them; DeepSpeed gets them as
they are, so that what is judged is what the file's owner runs.
"""

import json
from collections.abc import Mapping
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.deepspeed import keys
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting
from jaxnn.experiment.flags.deepspeed.entries import DsConfigFile

# ZeRO-Infinity's disks: the same computation as on the CPU, and no library to compile.
NVME = ("nvme_path", "pipeline_read", "pipeline_write", "fast_init")


def to_flag(passed: Mapping[str, Any]) -> str:
    """Returns keys and values as the text of `--ds_extra`, "" if there are none."""
    entries: dict[str, Any] = {}
    for key, value in passed.items():
        *blocks, name = key.split(".")
        if name in NVME:
            continue
        inside = entries
        for block in blocks:
            inside = inside.setdefault(block, {})
        inside[name] = "cpu" if (name, value) == ("device", "nvme") else value
    return json.dumps(entries) if entries else ""


def settle(draft: Draft) -> None:
    """Sets `--ds_extra`: what the file passes on, and what the flag adds to it.

    Raises:
      UserError: the flag is not a JSON object of such keys.
    """
    if not draft.passed:
        return
    theirs = from_flag(to_flag(draft.passed))
    ours = from_flag(draft.given.get("ds_extra", ""))
    both = merged(ours, theirs)
    key = ", ".join(keys.blocks(draft.passed))
    # A flag of the command line that only adds to the file agrees with it.
    if "ds_extra" in draft.typed and both == merged(theirs, ours):
        draft.give_up(["ds_extra"])
    draft.settings["ds_extra"] = Setting(json.dumps(both) if both else "", key)


def from_flag(text: str) -> dict[str, Any]:
    """Returns the entries of `--ds_extra`.

    Raises:
      UserError: it is not a JSON object of such keys.
    """
    try:
        entries = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"--ds_extra: is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise UserError("--ds_extra: must be a JSON object {...}")
    for key in DsConfigFile("--ds_extra", entries).values:
        if not keys.covering(key, frozenset(keys.PASSED)):
            raise UserError(
                f"--ds_extra: {key}: is not about memory or communication alone; it "
                "takes what --ds_config passes on"
            )
    return entries


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with further entries; blocks are merged."""
    both = dict(base)
    for name, value in extra.items():
        inside = both.get(name)
        is_block = isinstance(inside, Mapping) and isinstance(value, Mapping)
        both[name] = merged(inside, value) if is_block else value  # type: ignore
    return both


def is_offloaded(extra: Mapping[str, Any]) -> bool:
    """Returns True if DeepSpeed keeps the optimizer's state on the CPU."""
    zero = extra.get("zero_optimization", {})
    device = (zero.get("offload_optimizer") or {}).get("device", "none")
    return bool(zero.get("cpu_offload")) or device != "none"
