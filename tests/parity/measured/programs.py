"""Small training programs under torch's optimizers, recorded step by step."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from parity.measured.history import Step

KEYS = {
    "exp_avg": "first",
    "momentum_buffer": "first",
    "exp_avg_sq": "second",
    "square_avg": "second",
    "sum": "second",
    "exp_inf": "second",
}
"""Key of torch's state -> moment."""

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
Hook = Callable[[int, list[torch.nn.Parameter], torch.optim.Optimizer], None]
STEPS = 8


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, Algorithm 2."""

    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for w in group["params"]:
                m = self.state[w].setdefault("exp_avg", torch.zeros_like(w))
                w.mul_(1 - group["lr"] * group["weight_decay"])
                w.sub_(group["lr"] * torch.sign(b1 * m + (1 - b1) * w.grad))
                m.mul_(b2).add_(w.grad, alpha=1 - b2)


def nothing(number, params, optimizer) -> None:
    """A hook that changes nothing."""


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(10, 16),
        torch.nn.Tanh(),
        torch.nn.LayerNorm(16),
        torch.nn.Linear(16, 3),
    )


def record(
    make: Make, hook: Hook = nothing, steps: int = STEPS, factor: float = 1.0
) -> list[Step]:
    """Trains and records.

    Args:
      make: parameters -> optimizer.
      hook: called between the recorded gradients and the update; it may change both.
      steps: number of updates.
      factor: multiplies the loss.
    """
    model = network()
    params = dict(model.named_parameters())
    optimizer = make(list(params.values()))
    rng = torch.Generator().manual_seed(1)
    recording = []
    for number in range(steps):
        x = torch.randn(32, 10, generator=rng)
        y = torch.randn(32, 3, generator=rng)
        optimizer.zero_grad()
        (factor * ((model(x) - y) ** 2).mean()).backward()
        before = arrays(params)
        grads = {name: copy(param.grad) for name, param in params.items()}
        moments = moments_of(optimizer, params)
        hook(number, list(params.values()), optimizer)
        optimizer.step()
        after = moments_of(optimizer, params)
        recording.append(Step(number, before, grads, arrays(params), moments, after))
    return recording


def replayed(recording: Sequence[Step], make: Make) -> list[Step]:
    """Runs an optimizer on the recorded parameters and gradients of every step."""
    params = dict(network().named_parameters())
    optimizer = make(list(params.values()))
    steps = []
    for step in recording:
        with torch.no_grad():
            for name, param in params.items():
                param.copy_(torch.tensor(step.params[name]))
                param.grad = torch.tensor(step.grads[name])
        moments = moments_of(optimizer, params)
        optimizer.step()
        after = moments_of(optimizer, params)
        made = dict(updated=arrays(params), moments=moments, updated_moments=after)
        steps.append(step._replace(**made))
    return steps


def arrays(params: dict[str, torch.nn.Parameter]) -> dict[str, np.ndarray]:
    return {name: copy(param) for name, param in params.items()}


def copy(tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def moments_of(optimizer, params) -> dict[str, np.ndarray]:
    return {
        f"{KEYS[key]}/{name}": copy(value)
        for name, param in params.items()
        for key, value in optimizer.state.get(param, {}).items()
        if key in KEYS and value is not None
    }


def without_moments(recording: Sequence[Step]) -> list[Step]:
    return [step._replace(moments={}, updated_moments={}) for step in recording]


# Hooks: what a program may do to the gradients between backward pass and update.


def clipped(number, params, optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(params, 1.0)


def unscaled_twice(number, params, optimizer) -> None:
    """MISMATCHES D1."""
    for param in params:
        param.grad *= 2.0**-16


def halved_at_3(number, params, optimizer) -> None:
    """MISMATCHES D3."""
    if number == 3:
        for param in params:
            param.grad *= 0.5


def zero_at_4(number, params, optimizer) -> None:
    if number == 4:
        for param in params:
            param.grad.zero_()


def slower_at_4(number, params, optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial"] * (0.5 if number == 4 else 1)


def counted_from_1(number, params, optimizer) -> None:
    """MISMATCHES D2, without what its empty update leaves in weights and moments."""
    if number == 0:
        for param in params:
            state = optimizer.state[param]
            state["step"] = torch.tensor(1.0)
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)


class Late:
    """Feeds the gradients of the step before."""

    def __init__(self):
        self.last = None

    def __call__(self, number, params, optimizer) -> None:
        now = [param.grad.clone() for param in params]
        if self.last is not None:
            for param, grad in zip(params, self.last):
                param.grad.copy_(grad)
        self.last = now
