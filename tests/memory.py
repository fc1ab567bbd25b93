"""How much memory a training takes."""

import re
import subprocess
import sys
import time

INTERVAL = 0.02
"""Seconds between looks: to look all the time would take a core away."""


def anonymous_peak(*flags: str) -> int:
    """The most bytes that a run of jaxnn.train held at once beside mapped files."""
    command, peak = [sys.executable, "-m", "jaxnn.train", *flags], 0
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None:
            peak = max(peak, _anonymous(running.pid))
            time.sleep(INTERVAL)
        assert running.returncode == 0, running.communicate()[1]
    return peak


def _anonymous(process: int) -> int:
    """RssAnon of a process, 0 once it has ended (Linux, proc(5))."""
    try:
        with open(f"/proc/{process}/status") as status:
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read())
    except ProcessLookupError:
        return 0
    return int(found[1]) * 2**10 if found else 0
