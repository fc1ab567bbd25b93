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
    """Returns why the run ended; nothing if it did not end by an error."""
    error = evidence.error
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
