"""Judges a trace of anybody's training program by anybody's JAX step:
parity.own.judge(trace, step).

The step is two functions, each of which computes in the format that it is asked for:

    gradients(params, step, dtype) -> {"loss": ..., "grads/NAME": ..., "activations/LAYER": ...}
    update(params, grads, moments, step, dtype) -> {"updated/NAME": ..., "updated_moments/first/NAME": ...}

`params`, `grads` and `moments` are flat mappings by the names of the JAX side, floating
arrays in `dtype`; `step` is what was recorded, by the trace's names ("batch/ids",
"loss_scale", "learning_rate", "optimizer_step"). In a half-precision run `gradients`
must scale the loss by step["loss_scale"], as training does, and divide its gradients by
it afterwards in float32. Whatever of the outputs a trace lacks is an error; what it
holds beyond them is left alone.
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
from parity.judging import measure
from parity.judging.measure import THRESHOLD, Measurement, equal
from parity.judging.step import (
    THOROUGH,
    Rounds,
    judge_gradients,
    judge_update,
    order,
    unchanged,
)
from parity.name_map import Names
from parity.noise import Distances, Tensors
from parity.replay import FLOAT64
from parity.rules import carried

Gradients = Callable[
    [Mapping[str, Any], Mapping[str, np.ndarray], np.dtype], Mapping[str, Any]
]
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


def judge(
    trace: Reader,
    gradients: Gradients,
    update: Update | None = None,
    name_map: Mapping[str, str] | None = None,
    threshold: float = THRESHOLD,
) -> dict[str, Any]:
    """Replays every step of a trace by the functions given, and measures it in units of
    their rounding.

    Args:
      trace: a recording at "full".
      gradients: the forward and backward pass in JAX.
      update: the optimizer's half; None: it is not judged.
      name_map: name in the trace -> name that the functions use, of parameters; those
        left out are the same.
      threshold: largest z that passes.

    Returns:
      The verdict, as `compare.verdict` has it.

    Raises:
      UserError: the trace is empty, lacks something, or has names that the functions do
        not know; what they may be is suggested by shape.
    """
    if trace.meta["precision"] not in PRECISIONS:
        raise UserError(
            f"cannot judge: meta.json: precision {trace.meta['precision']!r} is none "
            f"of {', '.join(PRECISIONS)}"
        )
    names, measurements, previous = Names(name_map or {}), [], {}
    for number in range(len(trace)):
        step = trace.read(number)
        replay = OwnReplay(gradients, update, names, trace.meta["precision"], step)
        measurements += _judge_step(replay, number, step, previous, threshold)
        previous = step
    return measure.verdict(measurements, len(trace), threshold, order(trace))


def _judge_step(
    replay: "OwnReplay", number: int, step: Tensors, previous: Tensors, threshold: float
) -> Iterator[Measurement]:
    for row in carried(step, previous) if previous else ():
        yield equal(number, row.quantity, row.tensor, row.recorded, row.expected)
    inputs, rounds = replay.inputs(number), Rounds(THOROUGH, threshold, np.inf)
    yield from judge_gradients(
        replay, number, step, inputs, replay.gradients(inputs, replay.compute), rounds
    )
    if step["skipped"]:
        yield from unchanged(number, step)
    elif replay.has_update:
        yield from judge_update(replay, number, step, inputs, rounds)


class OwnReplay:
    """What `replay.Replay` is, of functions that are not jaxnn's and of one step.

    Args:
      gradients, update: as `judge` takes them.
      names: between the trace and the functions.
      run_precision: of the recorded forward pass.
      step: what was recorded.
    """

    def __init__(
        self,
        gradients: Gradients,
        update: Update | None,
        names: Names,
        run_precision: str,
        step: Tensors,
    ):
        self._gradients, self._update, self._names, self._step = (
            gradients,
            update,
            names,
            step,
        )
        self.compute = np.dtype(precision.POLICIES[run_precision].compute)
        self.may_skip, self.has_update = run_precision == "fp16", update is not None

    def inputs(self, number: int) -> Inputs:
        """What the step starts from."""
        step = self._step
        compute = {
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
            compute,
            master,
            np.zeros(0),
            number,
            int(step["optimizer_step"]),
            step["loss_scale"],
            one,
            one,
            step["learning_rate"],
        )

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """The outputs of `gradients` by the trace's names, as float64 arrays."""
        params = _cast(self._names.to_own(select(inputs.compute, "params")), dtype)
        with jax.enable_x64(dtype == FLOAT64):
            outputs = self._gradients(params, self._step, dtype)
        return self._names.to_trace(outputs, select(inputs.compute, "params"), "grads")

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """The outputs of `update` by the trace's names, as float64 arrays."""
        kinds = {
            kind: select(inputs.master, kind)
            for kind in ("params", "grads", "moments/first", "moments/second")
        }
        own = {
            kind: _cast(self._names.to_own(arrays), dtype)
            for kind, arrays in kinds.items()
        }
        moments = {
            f"{kind.partition('/')[2]}/{name}": array
            for kind in ("moments/first", "moments/second")
            for name, array in own[kind].items()
        }
        assert self._update, "an update that is not there is not judged"
        with jax.enable_x64(dtype == FLOAT64):
            outputs = self._update(
                own["params"], own["grads"], moments, self._step, dtype
            )
        return self._names.to_trace(outputs, kinds["params"], "updated")

    def gradients_rounding(self, inputs: Inputs) -> Distances:
        """What `gradients` in the compute format differs by from `gradients` in
        float64."""
        return _between(
            self.gradients(inputs, self.compute), self.gradients(inputs, FLOAT64)
        )

    def update_rounding(self, inputs: Inputs) -> Distances:
        """What `update` in float32 differs by from `update` in float64."""
        return _between(
            self.update(inputs, np.dtype(np.float32)), self.update(inputs, FLOAT64)
        )

    def nudging(self, inputs: Inputs) -> Callable[[int], Distances]:
        """Of no use here: what lies between the layers of a function is not known."""
        unmoved = dict.fromkeys(self.gradients(inputs, self.compute), 0.0)
        return lambda seed: unmoved


def _cast(arrays: Mapping[str, np.ndarray], dtype: np.dtype) -> dict[str, np.ndarray]:
    return {name: array.astype(dtype) for name, array in arrays.items()}


def _between(left: Tensors, right: Tensors) -> Distances:
    return {
        name: float(np.linalg.norm((left[name] - exact).ravel()))
        for name, exact in right.items()
    }
