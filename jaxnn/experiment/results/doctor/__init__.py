"""What is wrong with a run, said in plain words with the figure that shows it.

    for finding in doctor.examine(evidence):
        print(finding)

A rule reads `Evidence` and returns findings. A named cause is a claim: each rule asks
for a figure that only that cause makes, and where two causes make it, the sentence
names both. A run without anything to say is not thereby a good one.
"""

from jaxnn.experiment.results.doctor import curves, ended, gradients, half, inputs
from jaxnn.experiment.results.doctor.evidence import Evidence
from jaxnn.experiment.results.doctor.finding import Finding


def examine(evidence: Evidence) -> list[Finding]:
    """Returns what is wrong with a run, what weighs most first."""
    # Whatever follows may come of these, and is then no cause of its own.
    found = [
        *ended.findings(evidence),
        *half.findings(evidence),
        *inputs.findings(evidence),
    ]
    for look in (
        gradients.findings,
        curves.rate_findings,
        curves.stuck_findings,
        curves.fit_findings,
    ):
        found = found or look(evidence)
    return found


def unseen(evidence: Evidence) -> list[str]:
    """Returns what could not be seen, and what would have shown it."""
    found = list(evidence.unseen)
    if evidence.diagnostics is None:
        found.append(
            "gradients, updates, dead units, activations and FP16 underflow by layer: "
            "train with --diagnose"
        )
    epochs = len(evidence.train_loss)
    if epochs < curves.FEWEST_EPOCHS:
        found.append(
            f"learning curves: {epochs} epochs are too few, "
            f"{curves.FEWEST_EPOCHS} needed"
        )
    return found
