"""The oracle is independent: it imports no library of either stack.

Of jaxnn it imports jaxnn.experiment alone, which both stacks share. What draws a graph
computes nothing, and is imported when it is asked to.
"""

import pathlib
import subprocess
import sys

ALLOWED = {"absl", "numpy", "safetensors", "jaxnn", "parity"}
MODULES = sorted(
    ".".join(path.with_suffix("").parts)
    for path in pathlib.Path("parity/oracle").rglob("*.py")
    if path.stem != "graph_drawing"
)


def test_numpy_and_the_shared_part_alone():
    code = f"import sys\nfor name in {MODULES}: __import__(name)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert (
        loaded
        & {
            "jax",
            "flax",
            "optax",
            "torch",
            "deepspeed",
            "scipy",
            "sklearn",
            "matplotlib",
        }
        == set()
    )
    ours = {name for name in loaded if name.startswith(("jaxnn.", "parity."))}
    assert all(name.startswith(("jaxnn.experiment", "parity.oracle")) for name in ours)
    assert "parity.oracle.backpropagation" in ours
