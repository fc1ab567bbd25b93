"""Tests of parity/own/judge_port.py: whole programs in torch against their ports.

Recordings in float32 of two steps of AdamW. A fault is judged by the same compiled port
as the honest program: only the recording differs.
"""

import pytest

from jaxnn.experiment.files.trace import Reader
from parity.judging.measure import THRESHOLD
from parity.judging.verdict import Verdict
from parity.own import judge_port as judge_port_module
from parity.own.environment import of_a_port
from parity.own.judge_port import judge_port
from parity.own.port import Port
from parity.own.recording import Ported
from tests.parity.own import recorded

FAULTS = {  # program -> fault, quantities that show it, where it shows first
    "nnx_mlp": ("norm_epsilon", "activations", "norm"),
    "mlp_function": ("gelu", "loss", ""),
    "gpt2_dropout": ("norm_epsilon", "activations", "h_0/ln_1"),
    "resnet": ("norm_momentum", "batch_stats", None),
    "llama_tied": ("attention_scale", "activations", "layers_0/self_attn/o_proj"),
}
SMALL = ("nnx_mlp", "mlp_function")


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
        sound = self.port.ported
        self.port.ported = Ported(Reader(folder), self.port.converted)
        self.port.shapes.cache_clear()
        try:
            return self.verdict()
        finally:
            self.port.ported = sound
            self.port.shapes.cache_clear()


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
        expected |= {"batch_stats"} if judged.name == "resnet" else set()
        assert all(compared[quantity]["compared"] for quantity in expected)

    def test_a_fault_is_located(self, judged, monkeypatch):
        if judged.name not in SMALL:  # whose kinks are quick to look for
            monkeypatch.setattr(judge_port_module, "THOROUGH", (2, 5))
        fault, quantity, tensor = FAULTS[judged.name]
        verdict = judged.of_faulty(fault)
        first = verdict.first_divergence
        assert first is not None
        assert (first.quantity, first.tensor) == (quantity, tensor or first.tensor)
        failed = {n for n, q in verdict.quantities.items() if q.worst.z > THRESHOLD}
        assert not failed & {"updated", "moments"}, "the optimizer is innocent"
        assert tensor is not None or failed == {quantity}
