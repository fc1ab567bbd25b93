"""Files of networks of one's own."""

import pytest

from jaxnn.experiment import own_model
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from tests import own_nets

SIGNATURE = Signature((2, 3), 5)


class TestFlag:
    def test_names_the_same_file_from_any_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        experiment, _ = command_line.parse(["", "--model=a/net.py:Net"], "fp32")
        assert experiment.model == f"{tmp_path}/a/net.py:Net"

    def test_a_misspelt_network_is_refused_as_ever(self):
        with pytest.raises(UserError, match=r"unknown value 'mpl'; .*, FILE.py:NAME$"):
            command_line.parse(["", "--model=mpl"], "fp32")


class TestLoad:
    def test_each_library_has_its_class(self, tmp_path):
        model = own_nets.experiment(tmp_path, "class Net: pass\nclass TorchNet: pass")
        assert own_model.load(model.model).__name__ == "Net"
        assert own_model.load(model.model, own_model.TORCH).__name__ == "TorchNet"
        assert own_model.converter(model.model) is None

    def test_what_lies_beside_the_file_can_be_imported(self, tmp_path):
        (tmp_path / "beside_the_net.py").write_text("class Net: pass")
        model = own_nets.experiment(tmp_path, "from beside_the_net import Net").model
        assert own_model.load(model).__name__ == "Net"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("import math", "net.py has no class Net; it has none$"),
            ("class Not: pass", "net.py has no class Net; it has Not$"),
            ("Net = 3", "net.py has no class Net; it has none$"),
            ("\n1 / 0", "net.py, line 2: ZeroDivisionError: division by zero$"),
            ("\n\ndef", "net.py, line 3: SyntaxError: "),
            ("import nothing_there", "line 1: ModuleNotFoundError: No module named"),
            ("raise SystemExit(0)", "net.py, line 1: SystemExit: 0$"),
            ("raise ValueError('a\\nb')", "ValueError: a b$"),
        ],
    )
    def test_bad_files_are_one_line(self, tmp_path, text, message):
        model = own_nets.experiment(tmp_path, text).model
        with pytest.raises(UserError, match=message) as caught:
            own_model.load(model)
        assert str(caught.value).startswith(f"--model: {tmp_path}")
        assert "\n" not in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"no\.py: no such file; give FILE.py:NAME"):
            own_model.load(f"{tmp_path}/no.py:Net")


class TestConstruct:
    def construct(self, tmp_path, text, **changes):
        experiment = own_nets.experiment(tmp_path, text, **changes)
        make = own_model.load(experiment.model)
        return own_model.construct(make, experiment, SIGNATURE, abs)

    def test_gives_what_is_named(self, tmp_path):
        net = self.construct(
            tmp_path,
            """
class Net:
    def __init__(self, num_inputs, hidden_sizes, activation, depth=7, width=1, **more):
        self.given = num_inputs, hidden_sizes, activation, depth, width, more
""",
            hidden_sizes=(4,),
            width=9,
        )
        assert net.given == (6, (4,), abs, 7, 9, {})

    def test_refuses_what_it_cannot_give(self, tmp_path):
        text = "class Net:\n  def __init__(self, depth): pass"
        with pytest.raises(UserError, match="Net takes depth, which is none of hidden"):
            self.construct(tmp_path, text)

    def test_says_what_a_constructor_raised(self, tmp_path):
        text = "class Net:\n  def __init__(self): raise KeyError('a')"
        with pytest.raises(UserError, match=r"net.py, line 2: KeyError: 'a'$"):
            self.construct(tmp_path, text)
