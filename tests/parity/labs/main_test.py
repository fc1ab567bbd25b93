"""The command: names, pages, claims and exit codes."""

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from parity.labs import __main__ as labs
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.subjects import LABS
from tests.jaxnn.experiment.data.sources.images_test import write_cifar, write_mnist

MET = Claim("one is less than two", 1.0, "<", 2.0)
BROKEN = Claim("two is less than <one>", 2.0, "<", 1.0)
FULL = BROKEN._replace(text="only when large", of_full_size=True)


def lab(*claims):
    return Lab("A title", "It shows. It shows.", lambda bench: Findings([], [*claims]))


def started(monkeypatch, tmp_path, found, *flags):
    monkeypatch.setattr(labs, "LABS", {"one": found})
    argv = ["labs", "one", f"--workdir={tmp_path}", *flags]
    return labs.main(command_line.parse_arguments(argv, labs.define_flags))


def test_met_claims_end_well(monkeypatch, tmp_path, capsys):
    assert started(monkeypatch, tmp_path, lab(MET)) == 0
    assert "1 of 1" in capsys.readouterr().out
    page = (tmp_path / "one.html").read_text()
    assert "✓" in page
    assert "one is less than two" in page


def test_a_broken_claim_is_shown_and_told(monkeypatch, tmp_path, capsys):
    assert started(monkeypatch, tmp_path, lab(MET, BROKEN)) == 1
    out = capsys.readouterr().out
    assert "1 of 2" in out
    assert "one: not met: two is less than <one>: 2, should be < 1" in out
    page = (tmp_path / "one.html").read_text()
    assert "✗ not met:" in page
    assert "two is less than &lt;one&gt;" in page


def test_reduced_size_holds_what_it_can_show(monkeypatch, tmp_path):
    assert started(monkeypatch, tmp_path, lab(MET, FULL), "--reduced") == 0
    assert "full size only:" in (tmp_path / "one.html").read_text()
    assert started(monkeypatch, tmp_path, lab(MET, FULL)) == 1


def test_all_without_a_name():
    assert labs.chosen([]) == list(LABS)
    assert labs.chosen(["rates", "scale", "rates"]) == ["rates", "scale"]


def test_unknown_name_is_one_line_and_exit_code_2(run, tmp_path):
    done = run("parity.labs", "optimisers", f"--workdir={tmp_path / 'labs'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: optimisers: no such lab; known: optimizers, ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "labs").exists()


def test_elsewhere_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="launch/labs: no such folder"):
        labs.chosen(["rates"])


def test_data_that_are_not_there_leave_a_note(tmp_path):
    flags, note = labs.flags_of(
        "optimizers", LABS["optimizers"], False, str(tmp_path / "nothing")
    )
    assert "--dataset=cifar10" not in flags
    assert "nothing" in note


@pytest.mark.parametrize(
    ("name", "write", "size"),
    [
        ("optimizers", write_cifar, (32, 32, 3)),
        ("regularization", write_mnist, (5, 4, 1)),
    ],
)
def test_larger_data_are_used_where_they_are(tmp_path, monkeypatch, name, write, size):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))
    write(tmp_path)
    flags, note = labs.flags_of(name, LABS[name], True, str(tmp_path))
    bench = labs.Bench(flags, tmp_path, True)
    assert bench.members()
    assert (
        bench.data(
            "--batch_size=8", "--validation_fraction=0", "--patience=0"
        ).signature.input_shape
        == size
    )
    assert note == ""


@pytest.mark.parametrize("name", LABS)
def test_a_title_and_two_sentences(name):
    assert LABS[name].title
    assert LABS[name].says.count(".") == 2


def test_flagfiles_belong_to_labs():
    found = {path.stem for path in labs.FLAGFILES.glob("*.flags")}
    assert found <= LABS.keys()


def test_bad_flags_of_a_lab_are_said(monkeypatch, tmp_path):
    def measure(bench):
        bench.swept("sweep", "--grid=lerning_rate=1")

    with pytest.raises(UserError, match="did you mean learning_rate"):
        started(monkeypatch, tmp_path, Lab("t", "s", measure))
