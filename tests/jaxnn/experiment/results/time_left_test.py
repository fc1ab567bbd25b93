"""Tests of jaxnn/experiment/results/time_left.py."""

import pytest

from jaxnn.experiment.results import time_left


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (9000, "2.5 h"),
    ],
)
def test_text(seconds, expected):
    assert time_left.text(seconds) == expected


def test_pieces_take_as_long_as_those_before_by_their_sizes():
    now = [100.0]
    left = time_left.TimeLeft([1, 3, 2], clock=lambda: now[0])
    assert left.next() == "1 of 3"
    now[0] += 10
    assert left.next() == "2 of 3, 50 s left"
    now[0] += 30
    assert left.next() == "3 of 3, 20 s left"


class TestWatched:
    @pytest.fixture
    def now(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(time_left.time, "monotonic", lambda: now[0])
        return now

    def test_short_work_says_nothing(self, now, capsys):
        assert list(time_left.watched("judging step", range(3))) == [0, 1, 2]
        assert capsys.readouterr() == ("", "")

    def test_long_work_says_a_line_now_and_then(self, now, capsys):
        for _ in time_left.watched("judging step", range(5)):
            now[0] += time_left.EVERY - 10
        # Of the pieces that begin at 20, 40, 60 and 80 s.
        assert capsys.readouterr().err == (
            "judging step 3 of 5, 60 s left\njudging step 5 of 5, 20 s left\n"
        )

    def test_a_terminal_gets_one_line_that_goes(self, now, capsys, monkeypatch):
        monkeypatch.setattr(time_left.sys.stderr, "isatty", lambda: True)
        work = time_left.watched("trying cause", range(3))
        next(work)
        work.close()
        erase = time_left.ERASE
        assert capsys.readouterr().err == f"\rtrying cause 1 of 3{erase}\r{erase}"
