"""matplotlib imported without documentation draws the same."""

import subprocess
import sys

DRAW = """
import hashlib, io
from jaxnn.experiment.results import quick_matplotlib
{opened}
    from jaxnn.experiment.results.plots import canvas
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
figure, axes = canvas.new((4, 3))
axes.plot([1, 2, 4], label="line")
axes.set(title="title", xlabel="x")
axes.legend()
file = io.BytesIO()
figure.savefig(file, format="png", metadata={{"Software": None}})
print(hashlib.sha256(file.getvalue()).hexdigest())
print("linewidth" in (Line2D.set.__doc__ or ""))
"""


def drawn(opened: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", DRAW.format(opened=opened)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_same_picture_without_the_documentation():
    plain, quick = drawn("if True:"), drawn("with quick_matplotlib.undocumented():")
    assert plain[0] == quick[0]
    assert (plain[1], quick[1]) == ("True", "False")
