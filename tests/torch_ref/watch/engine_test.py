"""Tests of torch_ref/watch on DeepSpeed's engine: what is recorded is what a plain loop
in float64 computes, at every ZeRO stage, precision and number of ranks.

The network has what recorders go wrong on: a frozen layer, a branch that odd steps
leave out, a tie, and a group without decay.

`python -m tests.torch_ref.watch.engine_test FOLDER` records all cases, as one rank.
"""

import functools
import itertools
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.ports import free_port
from torch_ref import kernels, precision, ranks, watch

ROWS, STEPS, OVERFLOW = 8, 5, 3
RATES = (0.25, 0.25, 0.125, 0.125, 0.5)
BETAS, EPS, DECAY = (0.5, 0.75), 1.0, 0.125
"""eps of 1 keeps an update as smooth as its gradient: a rounding is not blown up."""
ROUNDINGS = 2
"""What one step's roundings add up to: measured are at most 0.8 for the gradients in 16
bits, and 1.0 for the loss in float32."""
UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11}
DECAYED = ("first.weight", "branch.weight")
TRAINED = ("first.weight", "first.bias", "branch.weight", "branch.bias")
X = np.random.default_rng(0).integers(-8, 9, (STEPS, ROWS, 4)).astype(np.float32) / 8
Y = np.random.default_rng(1).integers(-8, 9, (STEPS, ROWS, 4)).astype(np.float32) / 8


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.branch, self.frozen, self.tied = (
            nn.Linear(4, 4, bias=name != "tied")
            for name in ("first", "branch", "frozen", "tied")
        )
        generator = np.random.default_rng(2)
        for param in self.parameters():
            values = generator.integers(-8, 9, tuple(param.shape)) / 16
            param.data.copy_(torch.from_numpy(values.astype(np.float32)))
        self.tied.weight = self.first.weight
        self.frozen.requires_grad_(False)

    def forward(self, x, refined: bool):
        h = torch.tanh(self.first(x) + self.tied(x * 0.5))
        h = h + self.branch(h) if refined else h
        return self.frozen(h)


class Case(NamedTuple):
    stage: int
    precision: str
    parts: int

    def __str__(self):
        return f"stage{self.stage}-{self.precision}-{self.parts}parts"

    @property
    def is_mixed_stage_0(self) -> bool:
        return self.stage == 0 and self.precision != "fp32"

    def config(self, world_size: int) -> dict:
        return {
            "train_micro_batch_size_per_gpu": ROWS // self.parts // world_size,
            "gradient_accumulation_steps": self.parts,
            "gradient_clipping": 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": self.stage},
            "fp16": {
                "enabled": self.precision == "fp16",
                "initial_scale_power": 4,
                "hysteresis": 1,
            },
            "bf16": {"enabled": self.precision == "bf16"},
        }


CASES = [Case(*case) for case in itertools.product(range(4), UNIT, (1, 4))]
TOGETHER = [
    Case(0, "fp16", 1),
    Case(1, "fp32", 4),
    Case(2, "bf16", 1),
    Case(3, "fp16", 4),
]
every_case = pytest.mark.parametrize(
    ("world_size", "case"),
    [(1, case) for case in CASES] + [(2, case) for case in TOGETHER],
    ids=str,
)


def main(folder: pathlib.Path) -> None:
    """Records every case on this rank."""
    rank, world_size, _ = ranks.join()
    kernels.fp16_kernels(Experiment())
    for case in CASES if world_size == 1 else TOGETHER:
        train(case, rank, world_size, folder / f"{world_size}-{case}")
    ranks.shut_down()


def train(case: Case, rank: int, world_size: int, folder: pathlib.Path) -> None:
    """The loop of a user, in the context; its step OVERFLOW has infinite targets."""
    import deepspeed

    net = Net()
    named = dict(net.named_parameters())
    bias = [named[name] for name in TRAINED if name not in DECAYED]
    groups = [
        {"params": [named[name] for name in DECAYED], "weight_decay": DECAY},
        {"params": bias, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATES[0], betas=BETAS, eps=EPS)
    with kernels.quiet():
        engine, *_ = deepspeed.initialize(
            model=net, optimizer=optimizer, config=case.config(world_size)
        )
    dtype = precision.DTYPES[case.precision]
    size = ROWS // case.parts // world_size
    with watch.record(engine, folder, STEPS):
        for step, part in itertools.product(range(STEPS), range(case.parts)):
            for group in engine.optimizer.param_groups:
                group["lr"] = RATES[step]
            rows = slice((part * world_size + rank) * size, None)
            x = torch.from_numpy(X[step][rows][:size]).to(dtype)
            y = torch.from_numpy(Y[step][rows][:size])
            if case.precision == "fp16" and step == OVERFLOW:
                y = y * torch.inf
            output = engine(x, refined=step % 2 == 0)
            # Neither is a pass: nothing is trained on it.
            with torch.no_grad():
                engine(x, True)
            loss = ((output.float() - y.view(-1, 4)) ** 2).mean()
            engine.backward(loss)
            engine.step()
    assert "step" not in vars(engine)
    assert "backward" not in vars(engine)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where one rank, and then two, have recorded all cases."""
    folder = tmp_path_factory.mktemp("watch")
    for world_size in (1, 2):
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "LOCAL_SIZE": str(world_size),
            "WORLD_SIZE": str(world_size),
        }
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.torch_ref.watch.engine_test", folder],
                env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in map(str, range(world_size))
        ]
        outputs = [process.communicate()[0] for process in running]
        assert [p.returncode for p in running] == [0] * world_size, "\n".join(outputs)
    return folder


@pytest.fixture
def recorded(folder, world_size, case) -> Reader:
    return Reader(folder / f"{world_size}-{case}")


def float64(tensors: dict[str, np.ndarray], kind: str) -> dict[str, torch.Tensor]:
    """Returns recorded tensors of a kind."""
    found = select(tensors, kind)
    return {n: torch.from_numpy(a.astype(np.float64)) for n, a in found.items()}


def gradients(
    tensors: dict[str, np.ndarray], step: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """Returns the loss, and the gradients of what a step uses, in float64.

    They are those at the weights that the forward passes have read, by the recording,
    of the whole batch at once.
    """
    read = float64(tensors, "params") | float64(tensors, "forward")
    leaves = {name: weight.requires_grad_() for name, weight in read.items()}
    net = functools.partial(torch.func.functional_call, Net().double(), leaves)
    output = net((torch.from_numpy(X[step]).double(), step % 2 == 0))
    loss = ((output - torch.from_numpy(Y[step]).double()) ** 2).mean()
    used = TRAINED if step % 2 == 0 else TRAINED[:2]
    grads = torch.autograd.grad(loss, [leaves[name] for name in used])
    return loss.item(), dict(zip(used, grads))


def adamw(
    tensors: dict[str, np.ndarray], grads: dict[str, torch.Tensor], rate: float
) -> dict[str, dict[str, torch.Tensor]]:
    """Returns what AdamW makes in float64 of the recorded state before a step."""
    first, second = (
        float64(tensors, f"moments/{kind}") for kind in ("first", "second")
    )
    params, (b1, b2) = float64(tensors, "params"), BETAS
    count = int(tensors["optimizer_step"]) + 1
    for name, grad in grads.items():
        first[name] = b1 * first[name] + (1 - b1) * grad
        second[name] = b2 * second[name] + (1 - b2) * grad**2
        root = (second[name] / (1 - b2**count)).sqrt() + EPS
        decay = DECAY if name in DECAYED else 0.0
        moved = rate * first[name] / (1 - b1**count) / root
        params[name] = params[name] * (1 - rate * decay) - moved
    return {
        "updated": params,
        "updated_moments/first": first,
        "updated_moments/second": second,
    }


def missing(case: Case, before: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """What DeepSpeed takes for gradients that a step lacks: zeros, and at stage 3,
    which keeps its buffers, those of the last step that had them (MISMATCHES D21)."""
    shapes = dict(Net().named_parameters())
    found = {name: torch.zeros_like(shapes[name]).double() for name in TRAINED}
    for tensors in before if case.stage == 3 else []:
        found |= float64(tensors, "grads") if not tensors["skipped"] else {}
    return found


def assert_close(actual, wanted, bound: float) -> None:
    assert list(actual) == sorted(wanted)
    for name, value in wanted.items():
        assert actual[name].shape == value.shape, name
        # Of a number's own size, or of 1, where the terms of smaller ones may be.
        size = abs(value.numpy()).max(initial=1.0)
        assert abs(actual[name] - value.numpy()).max() <= bound * size, name


@every_case
class TestAgainstFloat64:
    """Step by step, each from what was recorded before it: no error adds up."""

    def test_gradients_and_losses(self, recorded, world_size, case):
        assert len(recorded) == STEPS
        bound = ROUNDINGS * UNIT[case.precision]
        for step in range(STEPS):
            tensors = recorded.read(step)
            skipped = case.precision == "fp16" and step == OVERFLOW
            assert bool(tensors["skipped"]) == skipped
            if not skipped:
                loss, grads = gradients(tensors, step)
                assert abs(tensors["loss"] - loss) <= bound * max(1, loss)
                assert_close(select(tensors, "grads"), grads, bound)

    def test_updates(self, recorded, world_size, case):
        """Float32 from end to end, and every parameter is counted alike."""
        before: list[dict[str, np.ndarray]] = []
        for step in range(STEPS):
            tensors = recorded.read(step)
            assert tensors["groups/0/lr"] == RATES[step] == tensors["learning_rate"]
            assert not select(tensors, "counters")
            for group, decay in enumerate((DECAY, 0.0)):
                held = select(tensors, f"groups/{group}")
                assert (held["eps"], held["weight_decay"]) == (EPS, decay)
                assert tuple(held["betas"]) == BETAS
            used = missing(case, before) | float64(tensors, "grads")
            if (case.stage, case.precision) == (0, "fp16"):
                # Divided by a scale that has not multiplied the loss (MISMATCHES D1).
                scale = float(tensors["loss_scale"])
                used = {name: grad / scale for name, grad in used.items()}
            used = {} if tensors["skipped"] else used
            for kind, wanted in adamw(tensors, used, RATES[step]).items():
                assert_close(select(tensors, kind), wanted, 4 * UNIT["fp32"])
            before.append(tensors)

    def test_state_goes_on(self, recorded, world_size, case):
        """A step begins where the one before has ended, the first as DeepSpeed makes
        it: without ZeRO, 16 bits begin with an update of zeros (MISMATCHES D2)."""
        names = [name for name, _ in Net().named_parameters()]
        first = recorded.read(0)
        decay = 1 - RATES[0] * DECAY if case.is_mixed_stage_0 else 1.0
        for name, param in Net().named_parameters():
            wanted = param.detach().numpy() * (decay if name in DECAYED else 1.0)
            np.testing.assert_array_equal(first[f"params/{name}"], wanted)
        for step in range(STEPS - 1):
            ended, begun = recorded.read(step), recorded.read(step + 1)
            for name in names:
                np.testing.assert_array_equal(
                    ended[f"updated/{name}"], begun[f"params/{name}"]
                )
            for kind, name in itertools.product(("first", "second"), TRAINED):
                np.testing.assert_array_equal(
                    ended[f"updated_moments/{kind}/{name}"],
                    begun[f"moments/{kind}/{name}"],
                )
            done = int(ended["optimizer_step"]) + (not ended["skipped"])
            assert begun["optimizer_step"] == done
        assert first["optimizer_step"] == case.is_mixed_stage_0

    def test_passes(self, recorded, world_size, case):
        """Microbatches, within them ranks: their rows follow each other."""
        number = case.parts * world_size
        assert recorded.meta["passes"] == number
        for step in range(STEPS):
            tensors = recorded.read(step)
            passes = [select(tensors, f"passes/{p}") for p in range(number)]
            rows = np.concatenate([one["inputs/x"].astype(float) for one in passes])
            np.testing.assert_array_equal(rows, X[step])
            for one in passes:
                assert bool(one["inputs/refined"]) == (step % 2 == 0)
                assert one["weight"] == np.float32(1 / number)
                assert "targets/1" not in one
            if case.precision == "fp16" and step == OVERFLOW:
                continue
            targets = np.concatenate([one["targets/0"] for one in passes])
            np.testing.assert_array_equal(targets, Y[step])

    def test_forward_weights(self, recorded, world_size, case):
        """The roundings of the masters, except for the first at stage 0 (D2)."""
        for step in range(STEPS):
            tensors = recorded.read(step)
            if case.precision == "fp32":
                assert not select(tensors, "forward")
                continue
            start = {n: p.detach().numpy() for n, p in Net().named_parameters()}
            early = case.is_mixed_stage_0 and step == 0
            masters = start if early else select(tensors, "params")
            for name, value in select(tensors, "forward").items():
                master = torch.from_numpy(masters[name])
                wanted = master.to(precision.DTYPES[case.precision]).float().numpy()
                np.testing.assert_array_equal(value.astype(np.float32), wanted)

    def test_activations(self, recorded, world_size, case):
        tensors = recorded.read(0)
        order = ["first", "tied", "branch", "frozen"]
        assert recorded.meta["order"]["activations"] == order
        assert list(select(tensors, "passes/0/activations")) == sorted(order)
        frozen = {n: p.detach().numpy() for n, p in Net().named_parameters()}
        branch = tensors["passes/0/activations/branch"]
        assert branch.dtype == np.float32
        assert "passes/0/activations/branch" not in recorded.read(1)
        np.testing.assert_array_equal(
            tensors["params/frozen.weight"], frozen["frozen.weight"]
        )

    def test_meta(self, recorded, world_size, case):
        meta = recorded.meta
        assert meta["precision"] == case.precision
        assert meta["zero_stage"] == case.stage
        assert meta["accumulation_steps"] == case.parts
        assert meta["world_size"] == world_size
        assert meta["optimizer"] == "AdamW"
        assert meta["trained"] == list(TRAINED)
        assert meta["frozen"] == ["frozen.weight", "frozen.bias"]
        assert meta["ties"] == {"tied.weight": "first.weight"}
        assert meta["groups"] == [list(DECAYED), ["first.bias", "branch.bias"]]
        assert meta["config"]["zero_optimization"]["stage"] == case.stage
        assert meta["absent"] == {}
        names = [name for name, _ in Net().named_parameters()]
        assert meta["order"]["params"] == names
        assert meta["stack"] == "deepspeed"


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
    ranks.leave(0)
