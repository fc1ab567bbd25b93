"""Tests of parity/own/present.py: a judgement that is printed and written."""

import json
import shutil

import jax
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, Writer
from parity import own
from parity.own import present
from parity.own.propose import Origin
from tests.parity.own import recorded
from tests.parity.own.ports import mlp_function, nnx_mlp


@pytest.fixture(scope="module")
def folder(mlp_trace, tmp_path_factory):
    """A copy of a trace, for files to be written into."""
    return shutil.copytree(mlp_trace._folder, tmp_path_factory.mktemp("own") / "mine")


@pytest.fixture(scope="module")
def judged(folder):
    return own.judge(
        folder,
        mlp_function.model,
        mlp_function.loss,
        recorded.optimizer(),
        mlp_function.convert,
        quiet=True,
    )


class TestJudge:
    def test_is_at_parity_under_jaxs_own_settings(self, judged):
        assert judged.verdict.is_parity
        assert jax.config.jax_numpy_rank_promotion == "raise", "settings are restored"

    def test_writes_its_verdict(self, judged, folder):
        content = json.loads((folder / "verdict.json").read_text())
        assert content["verdict"] == "parity"
        assert content["name"] == "mine fp32"
        assert content["seconds"] > 0

    def test_writes_a_page(self, judged, folder):
        page = (folder / "report.html").read_text()
        assert "mine fp32" in page
        assert "optimizer of the recording" in page

    def test_the_trace_can_be_read_afterwards(self, judged, folder):
        assert len(Reader(folder)) == recorded.STEPS

    def test_prints_a_table_and_notes(self, folder, capsys):
        own.judge(
            str(folder),
            mlp_function.model,
            mlp_function.loss,
            None,
            mlp_function.convert,
        )
        printed = capsys.readouterr().out
        assert f"{folder}: judging 2 steps\n" in printed
        assert "torch: parity, worst z" in printed
        assert "note: no optimizer was given, so updates were not compared" in printed
        assert "note: no module of the port holds what a module of torch" in printed

    def test_convert_may_be_a_dict(self, folder):
        names = {"out/kernel": ("out.weight", (1, 0)), "out/bias": "out.bias"}
        names |= {"norm/scale": "norm.weight", "norm/bias": "norm.bias"}
        hidden = {
            "hidden/kernel": Origin("hidden.weight", (1, 0), (8, 16)),
            "hidden/bias": "hidden.bias",
        }
        judged = own.judge(
            folder,
            mlp_function.model,
            mlp_function.loss,
            None,
            names | hidden,
            quiet=True,
        )
        assert judged.verdict.is_parity

    def test_without_convert_an_empty_trace_is_refused_as_empty(
        self, mlp_trace, tmp_path
    ):
        Writer(tmp_path / "t", "full", mlp_trace.meta)
        with pytest.raises(UserError, match="the trace has no whole step"):
            own.judge(tmp_path / "t", nnx_mlp.model, nnx_mlp.loss, quiet=True)


class Noted:
    """What `notes` asks of a port."""

    optimizer = "given"
    modules = ("layer",)
    has_activations = True

    def __init__(self, absent=None, repeated=None):
        # A recording of no steps, which has no epochs.
        about = {"meta": {"absent": absent or {}}, "__len__": lambda self: 0}
        self.ported = type("P", (), about)()
        weights = type("W", (), {"repeated": repeated or {}})
        self.converted = type("C", (), {"weights": weights})


class TestNotes:
    def test_nothing_to_say(self):
        assert present.notes(Noted()) == []

    def test_what_could_not_be_recorded(self):
        assert present.notes(Noted({"grads": "offloaded"})) == [
            "grads is not in the recording: offloaded"
        ]

    def test_leaves_that_part_in_training(self):
        notes = present.notes(Noted(repeated={"head": "embed", "own": "own"}))
        assert notes == [
            "head and embed hold one tensor of torch; trained apart they part"
        ]

    def test_a_recording_without_activations(self):
        port = Noted()
        port.modules, port.has_activations = (), False
        assert present.notes(port) == [
            "activations are not in the recording, so they were not compared"
        ]
