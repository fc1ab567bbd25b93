"""What a script may do before it calls DeepSpeed."""

import os

from torch_ref import kernels


def prepare_deepspeed() -> None:
    """Announces DeepSpeed's compilations, and removes the lock of a killed one.

    To be called before `deepspeed.initialize`, which compiles without a word. Optional.
    """
    kernels.prepare_compilation(int(os.environ.get("WORLD_SIZE", "1")))
