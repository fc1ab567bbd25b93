"""Tests of parity/own/port_file.py: the names that a port's file defines."""

import sys

import pytest

from jaxnn.experiment.errors import UserError
from parity.own.port_file import read_port


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_port", raising=False)


def write(folder, text):
    file = folder / "port.py"
    file.write_text(text)
    return file


class TestReadPort:
    def test_returns_what_is_defined(self, tmp_path):
        port = read_port(write(tmp_path, "model = 1\nloss = 2\nother = 3\n"))
        assert port == {"model": 1, "loss": 2, "optimizer": None, "convert": None}

    def test_imports_what_lies_beside_it(self, tmp_path):
        (tmp_path / "beside_a_port.py").write_text("value = 7\n")
        file = write(tmp_path, "from beside_a_port import value as model\n")
        assert read_port(file)["model"] == 7

    def test_dataclasses_find_their_module(self, tmp_path):
        file = write(
            tmp_path,
            "import dataclasses\n@dataclasses.dataclass\nclass M:\n  x: int = 3\n"
            "model = M()\n",
        )
        assert read_port(file)["model"].x == 3

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("loss = 1", "it defines no `model`; it may define model, loss"),
            ("1 / 0", "it raised ZeroDivisionError: division by zero"),
            ("model = ", "it raised SyntaxError: invalid syntax"),
            ("import no_such_module", "it raised ModuleNotFoundError: No module"),
            ("raise ValueError('two\\nlines')", "it raised ValueError: two lines"),
            ("import sys; sys.exit(0)", "it raised SystemExit: 0"),
        ],
    )
    def test_refuses_in_one_line(self, tmp_path, text, message):
        with pytest.raises(UserError) as caught:
            read_port(write(tmp_path, text))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_refuses_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match=r"port\.py: no such file; it defines"):
            read_port(tmp_path / "port.py")

    def test_refuses_what_is_no_python_file(self, tmp_path):
        file = tmp_path / "port.txt"
        file.write_text("model = 1")
        with pytest.raises(UserError, match="not a Python file"):
            read_port(file)
