"""Real models under DeepSpeed, judged by their flax ports."""

import subprocess
import sys

import numpy as np
import optax
import pytest

from jaxnn.experiment.files.trace import Reader
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.port import Port
from tests.parity.own import recorded
from tests.parity.own.deepspeed_job import CLIP

STEPS = 3
# Every model, every stage that trains right, both 16-bit formats. DeepSpeed keeps the
# buffers of a batch norm in float32, beside which torch has no 16-bit kernel on a CPU.
CASES = (
    "gpt2:1:fp16",
    "bert:2:fp16",
    "llama:3:fp16",
    "llama_tied:1:bf16",
    "gpt2_dropout:3:bf16",
    "resnet:2:fp32",
)


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deepspeed")
    job = [sys.executable, "-m", "tests.parity.own.deepspeed_job"]
    done = subprocess.run(
        [*job, str(folder), str(STEPS), *CASES], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def optimizer():
    """Returns optax's equal of FusedAdam, which holds its betas in float32."""
    betas = (float(np.float32(beta)) for beta in (0.9, 0.999))
    adam = optax.adamw(recorded.RATE, *betas, weight_decay=recorded.DECAY)
    return optax.chain(optax.clip_by_global_norm(CLIP), adam)


def judged(trace, name):
    program = recorded.port(name)
    convert = recorded.converter(program)
    with of_a_port():
        port = Port(Reader(trace), program.model, program.loss, optimizer(), convert)
        return judgement(port, 8.0)


@pytest.mark.parametrize("case", CASES)
def test_is_at_parity(traces, case):
    found = judged(traces / case, case.split(":")[0])
    first = found.verdict.first_divergence
    assert found.verdict.is_parity, (first, found.explanations)
    assert found.verdict.quantities["grads"].compared
    assert found.verdict.quantities["updated"].compared
