"""Tests of parity/own/judge_port.py: whole programs in torch against their ports.

Recordings in float32 of two steps of AdamW. A fault is judged by the same compiled port
as the honest program: only the recording differs. Real models are in deepspeed_test.py.
"""

import pytest

from jaxnn.experiment.files.trace import Reader
from parity.judging.measure import THRESHOLD
from parity.judging.verdict import Verdict
from parity.own.environment import of_a_port
from parity.own.judge_port import judge_port
from parity.own.port import Port
from tests.parity.own import recorded

FAULTS = {  # program -> fault, quantity that shows it, where it shows first
    "nnx_mlp": ("norm_epsilon", "activations", "norm"),
    "mlp_function": ("gelu", "loss", ""),
}


class Judged:
    """A program's recordings, judged by one compiled port."""

    def __init__(self, name: str, folder):
        self.name, self.folder = name, folder
        self.port = self.laid_beside(Reader(recorded.record(name, folder / "sound")))

    def laid_beside(self, trace: Reader) -> Port:
        program = recorded.port(self.name)
        with of_a_port():
            return Port(
                trace,
                program.model,
                program.loss,
                recorded.optimizer(),
                recorded.converter(program),
            )

    def verdict(self) -> Verdict:
        with of_a_port():
            return judge_port(self.port, THRESHOLD)[1]

    def of_faulty(self, fault: str) -> Verdict:
        """Judges one step of a faulty program."""
        folder = recorded.record(self.name, self.folder / "faulty", fault, steps=1)
        with of_a_port():
            faulty = recorded.beside(self.port, Reader(folder))
            return judge_port(faulty, THRESHOLD)[1]


@pytest.fixture(scope="module", params=FAULTS)
def judged(request, tmp_path_factory) -> Judged:
    return Judged(request.param, tmp_path_factory.mktemp("own"))


class TestJudgePort:
    def test_a_faithful_port_is_at_parity(self, judged):
        verdict = judged.verdict()
        assert verdict.is_parity, verdict.first_divergence
        compared = verdict.as_json()["quantities"]
        expected = {"loss", "grads", "moments", "updated"}
        expected |= {"activations"} if judged.port.modules else set()
        assert all(compared[quantity]["compared"] for quantity in expected)

    def test_a_fault_is_located(self, judged):
        fault, quantity, tensor = FAULTS[judged.name]
        verdict = judged.of_faulty(fault)
        first = verdict.first_divergence
        assert first is not None
        assert (first.quantity, first.tensor) == (quantity, tensor)
        failed = {n for n, q in verdict.quantities.items() if q.worst.z > THRESHOLD}
        assert not failed & {"updated", "moments"}, "the optimizer is innocent"
