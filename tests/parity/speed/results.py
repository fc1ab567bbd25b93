"""Results as `measuring.measure` returns them, made up."""

from collections.abc import Sequence

from parity.speed.competitors import BEST, DEEPSPEED, EAGER, JAXNN, Competitor
from parity.speed.measuring import Result, Run

MEBIBYTE = 2**20


def result(
    kind: str,
    label: str,
    training: Sequence[float],
    wall: float = 10,
    memory: int = 300,
) -> Result:
    runs = tuple(
        Run(wall, seconds, 100 / seconds, memory * MEBIBYTE, 0.5, steps=10)
        for seconds in training
    )
    return Result(Competitor(kind, label, (), {}), runs)


def failed(kind: str, label: str, why: str) -> Result:
    return Result(Competitor(kind, label, (), {}), (), why)


RESULTS = [
    result(JAXNN, "jaxnn", [1.0, 2.0, 9.0], wall=5),
    failed(DEEPSPEED, "DeepSpeed", "No module named 'deepspeed'"),
    result(EAGER, "eager PyTorch", [8.0, 8.0, 8.0], wall=4, memory=400),
    result(BEST, "eager, 1 thread", [3.0, 3.0, 3.0], wall=6),
    result(BEST, "compiled, 1 thread", [2.5, 1.0, 9.0], wall=30),
    failed(BEST, "compiled, 2 threads", "--variant: torch.compile fails"),
]
