"""Tests of jaxnn/experiment/files/trace.py."""

import doctest
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace

META = {
    "stack": "jax",
    "precision": "fp16",
    "world_size": 2,
    "flags": ["--seed=1"],
    "versions": {"jax": "0.10.2"},
}
STEP = {
    "batch/ids": np.array([3, 1, 2], np.int32),
    "params": {
        "output": {
            "kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,
            "bias": np.zeros(2, np.float32),
        }
    },
    "moments": {"first": {"output": {"bias": np.ones(2, np.float32)}}, "second": {}},
    "optimizer_step": np.int32(7),
    "activations": {"output": np.array([[0.5], [np.inf], [2.0**-24]], np.float32)},
    "loss": np.float32(0.1),
    "grads/output/bias": np.array([-0.0, np.inf], np.float32),
    "grad_norm": np.array(np.inf, np.float32),
    "loss_scale": np.float32(2**16),
    "skipped": np.bool_(True),
    "learning_rate": np.float32(1e-3),
    "updated": {"output": {"bias": np.array([], np.float32)}},
}
SCALARS = {
    "batch/ids",
    "loss",
    "grad_norm",
    "loss_scale",
    "skipped",
    "learning_rate",
    "optimizer_step",
}
PARAMS = SCALARS | {
    "params/output/kernel",
    "params/output/bias",
    "moments/first/output/bias",
    "updated/output/bias",
}

NAMES = st.sampled_from(["a", "b", "ab"])
TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(NAMES, inner, min_size=1), max_leaves=6
)


@pytest.fixture
def written(tmp_path):
    """A trace of two steps, recorded in full."""
    writer = trace.Writer(tmp_path / "trace", "full", META)
    for step in range(2):
        writer.write(step, STEP)
    return tmp_path / "trace"


class TestWriter:
    @pytest.mark.parametrize(
        ("level", "names"),
        [
            ("losses", SCALARS),
            ("params", PARAMS),
            ("full", PARAMS | {"activations/output", "grads/output/bias"}),
        ],
    )
    def test_levels_filter_kinds(self, tmp_path, level, names):
        writer = trace.Writer(tmp_path / "trace", level, META)
        writer.write(0, STEP | {"stranger": np.zeros(1)})
        assert trace.Reader(tmp_path / "trace").read(0).keys() == names

    def test_leaves_whole_files_alone(self, written):
        assert sorted(path.name for path in written.iterdir()) == [
            "meta.json",
            "step_000000.safetensors",
            "step_000001.safetensors",
        ]

    def test_meta_is_readable_before_the_first_step(self, tmp_path):
        trace.Writer(tmp_path / "trace", "losses", META | {"steps": 50})
        assert json.loads((tmp_path / "trace" / "meta.json").read_text()) == {
            "version": 3,
            "level": "losses",
            **META,
            "steps": 50,
            "order": {"params": [], "activations": []},
        }
        assert len(trace.Reader(tmp_path / "trace")) == 0

    @pytest.mark.parametrize("shuffled", [1, -1])
    def test_order_is_that_of_the_first_step(self, tmp_path, shuffled):
        """meta.json has it before the step appears: no whole step is without it."""
        names = ["b/scale", "a/kernel", "c/bias", "a/bias"][::shuffled]
        tensors = {
            "params": dict.fromkeys(names, np.zeros(1)),
            "activations": dict.fromkeys("bca", np.zeros(1)),
        }
        writer = trace.Writer(tmp_path / "trace", "full", META)
        with pytest.raises(SafetensorError, match="object"):
            writer.write(0, tensors | {"grads": {"a": np.array([None])}})
        assert len(trace.Reader(tmp_path / "trace")) == 0
        for reader in (
            trace.Reader(tmp_path / "trace"),
            trace.Reader(tmp_path / "trace"),
        ):
            assert reader.meta["order"] == {
                "params": names,
                "activations": ["b", "c", "a"],
            }
            writer.write(0, {"params": dict.fromkeys(names[::-1], np.zeros(1))})

    def test_order_of_a_program_of_ones_own(self, tmp_path):
        """Its layers are those of the first pass."""
        writer = trace.Writer(tmp_path / "trace", "full", META)
        layers = {"b": np.zeros(1), "a": np.zeros(1)}
        passes = {"0": {"activations": layers}, "1": {"activations": {}}}
        writer.write(0, {"passes": passes})
        reader = trace.Reader(tmp_path / "trace")
        assert reader.meta["order"] == {"params": [], "activations": ["b", "a"]}

    def test_resumes_a_trace(self, written):
        before = trace.Reader(written).meta
        writer = trace.Writer.resume(written)
        writer.write(2, {"params": {"other": np.zeros(1)}})
        assert len(trace.Reader(written)) == 3
        assert trace.Reader(written).meta == before
        writer.amend({"absent": {"x": "why"}})
        assert trace.Reader(written).meta == before | {"absent": {"x": "why"}}

    def test_resumes_nothing(self, tmp_path):
        with pytest.raises(UserError, match="no readable trace"):
            trace.Writer.resume(tmp_path)

    def test_refuses_a_folder_that_holds_one(self, written):
        with pytest.raises(FileExistsError):
            trace.Writer(written, "full", META)
        assert len(trace.Reader(written)) == 2

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (
                {"loss": np.nan},
                "cannot write the meta of the trace: Out of range float values",
            ),
            (
                {"loss": np.float32(0)},
                "cannot write the meta of the trace: Object of type float32",
            ),
            (
                {"stack": None},
                "stack is None, not a str; give it to parity.trace.Writer",
            ),
            (
                {"flags": "--seed=1"},
                "flags is '--seed=1', not a list; give it to parity.trace.Writer",
            ),
        ],
    )
    def test_refuses_what_no_reader_would_take(self, tmp_path, change, fault):
        with pytest.raises(
            UserError, match=re.escape(f"{tmp_path / 'trace' / 'meta.json'}: {fault}")
        ):
            trace.Writer(tmp_path / "trace", "full", META | change)
        assert not list(tmp_path.iterdir()), (
            "a second attempt would find the folder taken"
        )

    def test_an_unknown_level_names_the_known(self, tmp_path):
        with pytest.raises(
            UserError, match=r"level is 'all', not one of losses, params, full$"
        ):
            trace.Writer(tmp_path / "trace", "all", META)


class TestReader:
    def test_round_trip_bit_for_bit(self, written):
        read = trace.Reader(written).read(1)
        flat = trace.flatten(STEP)
        assert read.keys() == flat.keys()
        for name, array in flat.items():
            np.testing.assert_array_equal(read[name], array, strict=True)
            assert read[name].tobytes() == np.asarray(array).tobytes()

    def test_scalars_keep_shape_and_type(self, written):
        read = trace.Reader(written).read(0)
        assert {
            name: (read[name].shape, read[name].dtype.name)
            for name in SCALARS - {"batch/ids"}
        } == {
            "loss": ((), "float32"),
            "grad_norm": ((), "float32"),
            "loss_scale": ((), "float32"),
            "skipped": ((), "bool"),
            "learning_rate": ((), "float32"),
            "optimizer_step": ((), "int32"),
        }

    def test_length_counts_whole_steps_without_a_gap(self, written):
        assert len(trace.Reader(written)) == 2
        (written / "step_000002.partial").write_bytes(b"half")
        (written / "step_000003.safetensors").write_bytes(b"")
        assert len(trace.Reader(written)) == 2

    def test_meta(self, written):
        order = {"params": ["output/kernel", "output/bias"], "activations": ["output"]}
        assert trace.Reader(written).meta == {
            "version": 3,
            "level": "full",
            **META,
            "order": order,
        }

    def test_a_missing_step_names_the_file(self, written):
        path = written / "step_000002.safetensors"
        with pytest.raises(
            UserError, match=rf"^step 2: cannot read {re.escape(str(path))}: "
        ):
            trace.Reader(written).read(2)

    @pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
    def test_a_truncated_step_names_the_file(self, written, keep):
        path = written / "step_000001.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(
            UserError, match=rf"^step 1: cannot read {re.escape(str(path))}: "
        ):
            trace.Reader(written).read(1)

    @pytest.mark.parametrize(
        "content", [None, "", "{", "[]", "null", "\x00", "[" * 10**5]
    )
    def test_a_damaged_meta_names_the_file(self, written, content):
        meta = written / "meta.json"
        meta.unlink() if content is None else meta.write_text(content)
        with pytest.raises(UserError, match=re.escape(str(written))):
            trace.Reader(written)

    @pytest.mark.parametrize("version", [0, 1, 4, "2", None])
    def test_another_version_is_refused(self, written, version):
        (written / "meta.json").write_text(json.dumps({"version": version}))
        with pytest.raises(
            UserError,
            match=f": trace version {version!r}, this program reads 2 and 3; "
            "record it again$",
        ):
            trace.Reader(written)

    @pytest.mark.parametrize("key", trace.META)
    def test_a_missing_key_is_named(self, written, key):
        meta = json.loads((written / "meta.json").read_text())
        del meta[key]
        (written / "meta.json").write_text(json.dumps(meta))
        with pytest.raises(
            UserError,
            match=f"^{re.escape(str(written / 'meta.json'))}: {key} is missing, not a ",
        ):
            trace.Reader(written)

    @pytest.mark.parametrize(
        "order", [{}, {"params": []}, {"params": [], "activations": "output"}]
    )
    def test_an_order_without_its_lists_is_refused(self, written, order):
        meta = json.loads((written / "meta.json").read_text()) | {"order": order}
        (written / "meta.json").write_text(json.dumps(meta))
        with pytest.raises(
            UserError, match="order lacks the names of params or activations"
        ):
            trace.Reader(written)

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
    def test_what_is_no_number_is_refused(self, written, constant):
        text = (
            (written / "meta.json")
            .read_text()
            .replace('"world_size": 2', f'"world_size": {constant}')
        )
        (written / "meta.json").write_text(text)
        with pytest.raises(
            UserError,
            match=f"no readable trace there: {constant} is no number of JSON$",
        ):
            trace.Reader(written)


class TestFormat:
    def test_the_example_does_what_it_says(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        failed, tried = doctest.testmod(trace)
        assert failed == 0
        assert tried > 5
        assert (tmp_path / "run" / "trace" / "step_000002.safetensors").exists()

    def test_every_kind_is_documented(self):
        for kind in sum(trace.LEVELS.values(), ()):
            assert re.search(rf"^    .*\b{kind}\b", trace.__doc__, re.MULTILINE), kind
        for key in trace.META:
            assert f"`{key}`" in trace.__doc__


class TestFlatten:
    def test_joins_by_slashes(self):
        assert trace.flatten({"a": {"b": 1, "c": {"d": 2}}, "e/f": 3}) == {
            "a/b": 1,
            "a/c/d": 2,
            "e/f": 3,
        }


class TestUnflatten:
    @given(st.dictionaries(NAMES, TREES, min_size=1))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_undoes_flatten(self, tree):
        assert trace.unflatten(trace.flatten(tree)) == tree


class TestSelect:
    def test_takes_one_kind_without_its_prefix(self):
        flat = {
            "params/a/b": 1,
            "params/params/c": 2,
            "parameters/d": 3,
            "updated/a/b": 4,
            "params": 5,
        }
        assert trace.select(flat, "params") == {"a/b": 1, "params/c": 2}
