"""Settings for every test: strict dtypes and ranks in JAX, which FP16 kernels this CPU
has, who runs what and when."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

# Tests run side by side: more threads than cores would spin against each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest
import torch

from jaxnn.experiment.data.cache import cache_folder
from tests import sharing

# A shell starts its background jobs with Ctrl-C ignored, and so would we our own.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Most of the time goes into compiling: what took a while is kept where jaxnn.train
# keeps its own.
jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

NATIVE_FP16 = bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
needs_native_fp16 = pytest.mark.skipif(
    not NATIVE_FP16,
    reason=(
        "this CPU has no FP16 instructions (AVX512-FP16 or AMX-FP16); FP16 ran in "
        "software instead"
    ),
)


def pytest_report_header() -> str:
    return (
        "FP16 on this CPU: "
        f"{'native' if NATIVE_FP16 else 'software, tests of native FP16 are skipped'}"
    )


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which may be switched off
def pytest_xdist_make_scheduler(config, log) -> sharing.Sharing:
    config.option.loadscopereorder = False  # by the number of tests
    return sharing.Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: sharing.rank(item.nodeid))


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess]:
    """run("jaxnn.train", "--epochs=2", ...): the module in a process of its own, output
    captured."""

    def start(module: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            capture_output=True,
            text=True,
        )

    return start
