"""The whole command on a network of one's own."""

import json
import pathlib

NET = pathlib.Path("launch/own/net.py")


def judged(run, tmp_path, *arguments):
    return run(
        "parity.run",
        "--flagfile=launch/own/net.flags",
        "--steps=3",
        f"--workdir={tmp_path / 'run'}",
        *arguments,
    )


class TestOwnModel:
    def test_stacks_agree(self, run, tmp_path):
        done = judged(run, tmp_path, "--precision=fp16", "--zero_stage=1")
        assert done.returncode == 0, done.stdout + done.stderr
        verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
        assert verdict["quantities"]["grads"]["compared"] == 3 * 10
        # Only the head is one layer in both.
        assert verdict["quantities"]["activations"]["compared"] == 3

    def test_a_network_that_is_not_the_same_is_found(self, run, tmp_path):
        text = NET.read_text()
        path = tmp_path / "net.py"
        path.write_text(text.replace("glu(layer(x))", "glu(layer(x), 1) * 1.01"))
        done = judged(run, tmp_path, "--precision=fp32", f"--model={path}:Net")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "torch: DIVERGENCE, first at step 0" in done.stdout
        assert "jax: parity" in done.stdout

    def test_torchs_half_is_looked_for_first(self, run, tmp_path):
        path = tmp_path / "net.py"
        path.write_text(NET.read_text().replace("class TorchNet", "class Other"))
        done = judged(run, tmp_path, f"--model={path}:Net")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"error: --model: {path} has no class TorchNet; it has Net, Other"
        ]
        assert not (tmp_path / "run").exists()
