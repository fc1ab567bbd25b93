"""Judges a trace of anybody's training program by anybody's JAX step.

The step is two functions, each of which computes in the dtype that it is asked for:

    gradients(params, step, dtype)
        -> {"loss": ..., "grads/NAME": ..., "activations/LAYER": ...}
    update(params, grads, moments, step, dtype)
        -> {"updated/NAME": ..., "updated_moments/first/NAME": ...}

`params`, `grads` and `moments` are flat mappings by the names of the JAX side, floating
arrays in `dtype`; `step` holds what was recorded, by the trace's names ("batch/ids",
"loss_scale", "learning_rate", "optimizer_step"). In a half-precision run `gradients`
must scale the loss by step["loss_scale"], as training does, and divide its gradients by
it afterwards in float32. An output that the trace lacks is an error; what the trace
holds beyond the outputs is not looked at.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxnn import precision
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags.config import PRECISIONS
from parity.inputs import Inputs
from parity.judging.measure import THRESHOLD, Measurement, equal
from parity.judging.rounds import THOROUGH, Rounds
from parity.judging.step import order
from parity.judging.tensors import judge_gradients, judge_skipped, judge_update
from parity.judging.verdict import Verdict, judge_measurements
from parity.name_map import Names
from parity.noise import FLOAT32, FLOAT64, Distances, Tensors, distances
from parity.rules import carried

Gradients = Callable[
    [Mapping[str, Any], Mapping[str, np.ndarray], np.dtype], Mapping[str, Any]
]
"""(params, step, dtype) -> outputs of the forward and backward pass."""
Update = Callable[
    [
        Mapping[str, Any],
        Mapping[str, Any],
        Mapping[str, Any],
        Mapping[str, np.ndarray],
        np.dtype,
    ],
    Mapping[str, Any],
]
"""(params, grads, moments, step, dtype) -> outputs of the optimizer."""

MOMENT_KINDS = ("moments/first", "moments/second")


def judge_step(
    trace: Reader,
    gradients: Gradients,
    update: Update | None = None,
    name_map: Mapping[str, str] | None = None,
    threshold: float = THRESHOLD,
) -> Verdict:
    """Replays every step of a trace by the functions given, and measures it.

    Args:
      trace: recording at "full".
      gradients: forward and backward pass in JAX.
      update: the optimizer's half; None if it is not to be judged.
      name_map: name in the trace -> name that the functions use, of parameters; those
        left out are the same.
      threshold: largest z that passes.

    Raises:
      UserError: the trace is empty, lacks something, or has names that the functions do
        not know; what they may be is suggested by shape.
    """
    if trace.meta["precision"] not in PRECISIONS:
        raise UserError(
            f"cannot judge: meta.json: precision {trace.meta['precision']!r} is none "
            f"of {', '.join(PRECISIONS)}"
        )
    names = Names(name_map or {})
    measurements: list[Measurement] = []
    previous: Tensors = {}
    for number in range(len(trace)):
        step = trace.read(number)
        replay = OwnReplay(gradients, update, names, trace.meta["precision"], step)
        measurements += _judge_step(replay, number, step, previous, threshold)
        previous = step
    return judge_measurements(measurements, len(trace), threshold, order(trace))


def _judge_step(
    replay: "OwnReplay",
    number: int,
    step: Tensors,
    previous: Tensors,
    threshold: float,
) -> Iterator[Measurement]:
    for row in carried(step, previous) if previous else ():
        yield equal(number, row.quantity, row.tensor, row.recorded, row.expected)
    inputs = replay.inputs(number)
    replayed = replay.gradients(inputs, replay.compute)
    rounds = Rounds(THOROUGH, threshold)
    yield from judge_gradients(replay, number, step, inputs, replayed, rounds)
    if step["skipped"]:
        yield from judge_skipped(number, step)
    elif replay.has_update:
        yield from judge_update(replay, number, step, inputs, rounds)


class OwnReplay:
    """A `tensors.StepReplay` made of functions that are not jaxnn's, for one step.

    Args:
      gradients: forward and backward pass, as `judge` takes it.
      update: the optimizer's half; None if it is not judged.
      names: names of parameters in the trace and in the functions.
      run_precision: precision of the recorded forward pass.
      step: recorded tensors by name.
    """

    def __init__(
        self,
        gradients: Gradients,
        update: Update | None,
        names: Names,
        run_precision: str,
        step: Tensors,
    ):
        self._gradients = gradients
        self._update = update
        self._names = names
        self._step = step
        self.compute = np.dtype(precision.POLICIES[run_precision].compute)
        self.may_skip = run_precision == "fp16"
        # Nothing is known of the network.
        self.has_kinks = self.has_jumps = True
        self.has_update = update is not None

    def inputs(self, number: int) -> Inputs:
        """Returns what the step starts from."""
        step = self._step
        params = {
            name: array.astype(self.compute)
            for name, array in step.items()
            if name.startswith("params/")
        }
        master = {
            name: array
            for name, array in step.items()
            if name.split("/")[0] in ("params", "grads", "moments")
        }
        one = np.float32(1)
        return Inputs(
            compute=params,
            master=master,
            # The functions find their batch by the step's ids.
            targets=np.zeros(0),
            step=number,
            updates=int(step["optimizer_step"]),
            scale=step["loss_scale"],
            divisor=one,
            loss_share=one,
            learning_rate=step["learning_rate"],
        )

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the outputs of `gradients` by the trace's names, in float64."""
        params = select(inputs.compute, "params")
        own = _cast(self._names.to_own(params), dtype)
        with jax.enable_x64(dtype == FLOAT64):
            outputs = self._gradients(own, self._step, dtype)
        return self._names.to_trace(outputs, params, "grads")

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the outputs of `update` by the trace's names, in float64."""
        assert self._update, "an update that is not there is not judged"
        kinds = ("params", "grads", *MOMENT_KINDS)
        recorded = {kind: select(inputs.master, kind) for kind in kinds}
        own = {
            kind: _cast(self._names.to_own(arrays), dtype)
            for kind, arrays in recorded.items()
        }
        moments = {
            f"{kind.removeprefix('moments/')}/{name}": array
            for kind in MOMENT_KINDS
            for name, array in own[kind].items()
        }
        with jax.enable_x64(dtype == FLOAT64):
            outputs = self._update(
                own["params"], own["grads"], moments, self._step, dtype
            )
        return self._names.to_trace(outputs, recorded["params"], "updated")

    def gradients_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `gradients` in the compute dtype from float64."""
        rounded = self.gradients(inputs, self.compute)
        return distances(rounded, self.gradients(inputs, FLOAT64))

    def update_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `update` in float32 from float64."""
        rounded = self.update(inputs, FLOAT32)
        return distances(rounded, self.update(inputs, FLOAT64))

    def nudging(self, inputs: Inputs) -> Callable[[int], Distances]:
        """Returns distances of zero: the layers of a function cannot be reached."""
        unmoved = dict.fromkeys(self.gradients(inputs, self.compute), 0.0)
        return lambda seed: unmoved


def _cast(arrays: Mapping[str, np.ndarray], dtype: np.dtype) -> dict[str, np.ndarray]:
    return {name: array.astype(dtype) for name, array in arrays.items()}
