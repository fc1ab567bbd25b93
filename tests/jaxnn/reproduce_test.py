"""Tests of jaxnn/reproduce.py."""

import pathlib

import pytest

from jaxnn import reproduce
from jaxnn.experiment.errors import UserError


@pytest.fixture
def flagfile(tmp_path, monkeypatch):
    """flagfile(name, promise, *flags) -> path; runs/ goes to a scratch folder."""
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path.cwd()))
    monkeypatch.chdir(tmp_path)

    def write(name, promise, *flags):
        path = tmp_path / f"{name}.flags"
        path.write_text(
            "\n".join([f"# Expect: {promise}", f"--name={name}", "--noplots", *flags])
            + "\n"
        )
        return str(path)

    return write


SMALL = ("--num_samples=64", "--epochs=1")


class TestMain:
    def test_all_kept(self, flagfile, capsys):
        paths = [
            flagfile("first", "weight_error < 10, mae < 100", *SMALL),
            flagfile("second", "mae <= first.mae", *SMALL),
        ]
        assert reproduce.main(paths) == 0
        out = capsys.readouterr().out
        assert "2 experiments, 0 not run for want of data, 0 promises not kept" in out
        assert out.count(" yes ") == 3

    def test_one_falls_short(self, flagfile, capsys):
        assert reproduce.main([flagfile("first", "weight_error < 1e-12", *SMALL)]) == 1
        assert "1 promises not kept" in capsys.readouterr().out

    def test_a_run_that_fails_falls_short_and_says_why(self, flagfile, capsys):
        assert reproduce.main([flagfile("first", "mae < 1", "--epochs=0")]) == 1
        assert (
            "first: error: --epochs: must be at least 1, got 0"
            in capsys.readouterr().out
        )

    def test_without_data_it_is_not_run_and_counted(self, flagfile, capsys):
        assert (
            reproduce.main(
                [
                    flagfile(
                        "first", "mae < 1", "--dataset=csv", "--data_path=/nowhere.csv"
                    )
                ]
            )
            == 0
        )
        out = capsys.readouterr().out
        assert "no data" in out
        assert "1 not run for want of data, 0 promises not kept" in out

    def test_a_file_that_cannot_be_read_falls_short(self, flagfile, capsys):
        pathlib.Path("bad.csv").write_bytes(b"x,y\n\xff,1\n")
        path = flagfile("first", "mae < 1", "--dataset=csv", "--data_path=bad.csv")
        assert reproduce.main([path]) == 1
        out = capsys.readouterr().out
        assert "first: error: --data_path: bad.csv: not UTF-8 at byte 4" in out
        assert "0 not run for want of data, 1 promises not kept" in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give the flagfiles"),
            (["/nowhere.flags"], "/nowhere.flags: no such flagfile"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(UserError, match=message):
            reproduce.main(arguments)
