"""Standard streams that are closed, cut off or interrupted, as a shell leaves them."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from jaxnn.experiment.flags import command_line
def main(values):
    {body}
command_line.run_tool(main, "A program.", lambda values: None)
"""


def shell(body, redirection):
    program = PROGRAM.format(body=body)
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirection}', sys.executable]
        + [program],
        capture_output=True,
        text=True,
    )


class TestFlush:
    @pytest.mark.parametrize("lines", [1, 100_000])
    def test_a_pipe_that_nobody_reads_is_no_traceback(self, lines):
        done = shell(f"print('line\\n' * {lines})", "| true")
        assert (done.returncode, done.stderr) in ((141, ""), (0, ""))

    def test_the_end_is_cut_off(self):
        done = shell("print('line\\n' * 100_000)", "| head -1")
        assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")


class TestOpenClosedStreams:
    @pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", ">&- 2>&- <&-"])
    def test_a_file_is_not_taken_for_stdout(self, tmp_path, closed):
        path = tmp_path / "file"
        body = f"file = open('{path}', 'w'); print('lost'); file.write('kept')"
        assert shell(body, closed).returncode == 0
        assert path.read_text() == "kept"


class TestSayInterrupted:
    def test_while_it_imports(self, tmp_path):
        (tmp_path / "slow").mkdir()
        (tmp_path / "slow" / "__init__.py").write_text(
            "from jaxnn.experiment import console\n"
            "console.say_interrupted_while_importing()\n"
            "print('here', flush=True)\n"
            "import time; time.sleep(60)\n"
        )
        (tmp_path / "slow" / "__main__.py").touch()
        process = subprocess.Popen(
            [sys.executable, "-m", "slow"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{tmp_path}:."},
        )
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert (process.returncode, said) == (-signal.SIGINT, "interrupted\n")
