"""Runs that ended before their time."""

import re

from jaxnn.experiment.results.doctor.evidence import Evidence
from jaxnn.experiment.results.doctor.finding import Finding

MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED|MemoryError|out of memory|not enough memory|can't allocate",
    re.IGNORECASE,
)
NOT_FINITE = re.compile(r"is not finite|is (nan|inf|-inf); training diverged")
OVERFLOW = re.compile(r"overflows at the smallest loss scale|--static_loss_scale: at")


def findings(evidence: Evidence) -> list[Finding]:
    """Returns why the run ended; nothing if it came to its end, or goes on."""
    error = evidence.error
    if evidence.is_cut_off:
        return [_cut_off(evidence)]
    if not error:
        return []
    if MEMORY.search(error):
        experiment = evidence.experiment
        return [
            Finding(
                "out of memory",
                f"the run ended with: {error[:200]}; lower "
                f"--batch_size={experiment.batch_size}, or cut a batch into parts by "
                "--accumulation_steps",
            )
        ]
    if OVERFLOW.search(error):
        return [Finding("FP16 overflow", error)]
    if NOT_FINITE.search(error):
        return [Finding("diverging", f"the run ended at {error}")]
    return [Finding("ended early", error)]


def _cut_off(evidence: Evidence) -> Finding:
    """What a kernel kills leaves no word, like what somebody kills."""
    experiment = evidence.experiment
    epochs = len(evidence.train_loss)
    return Finding(
        "stopped or killed",
        f"the run ended after {epochs} of {experiment.epochs} epochs with neither "
        "results nor an error: a signal stopped it, and --resume goes on; or it was "
        "killed, as a kernel short of memory does (dmesg then says so): lower "
        f"--batch_size={experiment.batch_size} or raise --accumulation_steps",
    )
