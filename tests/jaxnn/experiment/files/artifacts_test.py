"""Tests of jaxnn/experiment/files/artifacts.py."""

import errno
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from tests import own_nets

NOT_FINITE = [
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float64("nan"),
    np.float32("nan"),
]
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def read(path):
    return artifacts.read_arrays(path, "--init_params")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestCreateWorkdir:
    def test_writes_the_flags_to_run_again(self, tmp_path):
        experiment = Experiment(
            precision="bf16", epochs=3, workdir=str(tmp_path / "a" / "b")
        )
        workdir = artifacts.create_workdir(experiment, "jax")
        assert names(workdir) == ["experiment.flags"]
        again, _ = command_line.parse(
            ["prog", f"--flagfile={workdir / 'experiment.flags'}"], "fp32"
        )
        assert again == experiment.replace(workdir="")

    def test_a_fresh_folder_carries_name_and_stack(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        paths = [
            artifacts.create_workdir(Experiment(name="tiny"), "torch") for _ in range(2)
        ]
        assert paths[0] != paths[1]
        assert all(
            re.fullmatch(r"runs/tiny-torch-\d{8}-\d{6}(-\d+)?", str(path))
            for path in paths
        )

    @pytest.mark.parametrize("held", artifacts.CONTENTS)
    def test_refuses_a_held_workdir(self, tmp_path, held):
        (tmp_path / held).write_text("held")
        with pytest.raises(
            UserError, match=rf"^--workdir: .*holds another run \({held}\)"
        ):
            artifacts.create_workdir(Experiment(workdir=str(tmp_path)), "jax")
        assert names(tmp_path) == [held]
        assert (tmp_path / held).read_text() == "held"

    def test_a_folder_of_strangers_is_not_held(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        artifacts.create_workdir(Experiment(workdir=str(tmp_path)), "jax")
        assert names(tmp_path) == ["experiment.flags", "notes.txt"]

    def test_overwrite_removes_the_runs_files_and_leaves_a_strangers(self, tmp_path):
        for name in artifacts.CONTENTS:
            if "." in name:
                (tmp_path / name).write_text("old")
            else:
                (tmp_path / name).mkdir()
                (tmp_path / name / "old").write_text("old")
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "data").mkdir()
        artifacts.create_workdir(
            Experiment(workdir=str(tmp_path), overwrite=True), "jax"
        )
        assert names(tmp_path) == ["data", "experiment.flags", "notes.txt"]
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert (tmp_path / "experiment.flags").read_text() != "old"

    def test_a_file_in_the_way_names_the_flag(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(
            UserError, match=r"^--workdir: cannot write .*: File exists$"
        ):
            artifacts.create_workdir(Experiment(workdir=str(tmp_path / "file")), "jax")

    def test_resume_reopens_a_run_whose_flags_are_the_same(self, tmp_path):
        experiment = Experiment(workdir=str(tmp_path), name="a = b, c")
        artifacts.create_workdir(experiment, "jax")
        (tmp_path / "metrics.csv").write_text("kept")
        again = experiment.replace(resume=True, plots=False, checkpoint_every=7)
        assert artifacts.create_workdir(again, "jax") == tmp_path
        assert (tmp_path / "metrics.csv").read_text() == "kept"
        with pytest.raises(
            UserError, match=r"^--epochs: 31 now, 30 in the run to resume"
        ):
            artifacts.create_workdir(again.replace(epochs=31), "jax")

    def test_resume_records_no_second_trace(self, tmp_path):
        experiment = Experiment(workdir=str(tmp_path / "run"))
        artifacts.create_workdir(experiment, "jax")
        again = experiment.replace(resume=True, record="full")
        assert artifacts.create_workdir(again, "jax") == tmp_path / "run"
        (tmp_path / "run" / "trace").mkdir()
        with pytest.raises(
            UserError, match=r"^--record: .*run/trace holds a trace already"
        ):
            artifacts.create_workdir(again, "jax")

    @pytest.mark.parametrize("workdir", ["", "absent"])
    def test_resume_needs_a_run(self, tmp_path, monkeypatch, workdir):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=r"^--resume: "):
            artifacts.create_workdir(Experiment(workdir=workdir, resume=True), "jax")
        assert names(tmp_path) == []

    def test_a_linked_folder_is_replaced_or_named(self, tmp_path):
        """`trace` may be a link to a larger disk."""
        (tmp_path / "disk").mkdir()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "trace").symlink_to(tmp_path / "disk")
        artifacts.create_workdir(
            Experiment(workdir=str(tmp_path / "run"), overwrite=True), "jax"
        )
        assert names(tmp_path / "run") == ["experiment.flags"]
        assert (tmp_path / "disk").is_dir()


class TestMetricsWriter:
    @given(
        st.lists(
            st.tuples(
                st.integers(1, 10**6), st.floats(allow_nan=False, allow_infinity=False)
            ),
            min_size=1,
        )
    )
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_reads_back_to_the_bit(self, tmp_path_factory, rows):
        folder = tmp_path_factory.mktemp("metrics")
        writer = artifacts.MetricsWriter(folder)
        for epoch, loss in rows:
            writer.write({"epoch": epoch, "train_loss": loss})
        columns = artifacts.read_metrics(folder)
        assert list(columns) == ["epoch", "train_loss"]
        np.testing.assert_array_equal(columns["epoch"], [epoch for epoch, _ in rows])
        np.testing.assert_array_equal(columns["train_loss"], [loss for _, loss in rows])

    @pytest.mark.parametrize(
        "value", NOT_FINITE, ids=lambda value: f"{type(value).__name__}:{value}"
    )
    def test_refuses_what_is_not_finite_and_keeps_earlier_rows(self, tmp_path, value):
        writer = artifacts.MetricsWriter(tmp_path)
        writer.write({"epoch": 1, "loss": 0.5})
        with pytest.raises(UserError, match=r"^metrics\.csv: loss is "):
            writer.write({"epoch": 2, "loss": value})
        assert {
            name: list(column)
            for name, column in artifacts.read_metrics(tmp_path).items()
        } == {"epoch": [1], "loss": [0.5]}

    def test_keep_drops_what_a_resumed_run_writes_again(self, tmp_path):
        writer = artifacts.MetricsWriter(tmp_path)
        for epoch in (1, 2, 3):
            writer.write({"epoch": epoch, "loss": 1 / epoch})
        assert writer.keep(2) == [
            {"epoch": "1", "loss": "1.0"},
            {"epoch": "2", "loss": "0.5"},
        ]
        writer.write({"epoch": 3, "loss": 0.25})
        assert (
            tmp_path / "metrics.csv"
        ).read_bytes() == b"epoch,loss\n1,1.0\n2,0.5\n3,0.25\n"
        assert names(tmp_path) == ["metrics.csv"]

    def test_each_row_is_on_disk_at_once(self, tmp_path):
        artifacts.MetricsWriter(tmp_path).write({"epoch": 1, "loss": 0.5})
        assert (tmp_path / "metrics.csv").read_bytes() == b"epoch,loss\n1,0.5\n"


class TestReadMetrics:
    def test_a_header_alone_is_no_columns(self, tmp_path):
        (tmp_path / "metrics.csv").write_text("epoch,loss\n")
        assert artifacts.read_metrics(tmp_path) == {}


class TestWriteSummary:
    def test_round_trip(self, tmp_path):
        summary = {
            "steps": 34,
            "final": {"accuracy": 1 / 3},
            "device": "cpu",
            "versions": {"jax": "0.10"},
        }
        artifacts.write_summary(tmp_path, summary)
        assert artifacts.read_summary(tmp_path) == summary
        assert names(tmp_path) == ["summary.json"]

    @pytest.mark.parametrize("value", NOT_FINITE[:3])
    def test_refuses_what_is_not_finite_however_deep(self, tmp_path, value):
        with pytest.raises(UserError, match=r"^summary\.json: final: mae is "):
            artifacts.write_summary(tmp_path, {"steps": 1, "final": {"mae": value}})
        assert names(tmp_path) == []


class TestWriteParams:
    @given(
        st.dictionaries(
            st.sampled_from(["output/kernel", "output/bias", "scale"]),
            hnp.arrays(
                np.float32,
                hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
                elements=FINITE,
            ),
            min_size=1,
        )
    )
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_round_trip_bit_for_bit(self, tmp_path_factory, params):
        folder = tmp_path_factory.mktemp("params")
        artifacts.write_params(folder / "params.safetensors", params)
        assert names(folder) == ["params.safetensors"]
        back = read(folder / "params.safetensors")
        assert back.keys() == params.keys()
        for name, array in params.items():
            assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
            assert back[name].tobytes() == array.tobytes()

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6, dtype=np.float32).reshape(2, 3).T,
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.arange(12, dtype=np.float32)[::2],
            np.broadcast_to(np.float32(1), (3, 2)),
        ],
    )
    def test_any_memory_layout(self, tmp_path, array):
        artifacts.write_params(tmp_path / "p.safetensors", {"w": array})
        np.testing.assert_array_equal(
            read(tmp_path / "p.safetensors")["w"], array, strict=True
        )

    @pytest.mark.parametrize("value", NOT_FINITE[:3])
    def test_refuses_what_is_not_finite_and_keeps_the_earlier_file(
        self, tmp_path, value
    ):
        path = tmp_path / "params.safetensors"
        artifacts.write_params(path, {"b": np.ones(2, np.float32)})
        with pytest.raises(
            UserError, match=r"^params\.safetensors: b is not finite; nothing written$"
        ):
            artifacts.write_params(
                path,
                {"a": np.zeros(1, np.float32), "b": np.array([1, value], np.float32)},
            )
        np.testing.assert_array_equal(read(path)["b"], [1, 1])
        assert names(tmp_path) == ["params.safetensors"]


class TestWriteArrays:
    def test_values_are_not_looked_at(self, tmp_path):
        arrays = {"a": np.array([np.nan, -0.0]), "b": np.int32(3), "c": np.bool_(True)}
        artifacts.write_arrays(tmp_path / "a.safetensors", arrays)
        for name, array in read(tmp_path / "a.safetensors").items():
            assert array.tobytes() == arrays[name].tobytes()
        assert names(tmp_path) == ["a.safetensors"]


class TestReadArrays:
    @pytest.mark.parametrize(
        "content",
        [None, b"", b"garbage", b"\xff" * 64],
        ids=["none", "empty", "short", "long"],
    )
    def test_names_flag_and_file(self, tmp_path, content):
        path = tmp_path / "p.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(
            UserError, match=rf"^--init_params: cannot read {re.escape(str(path))}: "
        ):
            artifacts.read_arrays(path, "--init_params")


class TestWriteText:
    def test_replaces_whole_and_leaves_no_partial(self, tmp_path):
        artifacts.write_text(tmp_path / "a.json", "old and longer")
        artifacts.write_text(tmp_path / "a.json", "new")
        assert (tmp_path / "a.json").read_text() == "new"
        assert names(tmp_path) == ["a.json"]

    def test_a_failure_keeps_the_old_text(self, tmp_path):
        artifacts.write_text(tmp_path / "a.json", "old")
        with pytest.raises(TypeError):
            artifacts.write_text(tmp_path / "a.json", object())
        assert (tmp_path / "a.json").read_text() == "old"
        assert names(tmp_path) == ["a.json"]

    def test_a_full_disk_says_which_file(self, tmp_path, monkeypatch):
        def write_text(path: pathlib.Path, text: str, encoding: str) -> None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(pathlib.Path, "write_text", write_text)
        with pytest.raises(
            OSError,
            match=rf"No space left on device: '{re.escape(str(tmp_path / 'a.json'))}'",
        ):
            artifacts.write_text(tmp_path / "a.json", "whole")
        assert names(tmp_path) == []


class TestRequireFinite:
    def test_allows_numbers_and_words(self):
        artifacts.require_finite(
            {"a": 1, "b": -0.0, "c": "nan", "d": {"e": 1e308}, "f": True}, "here"
        )

    @pytest.mark.parametrize(
        "value", NOT_FINITE, ids=lambda value: f"{type(value).__name__}:{value}"
    )
    def test_says_where(self, value):
        with pytest.raises(UserError, match=r"^here: d: e is .*--learning_rate$"):
            artifacts.require_finite({"a": 1.0, "d": {"e": value}}, "here")


def test_the_contract_names_every_file():
    assert set(artifacts.CONTENTS) == {
        "experiment.flags",
        "model.py",
        "metrics.csv",
        "summary.json",
        "params.safetensors",
        "batch_stats.safetensors",
        "data.json",
        "sample.txt",
        "ds_config.json",
        "diagnostics.csv",
        "diagnostics.png",
        "error.txt",
        "trace",
        "plots",
        "checkpoints",
        "tensorboard",
        "wandb",
    }


class TestOwnModel:
    @pytest.fixture
    def run(self, tmp_path):
        """(experiment of a run, its folder) with a network of one's own."""
        experiment = own_nets.experiment(tmp_path, "first", workdir=f"{tmp_path}/run")
        return experiment, artifacts.create_workdir(experiment, "jax")

    def test_its_file_is_kept(self, run):
        experiment, workdir = run
        assert (workdir / artifacts.MODEL).read_text() == "first"
        assert artifacts.as_trained(experiment, workdir) == experiment
        again = experiment.replace(resume=True)
        assert artifacts.create_workdir(again, "jax") == workdir

    def test_the_copy_itself_can_be_trained_again(self, run):
        experiment, workdir = run
        model = f"{workdir / artifacts.MODEL}:Net"
        artifacts.create_workdir(experiment.replace(model=model, overwrite=True), "jax")
        assert (workdir / artifacts.MODEL).read_text() == "first"

    def test_a_changed_file_is_noticed(self, run):
        experiment, workdir = run
        own_nets.experiment(workdir.parent, "second")
        trained = artifacts.as_trained(experiment, workdir)
        assert trained.model == f"{workdir / artifacts.MODEL}:Net"
        with pytest.raises(UserError, match=r"net\.py has changed since the run began"):
            artifacts.create_workdir(experiment.replace(resume=True), "jax")

    def test_a_missing_file_is_that_of_the_run(self, run):
        experiment, workdir = run
        (workdir.parent / "net.py").unlink()
        trained = artifacts.as_trained(experiment, workdir)
        assert trained.model == f"{workdir / artifacts.MODEL}:Net"


class TestReadParams:
    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.ones(3, np.int64), "bias of .* is int64, and parameters are"),
            (np.ones(3, bool), "bias of .* is bool, and parameters are"),
        ],
    )
    def test_names_the_tensor(self, tmp_path, array, said):
        path = tmp_path / "p.safetensors"
        artifacts.write_arrays(path, {"output/bias": array})
        with pytest.raises(UserError, match=f"^--init_params: output/{said}"):
            artifacts.read_params(path, "--init_params")

    def test_names_a_tensor_of_a_type_that_numpy_lacks(self, tmp_path):
        header = b'{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
        path = tmp_path / "fp8.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(UserError, match=r"^--init_params: .*: w is F8_E4M3, which"):
            artifacts.read_params(path, "--init_params")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_names_what_is_not_finite(self, tmp_path, value):
        path = tmp_path / "p.safetensors"
        kernel = np.array([[1, 2], [3, value]], np.float32)
        save_file({"b": np.zeros(2, np.float32), "w": kernel}, path)
        with pytest.raises(
            UserError, match=rf"^--init_params: w\[1, 1\] is {value} in {path}; give"
        ):
            artifacts.read_params(path, "--init_params")

    def test_finite(self, tmp_path):
        path = tmp_path / "p.safetensors"
        artifacts.write_params(path, {"w": np.ones(2, np.float32)})
        np.testing.assert_array_equal(
            artifacts.read_params(path, "--init_params")["w"], [1, 1]
        )

    def test_takes_every_precision(self, tmp_path):
        path = tmp_path / "p.safetensors"
        given = {kind: np.ones(2, kind) for kind in ("float16", "bfloat16", "float64")}
        artifacts.write_arrays(path, given)
        assert artifacts.read_params(path, "--init_params").keys() == given.keys()


class TestFilesOfAnotherProgram:
    """What a spreadsheet or an editor makes of a run's files before `--resume`."""

    @pytest.mark.parametrize(
        "content",
        [
            "Epoche,step\n1,2\n",
            "epoch;step\n1;2\n",
            'epoch,step\n1,"0,5"\n',
            "epoch,step\n1\n",
            "epoch,step\n1,2,3\n",
            "\ufeffepoch,step\n1,2\n",
        ],
    )
    def test_metrics(self, tmp_path, content):
        (tmp_path / artifacts.METRICS).write_text(content, "utf-8")
        with pytest.raises(
            UserError, match=r"^--resume: .*metrics\.csv:2: not the num"
        ):
            artifacts.MetricsWriter(tmp_path).keep(1)

    @pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
    def test_of_another_encoding(self, tmp_path, encoding):
        experiment = Experiment(workdir=str(tmp_path), resume=True, precision="fp32")
        for name in (artifacts.METRICS, artifacts.FLAGS):
            (tmp_path / name).write_text("--name=é\n", encoding)
        with pytest.raises(UserError, match=r"^--resume: .*flags: it is not UTF-8"):
            artifacts.create_workdir(experiment, "jax")
        with pytest.raises(UserError, match=r"^--resume: .*csv: it is not UTF-8"):
            artifacts.MetricsWriter(tmp_path).keep(1)
