"""Tables are as wide as the terminal, and whole where there is none."""

import sys

import pytest

from jaxnn.experiment.results.console import PIPED, table_console


@pytest.mark.parametrize(("columns", "expected"), [(None, PIPED), (200, 200)])
def test_in_a_pipe_the_width_is_what_a_table_needs(capsys, columns, expected):
    assert not sys.stdout.isatty()
    asked = {"piped": columns} if columns else {}
    assert table_console(**asked).width == expected


def test_in_a_terminal_it_is_the_terminals(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "57")
    assert table_console().width == 57


def test_a_quiet_one_prints_nothing(capsys):
    table_console(quiet=True).print("a line")
    assert capsys.readouterr().out == ""
