"""Tests of parity/oracle/graph.py."""

import math

import pytest

from jaxnn.experiment.errors import UserError
from parity.oracle import graph


def nodes_of(text, at=""):
    """Returns node name -> (value, derivative), as the table prints them."""
    rows = [
        line.split()
        for line in graph.table(graph.build(text, graph.parse_values(at)))[1:]
    ]
    return {row[0]: (float(row[-2]), float(row[-1])) for row in rows}


class TestTable:
    def test_the_example_by_hand(self):
        # g = e^f with e = 7 and f = 6: by the power, and by the exponent.
        g = 7**6
        by_e, by_f = 6 * 7**5, g * math.log(7)
        expected = {
            "a": (1, by_e + 6 * by_f),
            "b": (2, 3 * (by_e + by_f)),
            "c": (3, 2 * (by_e + by_f)),
            "d": (6, by_e + by_f),
            "e": (7, by_e),
            "f": (6, by_f),
            "g": (g, 1),
        }
        found = nodes_of(graph.EXAMPLE, graph.EXAMPLE_AT)
        assert list(found) == list(expected)
        for name, numbers in expected.items():
            assert found[name] == pytest.approx(numbers, rel=1e-8)

    def test_with_names_of_its_own(self):
        lines = graph.table(graph.build("exp(a*(b*c))", {"a": 1.0, "b": 2.0, "c": 3.0}))
        assert lines == [
            "node  is            value  d v3 / d node",
            "a     given             1     2420.57276",
            "b     given             2     1210.28638",
            "c     given             3     806.857587",
            "v1    b * c             6     403.428793",
            "v2    a * v1            6     403.428793",
            "v3    exp(v2)  403.428793              1",
        ]

    @pytest.mark.parametrize(
        ("text", "value", "derivative"),
        [
            ("x + x*x", 12, 7),
            ("x - 2/x", 3 - 2 / 3, 1 + 2 / 9),
            ("-x**2", -9, -6),
            ("2**x", 8, 8 * math.log(2)),
            ("2^x + 1", 9, 8 * math.log(2)),
            ("-x^2", -9, -6),
            ("x**x", 27, 27 * (math.log(3) + 1)),
            ("log(x)", math.log(3), 1 / 3),
            ("sqrt(x)", 3**0.5, 3**-0.5 / 2),
            ("tanh(x)", math.tanh(3), 1 - math.tanh(3) ** 2),
            ("relu(x) + relu(-x)", 3, 1),
            ("x", 3, 1),
            (
                "sigmoid(x)",
                1 / (1 + math.exp(-3)),
                math.exp(-3) / (1 + math.exp(-3)) ** 2,
            ),
            ("y = x; y*y", 9, 6),
            ("2*3*x", 18, 6),
        ],
    )
    def test_operators_and_functions(self, text, value, derivative):
        found = nodes_of(text, "x=3")
        assert found["x"][1] == pytest.approx(derivative, rel=1e-8)
        assert found[list(found)[-1]][0] == pytest.approx(value, rel=1e-8)

    def test_what_the_output_does_not_need_has_derivative_zero(self):
        assert nodes_of("d = b*c; e = a+d; f = d*a; g = exp(f)", graph.EXAMPLE_AT)[
            "e"
        ] == (7, 0)

    def test_a_number_with_a_name(self):
        assert nodes_of("k = 2; k*x", "x=3") == {"x": (3, 2), "k": (2, 3), "v1": (6, 1)}

    @pytest.mark.parametrize(
        ("text", "output", "slope"), [("d = b*b; d*a; d", "d", 4), ("b*a; b", "b", 1)]
    )
    def test_the_last_formula_is_the_output(self, text, output, slope):
        found = nodes_of(text, "a=1,b=2")
        assert list(found)[-1] == output
        assert found["b"][1] == slope
        assert found["a"][1] == 0

    def test_names_are_not_taken_twice(self):
        assert list(nodes_of("v1*x + x", "v1=2,x=3")) == ["v1", "x", "v2", "v3"]

    @pytest.mark.parametrize(
        ("text", "at", "where"),
        [
            ("log(a)", "a=0", "value at v1 (log(a)) is -inf"),
            ("1/a", "a=0", "value at v1 (1 / a) is inf"),
            ("sqrt(a)", "a=0", "derivative at a (given) is inf"),
            ("(-2)**a", "a=0.5", "value at v2 (v1 ^ a) is nan"),
            ("exp(a)", "a=1000", "is inf"),
            ("a", "a=nan", "value at a (given) is nan"),
        ],
    )
    def test_what_is_not_finite_is_named(self, text, at, where):
        with pytest.raises(UserError) as error:
            nodes_of(text, at)
        assert str(error.value).startswith("--at: the ")
        assert where in str(error.value)


class TestBuild:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "3",
            "a*b*c; 3",
            "a +",
            "a b",
            "(a",
            "a; +",
            "f(a)",
            "exp(a, b)",
            "exp()",
            "exp(x=a)",
            "exp",
            "a.real",
            "a[0]",
            "a if b else a",
            "a < b",
            "a and b",
            "~a",
            "a // b",
            "a % b",
            "a @ b",
            "lambda: a",
            "[a]",
            "'a'",
            "a + 'b'",
            "True",
            "a + None",
            "1j*a",
            "...",
            "__import__('os').system('ls')",
            "exp.__class__(a)",
            "import os",
            "a = b = c",
            "a += b",
            "x.y = a",
            "for a in b: c",
            "if a:\n  b",
            "a = a*b",
            "d = a; d = b",
            "exp = a",
            "d: a",
            "yield",
            "a\x00",
            "9" * 400 + "*a",
            "9" * 5000 + "*a",
            "(" * 300 + "a" + ")" * 300,
            "-" * 3000 + "a",
            "a" + "+a" * 20000,
            "# a",
            "await a",
            "a := b",
            "f'{a}'",
        ],
    )
    def test_refuses_what_is_no_expression(self, text):
        with pytest.raises(UserError) as error:
            graph.table(graph.build(text, {"a": 1.0, "b": 2.0, "c": 3.0}))
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(("--graph: ", "--at: "))

    def test_asks_for_a_value(self):
        with pytest.raises(
            UserError, match=r"^--at: gives no value for b; add b=NUMBER$"
        ):
            graph.build("a*b", {"a": 1.0})

    def test_refuses_a_value_for_nothing(self):
        with pytest.raises(UserError, match=r"^--at: c is not in 'a'; leave it out$"):
            graph.build("a", {"a": 1.0, "c": 2.0})


class TestParseValues:
    def test_reads_numbers(self):
        assert graph.parse_values("a=1, b = -2.5e3,") == {"a": 1, "b": -2500}

    @pytest.mark.parametrize("items", ["a", "a=", "a=x", "=", "a=1=2"])
    def test_refuses_others(self, items):
        with pytest.raises(UserError, match=r"^--at: takes a=1,b=2 and so on, got "):
            graph.parse_values(items)
