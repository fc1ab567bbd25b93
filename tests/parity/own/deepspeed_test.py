"""Real models under DeepSpeed, judged by their flax ports: right ones are at parity at
every stage, faulty ones are caught at the right place, and no cause is a wrong one.

DeepSpeed's own loss scale, accumulation and clipping; one process records all of it,
and the recordings of a model are judged by one compiled port.
"""

import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from jaxnn import optimizers
from jaxnn.experiment.files.trace import Reader
from parity.judging.measure import THRESHOLD
from parity.own import judge_port
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.port import Port
from parity.own.recording import Ported
from tests.parity.own import recorded
from tests.parity.own.deepspeed_job import CLIP, FAULTY_STEPS, STEPS

TRANSFORMERS = ("gpt2_dropout", "bert", "llama", "llama_tied")
# DeepSpeed keeps the statistics of a batch norm in float32, beside which torch has no
# 16-bit kernel on a CPU. Under autocast in bfloat16 this small network loses its digits
# (an eighth of a gradient is rounding), which the judge refuses.
JUDGED = (
    *(f"{name}:{stage}:fp16" for name in TRANSFORMERS for stage in (1, 2, 3)),
    *(f"{name}:3:bf16" for name in TRANSFORMERS),
    *(f"resnet:{stage}:fp32" for stage in (1, 2, 3)),
)
ATTENTION = {
    "gpt2_dropout": "h_0/attn/c_proj",
    "bert": "layer_0/attention/out",
    "llama": "layers_0/self_attn/o_proj",
    "llama_tied": "layers_0/self_attn/o_proj",
}
LOST = "lost_gradient_path"
# Recording -> quantity and tensor that fail first, and the cause that is named. What a
# port computes in code of its own has none: no name is better than a wrong one.
FAULTS = {
    "gpt2_dropout:1:fp32:norm_epsilon": ("activations", "h_0/ln_1", "norm_epsilon"),
    "gpt2_dropout:1:fp32:erf_gelu": ("activations", "h_0/mlp/c_proj", None),
    "gpt2_dropout:1:fp16:attention_scale": (
        "activations",
        ATTENTION["gpt2_dropout"],
        None,
    ),
    "gpt2_dropout:1:fp16:positions_from_one": ("activations", "wpe", None),
    "gpt2_dropout:1:fp32:soft_cap": ("loss", "", None),
    "gpt2_dropout:1:fp16:detached_head": ("grads", "wte/embedding", LOST),
    "bert:1:fp32:tanh_gelu": ("activations", "layer_0/down", "gelu_form"),
    "bert:3:bf16:attention_scale": ("activations", ATTENTION["bert"], None),
    "bert:3:bf16:padding_seen": ("activations", ATTENTION["bert"], None),
    "bert:1:fp32:decoder_bias": ("loss", "", None),
    "llama:1:fp32:norm_epsilon": (
        "activations",
        "layers_0/input_layernorm",
        "norm_epsilon",
    ),
    "llama:1:fp16:interleaved_rotation": ("activations", ATTENTION["llama"], None),
    "llama:3:fp16:tiled_groups": ("activations", ATTENTION["llama"], None),
    "llama:1:fp16:attention_scale": ("activations", ATTENTION["llama"], None),
    "llama:3:bf16:rounded_embedding_scale": ("activations", "embed_tokens", None),
    "llama_tied:1:fp16:interleaved_rotation": (
        "activations",
        ATTENTION["llama_tied"],
        None,
    ),
    "llama_tied:3:bf16:rounded_embedding_scale": ("activations", "embed_tokens", None),
    "llama_tied:3:fp16:attention_scale": ("activations", ATTENTION["llama_tied"], None),
    "llama_tied:1:fp16:detached_head": ("grads", "embed_tokens/embedding", LOST),
    "resnet:1:fp32:norm_epsilon": ("activations", "bn1", "norm_epsilon"),
    "resnet:1:fp32:norm_momentum": ("batch_stats", None, "norm_momentum"),
    "resnet:1:fp32:relu6": ("activations", "stages_1/conv1", None),
    "resnet:1:fp32:uneven_padding": ("activations", "stages_1/conv1", None),
    "resnet:1:fp32:sum_pooling": ("activations", "fc", None),
}


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deepspeed")
    job = [sys.executable, "-m", "tests.parity.own.deepspeed_job", str(folder)]
    done = subprocess.run([*job, *JUDGED, *FAULTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def judged(traces):
    """Returns (recording, mask) -> its judgement, by a port compiled once a program."""
    ports = {}

    def judge(case, mask=None):
        name = case.split(":")[0]
        trace = Reader(traces / case)
        with of_a_port():
            if name not in ports:
                ports[name] = port_of(name, trace)
            port = recorded.beside(ports[name], trace)
            port.optimizer = optimizer(mask)
            return judgement(port, THRESHOLD)

    return judge


def port_of(name, trace):
    program = recorded.port(name)
    convert = recorded.converter(program)
    return Port(trace, program.model, program.loss, optimizer(), convert)


def optimizer(mask=None):
    """Returns the equal of DeepSpeed's clipping and of its Adam with float32 betas.

    Args:
      mask: of what decays.
    """
    betas = (float(np.float32(beta)) for beta in (0.9, 0.999))
    adam = optax.adamw(recorded.RATE, *betas, weight_decay=recorded.DECAY, mask=mask)
    clip = optax.stateless(lambda grads, params: optimizers.clip(grads, CLIP))
    return optax.chain(clip, adam)


@pytest.mark.parametrize("case", JUDGED)
def test_is_at_parity(judged, case):
    verdict = judged(case).verdict
    assert verdict.is_parity, verdict.first_divergence
    assert verdict.steps == STEPS
    compared = {"activations", "loss", "grads", "updated", "moments"}
    compared |= {"batch_stats"} if case.startswith("resnet") else set()
    assert all(verdict.quantities[quantity].compared for quantity in compared)


def test_half_a_loss_overflows_at_the_default_scale(traces):
    """BERT's loss is float16, into which the whole of 2^16 does not fit."""
    trace = Reader(traces / "bert:1:fp16")
    skipped = [bool(trace.read(number)["skipped"]) for number in range(STEPS)]
    assert skipped == [True, True] + [False] * (STEPS - 2)


@pytest.fixture
def quickly(monkeypatch):
    """Kinks are looked for at length elsewhere; here nothing that fails is close."""
    monkeypatch.setattr(judge_port, "THOROUGH", (2, 5))


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.usefixtures("quickly")
def test_a_fault_is_caught_where_it_is(judged, case):
    quantity, tensor, cause = FAULTS[case]
    found = judged(case)
    first = found.verdict.first_divergence
    assert first is not None
    assert (first.step, first.quantity) == (0, quantity)
    assert first.tensor == tensor or tensor is None
    failed = {n for n, q in found.verdict.quantities.items() if q.worst.z > THRESHOLD}
    assert not failed & {"updated", "moments"}, "the optimizer is innocent"
    assert [e.label for e in found.explanations] == ([cause] if cause else [])
    assert all(e.explains for e in found.explanations)


@pytest.mark.parametrize("case", ["gpt2_dropout:3:fp16", "resnet:1:fp32"])
@pytest.mark.usefixtures("quickly")
def test_decay_that_a_port_leaves_out_is_named(judged, case, monkeypatch):
    monkeypatch.setattr(Ported, "__len__", lambda ported: FAULTY_STEPS)

    def matrices(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    found = judged(case, matrices)
    assert found.verdict.first_divergence.quantity == "updated"
    (best,) = found.explanations
    assert (best.label, best.explains) == ("decay", True)
    assert "bias" in best.text
    assert "kernel" not in best.text
