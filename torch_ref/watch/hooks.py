"""Where a training loop tells of its backward passes and steps: in the functions that
it calls."""

import contextlib
import functools
import weakref
from typing import Any

import torch

from jaxnn.experiment.patches import Patch, put
from torch_ref import engine_readers
from torch_ref.watch import arrays
from torch_ref.watch.engine import Engine
from torch_ref.watch.plain import Plain
from torch_ref.watch.watcher import Watcher


class Losses:
    """Remembers what losses were before they were scaled."""

    def __init__(self):
        self._scaled: dict[int, tuple[weakref.ref[torch.Tensor], float]] = {}

    def note(self, scaled: Any, loss: Any) -> None:
        """`scaled` is a multiple of `loss`."""
        for after, before in zip(arrays.tensors_in(scaled), arrays.tensors_in(loss)):
            if before.numel() == 1:
                self._scaled[id(after)] = (weakref.ref(after), value_of(before))

    def is_scaled(self, loss: Any) -> bool:
        """True if a scaler made it."""
        return all(self._of(tensor) is not None for tensor in arrays.tensors_in(loss))

    def value(self, loss: Any, grads: Any) -> float:
        """Returns what backward is called on, unscaled.

        Args:
          loss: one tensor or several.
          grads: what backward is given for them; None for scalars.
        """
        tensors = arrays.tensors_in(loss)
        given = arrays.tensors_in(grads) or [None] * len(tensors)
        return sum(
            value_of(tensor, grad) if (known := self._of(tensor)) is None else known
            for tensor, grad in zip(tensors, given)
        )

    def forget(self) -> None:
        """The step is over."""
        self._scaled.clear()

    def _of(self, tensor: torch.Tensor) -> float | None:
        held, value = self._scaled.get(id(tensor), (None, 0.0))
        return value if held is not None and held() is tensor else None


def value_of(tensor: torch.Tensor, grad: torch.Tensor | None = None) -> float:
    """Returns the scalar whose gradients a backward pass computes."""
    value = tensor.detach().double()
    return float((value if grad is None else value * grad.detach().double()).sum())


def hook_engine(watcher: Watcher, subject: Engine, undo: contextlib.ExitStack) -> None:
    """Watches an engine's `backward`, `scale` and `step`, and torch's own backward."""
    engine, losses = subject.engine, Losses()

    def note_gradients() -> None:
        if subject.is_last() and watcher.has_passes:
            scale = engine_readers.loss_scale(engine)
            watcher.note_gradients(subject.gradients(), scale)

    def share(scaled_by_parts: bool = True) -> float:
        parts = engine.gradient_accumulation_steps() if scaled_by_parts else 1
        return 1 / (parts * subject.world_size)

    def backward(original: Any) -> Any:
        @functools.wraps(original)
        def run(loss: Any, retain_graph: bool = False, scale_wrt_gas: bool = True):
            result = watcher.backward(
                lambda: losses.value(loss, None),
                share(scale_wrt_gas),
                lambda: original(loss, retain_graph, scale_wrt_gas),
            )
            note_gradients()
            return result

        return run

    def step(original: Any) -> Any:
        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any):
            if not (subject.is_last() or not engine.managed_gradient_accumulation()):
                return original(*args, **kwargs)
            watcher.before_step()
            before = subject.updates()
            result = original(*args, **kwargs)
            losses.forget()
            watcher.after_step(subject.skipped(before))
            return result

        return run

    torch_backward = torch_backward_of(watcher, losses, share, note_gradients)
    put(
        undo,
        [
            Patch(engine, "backward", backward),
            Patch(engine, "scale", functools.partial(_scale, losses)),
            Patch(engine, "step", step),
            Patch(torch.autograd, "backward", torch_backward),
        ],
    )


def hook_plain(
    watcher: Watcher, subject: Plain, scaler: Any, undo: contextlib.ExitStack
) -> None:
    """Watches torch's backward, an optimizer's steps and a scaler's."""
    losses, scaling = Losses(), _Scaling()

    def note_gradients() -> None:
        scale = float(scaler.get_scale()) if scaler else 1.0
        factor = scale if scaling.scaled else 1.0
        grads = {name: grad / factor for name, grad in subject.gradients().items()}
        watcher.note_gradients(grads, scale)

    def drop_if_thrown_away(*_: Any) -> None:
        if watcher.has_passes and not subject.has_gradients():
            watcher.drop_passes()

    def end(skipped: bool) -> None:
        subject.counted += not skipped
        losses.forget()
        watcher.after_step(skipped)

    def before(*_: Any) -> None:
        scaling.stepped = True
        if not scaling.inside:
            watcher.before_step()

    def after(*_: Any) -> None:
        if not scaling.inside:
            end(False)

    def scaler_step(original: Any) -> Any:
        @functools.wraps(original)
        def run(optimizer: Any, *args: Any, **kwargs: Any):
            if not _is_same(optimizer, subject.optimizer):
                return original(optimizer, *args, **kwargs)
            watcher.before_step()
            scaling.inside, scaling.stepped = True, False
            try:
                result = original(optimizer, *args, **kwargs)
            finally:
                scaling.inside = False
            end(not scaling.stepped or _overflowed(scaler, optimizer))
            return result

        return run

    def torch_backward(original: Any) -> Any:
        made = torch_backward_of(watcher, losses, lambda: 1 / subject.world_size, note)
        return _telling(made(original), losses, scaling)

    note = note_gradients
    optimizer = subject.optimizer
    for handle in (
        optimizer.register_step_pre_hook(before),
        optimizer.register_step_post_hook(after),
        subject.model.register_forward_pre_hook(drop_if_thrown_away, prepend=True),
    ):
        undo.callback(handle.remove)
    put(undo, [Patch(torch.autograd, "backward", torch_backward)])
    if scaler is not None:
        scale = functools.partial(_scale, losses)
        put(undo, [Patch(scaler, "scale", scale), Patch(scaler, "step", scaler_step)])


class _Scaling:
    """Where a scaler's step is.

    Attributes:
      scaled: the last loss was a scaled one.
      inside: the scaler's step runs.
      stepped: it has called the optimizer's.
    """

    scaled = False
    inside = False
    stepped = False


def torch_backward_of(watcher: Watcher, losses: Losses, share: Any, note: Any) -> Any:
    """Returns what makes a watched torch.autograd.backward of the original."""

    def make(original: Any) -> Any:
        @functools.wraps(original)
        def run(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any):
            def call() -> Any:
                return original(tensors, grad_tensors, *args, **kwargs)

            # One within another is a re-run of an activation checkpoint, or DeepSpeed.
            if watcher.is_inside_backward:
                return call()
            value = functools.partial(losses.value, tensors, grad_tensors)
            result = watcher.backward(value, share(), call)
            note()
            return result

        return run

    return make


def _telling(run: Any, losses: Losses, scaling: _Scaling) -> Any:
    """Notes whether a loss comes from the scaler, before its backward pass."""

    @functools.wraps(run)
    def told(tensors: Any, *args: Any, **kwargs: Any):
        scaling.scaled = losses.is_scaled(tensors)
        return run(tensors, *args, **kwargs)

    return told


def _scale(losses: Losses, original: Any) -> Any:
    @functools.wraps(original)
    def run(loss: Any):
        scaled = original(loss)
        losses.note(scaled, loss)
        return scaled

    return run


def _is_same(optimizer: Any, watched: torch.optim.Optimizer) -> bool:
    inner = getattr(optimizer, "optimizer", optimizer)
    return optimizer is watched or inner is watched


def _overflowed(scaler: Any, optimizer: Any) -> bool:
    """True if the scaler has found an infinity; fused optimizers skip by themselves."""
    found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
    return any(bool(value) for value in found.values())
