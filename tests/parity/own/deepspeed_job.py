"""Records real models under DeepSpeed, one after the other in one process.

python -m tests.parity.own.deepspeed_job FOLDER STEPS NAME:STAGE:PRECISION ...
"""

import contextlib
import os
import pathlib
import sys

from deepspeed.accelerator import get_accelerator

from jaxnn.experiment.ports import free_port
from parity import own
from tests.parity.own import recorded
from tests.parity.own.ports.running import torch_inputs
from tests.parity.own.ports.weights import seeded

CLIP = 1.0


def config(stage: int, precision: str) -> dict:
    """Returns DeepSpeed's configuration; the scale is one that no step overflows."""
    options = {"initial_scale_power": 10} if precision == "fp16" else {}
    adam = {"lr": recorded.RATE, "weight_decay": recorded.DECAY}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage},
        "gradient_clipping": CLIP,
        "optimizer": {"type": "AdamW", "params": adam},
        precision: {"enabled": True, **options},
    }


def record(folder: pathlib.Path, steps: int, case: str) -> None:
    """Trains one model and records it into FOLDER/CASE."""
    import deepspeed

    name, stage, precision = case.split(":")
    program = recorded.port(name)
    model = program.torch_model(0).train()
    engine, *_ = deepspeed.initialize(model=model, config=config(int(stage), precision))
    dtype = next(engine.module.parameters()).dtype
    with seeded(0), own.record(engine, folder / case, steps=steps):
        for step in range(steps):
            inputs = torch_inputs(program, dtype, step)
            engine.backward(program.training_loss(engine, inputs, step))
            engine.step()


def main() -> None:
    """Records every case that the command line names."""
    folder, steps, *cases = sys.argv[1:]
    alone = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ |= alone | {"MASTER_PORT": str(free_port())}
    # DeepSpeed asks once; torch computes FP16 in software where it must.
    get_accelerator().is_fp16_supported = lambda: True
    own.prepare_deepspeed()
    with contextlib.redirect_stdout(sys.stderr):
        for case in cases:
            record(pathlib.Path(folder), int(steps), case)


if __name__ == "__main__":
    main()
