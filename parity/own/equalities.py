"""What a recorded step of one's own must be equal to, to the bit.

Of a program that nobody knows only this is known: a step begins where the one before
ended, a skipped step is no update, the forward pass reads the masters rounded, and
DeepSpeed's loss scale moves by its own rules.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxnn import loss_scaling
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import LossScale
from parity import rules
from parity.judging.measure import Measurement, equal
from parity.noise import Tensors
from parity.semantics.schedule import SWITCHES
from parity.semantics.switch import changed_experiment, patched

CARRIED = rules.CARRIED | {"buffers": "updated_buffers"}
"""Kind of tensor that a step begins with -> kind that the step before ended with."""


def state_kept(number: int, step: Tensors, previous: Tensors) -> Iterator[Measurement]:
    """Yields the equality of each tensor with what the step before left."""
    for before, after in CARRIED.items():
        for name, array in select(step, before).items():
            left = previous.get(f"{after}/{name}")
            if left is not None:
                yield equal(number, "params", f"{before}/{name}", array, left)


def weights_read(number: int, step: Tensors) -> Iterator[Measurement]:
    """Yields the equality of the 16-bit weights with the masters, rounded."""
    for name, array in select(step, "forward").items():
        master = step.get(f"params/{name}")
        if master is not None:
            rounded = master.astype(array.dtype)
            yield equal(
                number,
                "weights_read",
                name,
                array.astype(np.float32),
                rounded.astype(np.float32),
            )


def update_counted(
    number: int, step: Tensors, previous: Tensors
) -> Iterator[Measurement]:
    """Yields the equality of the optimizer's count with that of the step before."""
    expected = previous["optimizer_step"] + np.int32(not previous["skipped"])
    yield equal(
        number, "optimizer_step", "", step["optimizer_step"], np.int32(expected)
    )


class LossScaleRules:
    """DeepSpeed's FP16 scaler, followed from the first step of a run.

    Args:
      meta: meta.json of the recording.
      other: a switch of `parity.semantics.schedule`, if the rules are others.
    """

    def __init__(self, meta: Mapping[str, Any], other: str = ""):
        self._experiment = _experiment(meta)
        self._state: LossScale | None = None
        self._switches = [s for s in SWITCHES if s.name == other]
        if self._experiment:
            self._experiment = changed_experiment(self._experiment, self._switches)
            self._state = loss_scaling.initial_loss_scale(self._experiment)

    def judge(self, number: int, step: Tensors) -> Iterator[Measurement]:
        """Yields the equality of a step's loss scale; to be asked step after step."""
        if self._experiment is None or self._state is None:
            return
        state = jax.tree.map(np.asarray, self._state)
        expected = np.float32(state.scale)
        yield equal(number, "loss_scale", "", step["loss_scale"], expected)
        self._state = self._after(state, bool(step["skipped"]))

    @property
    def are_known(self) -> bool:
        """True if the scaler is DeepSpeed's, recorded from its first step on."""
        return self._experiment is not None

    def overflows_until(self, scale: float) -> int | None:
        """Returns after how many more overflows the scale is at most this one.

        None if it never is: it is static, or may not fall so far.
        """
        state = self._state
        assert state is not None
        for count in itertools.count():
            if float(state.scale) <= scale:
                return count
            after = self._after(state, True)
            stays = after.scale == state.scale and after.hysteresis == state.hysteresis
            if stays:
                return None
            state = after
        return None

    def grows(self, step: Tensors) -> bool:
        """Returns True if DeepSpeed doubles the scale at the end of this next step."""
        if self._state is None:
            return False
        after = self._after(self._state, bool(step["skipped"]))
        return bool(after.scale > self._state.scale)

    def _after(self, state: LossScale, overflow: bool) -> LossScale:
        assert self._experiment is not None
        # Looked up under the switch, which may patch it.
        with patched(self._switches):
            return loss_scaling.update_loss_scale(
                state, np.bool_(overflow), self._experiment
            )


def _experiment(meta: Mapping[str, Any]) -> Experiment | None:
    """Returns the scaler's settings; None where its rules are not DeepSpeed's FP16."""
    fp16 = (meta.get("config") or {}).get("fp16", {})
    if meta["precision"] != "fp16" or not fp16 or meta.get("first_step"):
        return None
    # Without ZeRO each overflow halves the scale (MISMATCHES D4).
    hysteresis = fp16.get("hysteresis", 2) if meta.get("zero_stage") else 1
    return Experiment(
        precision="fp16",
        initial_scale_power=fp16.get("initial_scale_power", 16),
        static_loss_scale=float(fp16.get("loss_scale", 0)),
        loss_scale_window=fp16.get("loss_scale_window", 1000),
        hysteresis=hysteresis,
        min_loss_scale=float(fp16.get("min_loss_scale", 1)),
        consecutive_hysteresis=fp16.get("consecutive_hysteresis", False),
    )
