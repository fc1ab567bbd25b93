"""Tests of jaxnn/plots.py."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxnn import plots
from jaxnn.activations import ACTIVATIONS
from jaxnn.experiment.flags import command_line

X = np.array([-4.5, -1.25, -0.005, 0.005, 0.75, 4.5])


def logistic(x):
    return 1 / (1 + math.exp(-x))


DERIVATIVES = {  # by hand, in float64
    "linear": lambda x: 1,
    "step": lambda x: 0,
    "relu": lambda x: float(x > 0),
    "leaky_relu": lambda x: 1 if x > 0 else 0.01,
    "sigmoid": lambda x: logistic(x) * logistic(-x),
    "tanh": lambda x: 1 / math.cosh(x) ** 2,
    "softmax": lambda x: math.exp(x) * (1 + math.e) / (math.exp(x) + 1 + math.e) ** 2,
    "gelu": lambda x: (
        math.erfc(-x / 2**0.5) / 2 + x * math.exp(-(x**2) / 2) / (2 * math.pi) ** 0.5
    ),
}


class TestCurves:
    @pytest.mark.parametrize("name", DERIVATIVES)
    def test_derivatives_are_the_analytic_ones(self, name):
        _, derivative, _ = plots.curves(name, ACTIVATIONS[name], X)
        # Drawn in float32, from x of at most 4.5 rounded to float32: some ten roundings
        # of numbers of a few units.
        np.testing.assert_allclose(
            derivative,
            [DERIVATIVES[name](x) for x in X],
            atol=10 * 4.5 * 2**-24,
            rtol=0,
        )

    def test_softmax_is_the_first_of_three(self):
        value, *_ = plots.curves(
            "softmax", ACTIVATIONS["softmax"], np.array([0.0, 1.0])
        )
        e = math.e
        np.testing.assert_allclose(
            value, [1 / (2 + e), e / (1 + 2 * e)], rtol=2**-21
        )  # a few float32 roundings


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_second_derivatives_are_the_analytic_ones(name):
    """sigma'' = sigma' (1 - 2 sigma), tanh'' = -2 tanh tanh'."""
    value, first, second = plots.curves(name, ACTIVATIONS[name], X)
    expected = {
        "sigmoid": first * (1 - 2 * value),
        "tanh": -2 * value * first,
        "relu": np.zeros(len(X)),
    }
    np.testing.assert_allclose(second, expected[name], atol=10 * 2**-24, rtol=0)


class TestUnjoined:
    def test_breaks_at_a_jump_and_nowhere_else(self):
        np.testing.assert_array_equal(
            plots.unjoined(np.array([0, 0.4, 0.5, 1.5, 1.5])),
            [0, 0.4, 0.5, np.nan, 1.5],
        )


@pytest.fixture(scope="module")
def figure():
    return plots.activations()


class TestActivations:
    def test_draws_every_one_with_its_derivative(self, figure):
        assert len(figure.axes) == len(ACTIVATIONS)
        for axes in figure.axes:
            lines = value, *_ = axes.lines[:3]
            assert [line.get_label() for line in lines] == [
                "value",
                "derivative",
                "second derivative",
            ]
            assert len({line.get_linestyle() for line in lines}) == 3
            x = np.asarray(value.get_xdata(), float)
            assert (x[0], x[-1], (x == 0).any()) == (-5, 5, False)
        titles = [axes.get_title() for axes in figure.axes]
        assert "softmax: first of softmax(x, 0, 1)" in titles
        assert len(set(titles)) == len(titles)

    def test_names_x_below_each_column(self, figure):
        assert [axes.get_xlabel() for axes in figure.axes].count("x") == plots.COLUMNS

    def test_is_a_picture(self, figure):
        assert plots.PICTURES["activations"] == (plots.activations, ())
        figure.canvas.draw()
        assert len(np.unique(np.asarray(figure.canvas.buffer_rgba())[..., 0])) > 2


def status_of(arguments, monkeypatch):
    """Exit code of the command."""
    monkeypatch.setattr("sys.argv", ["plots", *arguments])
    with pytest.raises(SystemExit) as left:
        command_line.run_on_names(plots.main, plots.__doc__, plots.define_flags)
    return left.value.code


class TestMain:
    @pytest.fixture(autouse=True)
    def in_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(
            plots.PICTURES, "activations", (lambda: Figure((2, 1)), ())
        )  # quick to draw

    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            (["activations"], "activations.png"),
            (["activations", "--output=a.svg"], "a.svg"),
        ],
    )
    def test_writes_the_picture_and_says_where(
        self, tmp_path, capsys, monkeypatch, arguments, path
    ):
        assert status_of(arguments, monkeypatch) == 0
        assert capsys.readouterr() == (f"files: {path}\n", "")
        start = (tmp_path / path).read_bytes()[:8]
        assert start == (b"\x89PNG\r\n\x1a\n" if path.endswith("png") else b"<?xml ve")

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ([], ["picture"]),
            (["losses"], ["'losses'", "activations"]),
            (["activations", "runs/x"], ["give activations, and nothing more"]),
            (["features"], ["features: give features RUN"]),
            (["boundary", "runs/x", "--output=a.png"], ["a.png must end in .gif"]),
            (["boundary", "runs/x"], ["runs/x holds no finished run"]),
            (["features", "runs/x"], ["runs/x holds no finished run"]),
            (["activations", "--out=a.png"], ["--out: unknown flag"]),
            (["activations", "--output=a"], ["--output: a ", "png"]),
            (
                ["activations", "--output=missing/a.png"],
                ["--output: cannot write missing/a.png: No such file"],
            ),
        ],
    )
    def test_bad_input_is_one_line_and_2(
        self, tmp_path, capsys, monkeypatch, arguments, parts
    ):
        assert status_of(arguments, monkeypatch) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert all(part in err for part in parts)
        assert list(tmp_path.iterdir()) == []

    def test_as_a_command(self, run):
        assert run("jaxnn.plots").returncode == 2
