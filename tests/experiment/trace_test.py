"""Tests of jaxnn/experiment/trace.py."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment import trace
from jaxnn.experiment.config import UserError

STEP = {
    "batch/ids": np.array([3, 1, 2], np.int32),
    "params": {"output": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": np.zeros(2, np.float32)}},
    "moments": {"first": {"output": {"bias": np.ones(2, np.float32)}}, "second": {}},
    "optimizer_step": np.int32(7),
    "loss": np.float32(0.1),
    "grads/output/bias": np.array([-0.0, np.inf], np.float32),
    "grad_norm": np.array(np.inf, np.float32),
    "loss_scale": np.float32(2**16),
    "skipped": np.bool_(True),
    "learning_rate": np.float32(1e-3),
    "updated": {"output": {"bias": np.array([], np.float32)}},
}
SCALARS = {"batch/ids", "loss", "grad_norm", "loss_scale", "skipped", "learning_rate", "optimizer_step"}
PARAMS = SCALARS | {"params/output/kernel", "params/output/bias", "moments/first/output/bias", "updated/output/bias"}

NAMES = st.sampled_from(["a", "b", "ab"])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, min_size=1), max_leaves=6)


@pytest.fixture
def written(tmp_path):
    """A trace of two steps, recorded in full."""
    writer = trace.Writer(tmp_path / "trace", "full", {"stack": "jax"})
    for step in range(2):
        writer.write(step, STEP)
    return tmp_path / "trace"


class TestWriter:
    @pytest.mark.parametrize(("level", "names"), [
        ("losses", SCALARS), ("params", PARAMS), ("full", PARAMS | {"grads/output/bias"})])
    def test_levels_filter_kinds(self, tmp_path, level, names):
        writer = trace.Writer(tmp_path / "trace", level, {})
        writer.write(0, STEP | {"stranger": np.zeros(1)})
        assert trace.Reader(tmp_path / "trace").read(0).keys() == names

    def test_leaves_whole_files_alone(self, written):
        assert sorted(path.name for path in written.iterdir()) == [
            "meta.json", "step_000000.safetensors", "step_000001.safetensors"]

    def test_meta_is_readable_before_the_first_step(self, tmp_path):
        trace.Writer(tmp_path / "trace", "losses", {"stack": "torch", "world_size": 2})
        assert json.loads((tmp_path / "trace" / "meta.json").read_text()) == {
            "version": 1, "level": "losses", "stack": "torch", "world_size": 2}

    def test_refuses_a_folder_that_holds_one(self, written):
        with pytest.raises(FileExistsError):
            trace.Writer(written, "full", {})
        assert len(trace.Reader(written)) == 2


class TestReader:
    def test_round_trip_bit_for_bit(self, written):
        read, flat = trace.Reader(written).read(1), trace.flatten(STEP)
        assert read.keys() == flat.keys()
        for name, array in flat.items():
            np.testing.assert_array_equal(read[name], array, strict=True)
            assert read[name].tobytes() == np.asarray(array).tobytes()

    def test_scalars_keep_shape_and_type(self, written):
        read = trace.Reader(written).read(0)
        assert {name: (read[name].shape, read[name].dtype.name) for name in SCALARS - {"batch/ids"}} == {
            "loss": ((), "float32"), "grad_norm": ((), "float32"), "loss_scale": ((), "float32"),
            "skipped": ((), "bool"), "learning_rate": ((), "float32"), "optimizer_step": ((), "int32")}

    def test_length_counts_whole_steps_without_a_gap(self, written):
        assert len(trace.Reader(written)) == 2
        (written / "step_000002.partial").write_bytes(b"half")
        (written / "step_000003.safetensors").write_bytes(b"")
        assert len(trace.Reader(written)) == 2

    def test_meta(self, written):
        assert trace.Reader(written).meta == {"version": 1, "level": "full", "stack": "jax"}

    def test_a_missing_step_names_the_file(self, written):
        path = written / "step_000002.safetensors"
        with pytest.raises(UserError, match=rf"^step 2: cannot read {re.escape(str(path))}: "):
            trace.Reader(written).read(2)

    @pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
    def test_a_truncated_step_names_the_file(self, written, keep):
        path = written / "step_000001.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UserError, match=rf"^step 1: cannot read {re.escape(str(path))}: "):
            trace.Reader(written).read(1)

    @pytest.mark.parametrize("content", [None, "", "{", "[]", "null", "\x00"])
    def test_a_damaged_meta_names_the_file(self, written, content):
        meta = written / "meta.json"
        meta.unlink() if content is None else meta.write_text(content)
        with pytest.raises(UserError, match=re.escape(str(written))):
            trace.Reader(written)

    @pytest.mark.parametrize("version", [0, 2, "1", None])
    def test_another_version_is_refused(self, written, version):
        (written / "meta.json").write_text(json.dumps({"version": version}))
        with pytest.raises(UserError, match=f": trace version {version}, this program reads 1$"):
            trace.Reader(written)


class TestFlatten:
    def test_joins_by_slashes(self):
        assert trace.flatten({"a": {"b": 1, "c": {"d": 2}}, "e/f": 3}) == {"a/b": 1, "a/c/d": 2, "e/f": 3}


class TestUnflatten:
    @given(st.dictionaries(NAMES, TREES, min_size=1))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_undoes_flatten(self, tree):
        assert trace.unflatten(trace.flatten(tree)) == tree


class TestSelect:
    def test_takes_one_kind_without_its_prefix(self):
        flat = {"params/a/b": 1, "params/params/c": 2, "parameters/d": 3, "updated/a/b": 4, "params": 5}
        assert trace.select(flat, "params") == {"a/b": 1, "params/c": 2}
