"""`python -m parity.compare A B` on recordings of jaxnn.train, one of them with a fault
written into its flags."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from jaxnn import train
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import command_line
from parity import compare

STEPS = 3


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Two runs of one experiment, one whose Adam has another eps, one of other data."""
    found = {}
    for name, more in (
        ("first", ()),
        ("second", ()),
        ("eps", ("--adam_eps=1e-4",)),
        ("scaled", ("--preprocess=min_max",)),
    ):
        folder = tmp_path_factory.mktemp(name)
        experiment, _ = command_line.parse(
            [
                "",
                "--flagfile=launch/experiments/breast_cancer.flags",
                "--noplots",
                "--record=full",
                f"--record_steps={STEPS}",
                f"--max_steps={STEPS}",
                f"--workdir={folder}",
                "--overwrite",
                *more,
            ],
            "fp32",
        )
        train.main(experiment)
        found[name] = folder / "trace"
    return found


def edited_meta(trace, folder, **changes):
    shutil.copytree(trace, folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))
    return folder


def second_part(trace, folder):
    """As a run that was resumed after one step would leave it."""
    later = edited_meta(trace, folder, first_step=1)
    for number in range(1, STEPS):
        (later / f"step_{number:06d}.safetensors").rename(
            later / f"step_{number - 1:06d}.safetensors"
        )
    return later


class TestMain:
    def test_two_runs_of_one_experiment_are_at_parity(self, traces, capsys):
        assert compare.main([str(traces["first"]), str(traces["second"])], 8.0) == 0
        said = capsys.readouterr().out
        assert "first: parity" in said
        assert "second: parity" in said

    def test_a_trace_that_does_not_do_what_its_flags_say(
        self, traces, tmp_path, capsys
    ):
        liar = edited_meta(
            traces["eps"],
            tmp_path / "liar",
            flags=Reader(traces["first"]).meta["flags"],
        )
        assert compare.main([str(traces["first"]), str(liar)], 8.0) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "second: DIVERGENCE, first at step 0" in said
        assert "the oracle (NumPy, float64) sides with the replay" in said

    def test_a_trace_of_other_data(self, traces, tmp_path, capsys):
        liar = edited_meta(
            traces["scaled"],
            tmp_path / "liar",
            flags=Reader(traces["first"]).meta["flags"],
        )
        assert compare.main([str(traces["first"]), str(liar)], 8.0) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "first: parity" in said
        assert (
            "second: DIVERGENCE, first at step 0 (inputs), z unequal of 8 allowed: the "
            "inputs differ: column " in said
        )
        assert "second: part of it is inputs: " in said

    def test_a_trace_older_than_digests(self, traces, tmp_path, capsys):
        older = edited_meta(traces["second"], tmp_path / "older")
        for path in older.glob("step_*.safetensors"):
            step = artifacts.read_arrays(path, "")
            kept = {k: x for k, x in step.items() if k[:6] != "batch/" or "ids" in k}
            assert len(step) == len(kept) + 6
            artifacts.write_arrays(path, kept)
        assert compare.main([str(traces["first"]), str(older)], 8.0) == 0
        assert "second: parity" in capsys.readouterr().out

    def test_refuses_other_flags(self, traces):
        with pytest.raises(
            UserError, match=r"eps.* has --adam_eps=0\.0001, .* has not"
        ):
            compare.main([str(traces["first"]), str(traces["eps"])], 8.0)

    def test_refuses_another_length(self, traces, tmp_path):
        shorter = tmp_path / "shorter"
        shutil.copytree(traces["first"], shorter)
        (shorter / f"step_{STEPS - 1:06d}.safetensors").unlink()
        with pytest.raises(
            UserError, match=r"holds 3 steps, .* 2; record as many of both"
        ):
            compare.main([str(traces["first"]), str(shorter)], 8.0)

    @pytest.mark.parametrize("swapped", [False, True])
    def test_a_resumed_run_is_judged_from_where_it_begins(
        self, traces, tmp_path, capsys, swapped
    ):
        names = [
            str(traces["second"]),
            str(second_part(traces["first"], tmp_path / "later")),
        ][:: -1 if swapped else 1]
        assert compare.main(names, 8.0) == 0
        assert capsys.readouterr().out.count(": parity") == 2

    def test_a_resumed_run_that_begins_elsewhere(self, traces, tmp_path, capsys):
        """One bias by an ulp."""
        later = second_part(traces["first"], tmp_path / "later")
        step = artifacts.read_arrays(later / "step_000000.safetensors", "")
        step["params/output/bias"] = np.nextafter(
            step["params/output/bias"], np.float32(np.inf)
        )
        artifacts.write_arrays(later / "step_000000.safetensors", step)
        assert compare.main([str(traces["second"]), str(later)], 8.0) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "first: parity" in said
        assert (
            "second: DIVERGENCE, first at step 1 params/output/bias (state before)"
            in said
        )

    def test_refuses_a_resumed_run_of_another(self, traces, tmp_path):
        later = edited_meta(traces["first"], tmp_path / "later", first_step=15)
        for names in (
            (traces["first"], later),
            (later, traces["first"]),
            (later, later),
        ):
            with pytest.raises(
                UserError,
                match=r"later begins at step 15 of a resumed run, and .* does not hold "
                "the",
            ):
                compare.main([*map(str, names)], 8.0)

    def test_refuses_a_trace_without_flags(self, traces, tmp_path):
        bare = edited_meta(traces["first"], tmp_path / "bare", flags=[])
        with pytest.raises(UserError, match=r"bare/meta\.json has no flags"):
            compare.main([str(bare), str(traces["first"])], 8.0)

    def test_refuses_flags_that_are_not_its_own(self, traces, tmp_path):
        strange = edited_meta(
            traces["first"], tmp_path / "strange", flags=["--model=mamba"]
        )
        with pytest.raises(UserError, match=r"strange/meta\.json: "):
            compare.main([str(strange), str(strange)], 8.0)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (dict(flags=[1]), "flags are not lines of a flagfile"),
            (dict(first_step="a"), "first_step is 'a', not a number of steps"),
            (dict(first_step=-1), "first_step is -1, not a number of steps"),
            (dict(world_size=0), "world_size is 0, not a number of ranks"),
            (dict(world_size=True), "world_size is True, not a number of ranks"),
            (dict(world_size=3), "world_size 3 does not divide --batch_size=32"),
            (dict(precision="fp7"), "precision is 'fp7', and --precision=fp32"),
            (dict(order={"params": [1], "activations": []}), "order lacks the names"),
        ],
    )
    def test_refuses_a_meta_that_lies(self, traces, tmp_path, change, said):
        liar = edited_meta(traces["second"], tmp_path / "liar", **change)
        for names in ((traces["first"], liar), (liar, traces["first"])):
            with pytest.raises(UserError, match=rf"liar/meta\.json: {said}"):
                compare.main([*map(str, names)], 8.0)

    @pytest.mark.parametrize(
        ("name", "change", "said"),
        [
            ("params/output/bias", None, "params/output/bias is missing, (1,)"),
            ("grads/output/bias", None, "grads/output/bias is missing, (1,)"),
            (
                "updated_moments/first/output/bias",
                lambda array: array[None],
                "updated_moments/first/output/bias is (1, 1), (1,) in the network",
            ),
            ("loss", None, "loss is missing, not one number"),
            ("skipped", lambda skipped: np.int32(1), "skipped is int32 ()"),
            ("batch/ids", None, "batch/ids is missing"),
            ("batch/inputs/digest", lambda x: x[:9], "not the 32 bytes of a SHA-256"),
            ("batch/targets/mean", None, "batch/targets/mean is missing, not one"),
            ("batch/ids", lambda ids: ids + 10**6, "and there are 455 training"),
            ("batch/ids", lambda ids: ids - 10**6, "batch/ids holds -"),
            ("activations/output", lambda rows: rows[1:], "not a row of each sample"),
        ],
    )
    def test_refuses_a_step_that_is_not_its_flags(
        self, traces, tmp_path, name, change, said
    ):
        other = tmp_path / "other"
        shutil.copytree(traces["second"], other)
        step = artifacts.read_arrays(other / "step_000001.safetensors", "")
        array = step.pop(name)
        step |= {name: change(array)} if change else {f"{name}_renamed": array}
        artifacts.write_arrays(other / "step_000001.safetensors", step)
        with pytest.raises(UserError, match=r"other: step 1: .*" + re.escape(said)):
            compare.main([str(traces["first"]), str(other)], 8.0)

    @pytest.mark.parametrize("names", [[], ["a"], ["a", "b", "c"]])
    def test_takes_two(self, names):
        with pytest.raises(UserError, match="give the folders of two traces"):
            compare.main(names, 8.0)


def test_from_the_command_line(run, traces):
    done = run("parity.compare", str(traces["first"]), str(pathlib.Path("nowhere")))
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere/meta.json: no readable trace there")
    assert (
        run("parity.compare", str(traces["first"]), str(traces["second"])).returncode
        == 0
    )
