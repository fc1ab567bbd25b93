"""Inputs whose columns differ in scale."""

from jaxnn.experiment.results.doctor.evidence import Evidence
from jaxnn.experiment.results.doctor.finding import Finding

UNEQUAL = 100.0
"""Largest over smallest spread of the columns from which on no rate suits both: the
curvature of a loss goes with the square of the spread."""


def findings(evidence: Evidence) -> list[Finding]:
    """Returns whether the inputs of a table want scaling."""
    columns = evidence.facts.columns if evidence.facts else ()
    varied = [column for column in columns if column.spread > 0]
    if evidence.experiment.preprocess != "none" or len(varied) < 2:
        return []
    wide = max(varied, key=lambda column: column.spread)
    narrow = min(varied, key=lambda column: column.spread)
    if wide.spread < UNEQUAL * narrow.spread:
        return []
    return [
        Finding(
            "inputs not scaled",
            f"the column {wide.name!r} has a deviation of {wide.spread:.3g}, "
            f"{narrow.name!r} one of {narrow.spread:.3g}; try "
            "--preprocess=standardize",
        )
    ]
