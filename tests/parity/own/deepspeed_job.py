"""Records real models under DeepSpeed, one after the other in one process.

python -m tests.parity.own.deepspeed_job FOLDER NAME:STAGE:PRECISION[:FAULT] ...
"""

import contextlib
import os
import pathlib
import sys
from types import ModuleType
from typing import Any

from deepspeed.accelerator import get_accelerator

from jaxnn.experiment.ports import free_port
from parity import own
from tests.parity.own import recorded
from tests.parity.own.ports.running import torch_inputs
from tests.parity.own.ports.weights import seeded

CLIP, PARTS = 1.0, 2
STEPS, FAULTY_STEPS = 10, 2
ENABLED = {
    "fp16": {"fp16": {"enabled": True}},
    "bf16": {"bf16": {"enabled": True}},
    "fp32": {},
}


def config(stage: int, precision: str) -> dict:
    """Returns DeepSpeed's configuration; the loss scale begins at its default, 2^16."""
    adam = {"lr": recorded.RATE, "weight_decay": recorded.DECAY}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": PARTS,
        "zero_optimization": {"stage": stage},
        "gradient_clipping": CLIP,
        "optimizer": {"type": "AdamW", "params": adam},
    } | ENABLED[precision]


def record(folder: pathlib.Path, case: str) -> None:
    """Trains one model, perhaps a faulty one, and records it into FOLDER/CASE."""
    import deepspeed

    name, stage, precision, *faults = case.split(":")
    program = recorded.port(name)
    model = program.torch_model(0).train()
    with contextlib.ExitStack() as planted:
        for fault in faults:
            planted.enter_context(program.FAULTS[fault].plant(model))
        settings = config(int(stage), precision)
        engine, *_ = deepspeed.initialize(model=model, config=settings)
        steps = FAULTY_STEPS if faults else STEPS
        with seeded(0), own.record(engine, folder / case, steps=steps):
            train(program, engine, steps * PARTS)


def train(program: ModuleType, engine: Any, count: int) -> None:
    """Trains on `count` batches."""
    dtype = next(engine.module.parameters()).dtype
    for number in range(count):
        inputs = torch_inputs(program, dtype, number)
        engine.backward(program.training_loss(engine, inputs, number))
        engine.step()


def main() -> None:
    """Records every case that the command line names."""
    folder, *cases = sys.argv[1:]
    alone = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ |= alone | {"MASTER_PORT": str(free_port())}
    # DeepSpeed asks once; torch computes FP16 in software where it must.
    get_accelerator().is_fp16_supported = lambda: True
    own.prepare_deepspeed()
    with contextlib.redirect_stdout(sys.stderr):
        for case in cases:
            record(pathlib.Path(folder), case)


if __name__ == "__main__":
    main()
