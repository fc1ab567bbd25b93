"""The sentences of a verdict."""

import io

from rich.console import Console

from parity.judging.measure import UNEQUAL, Measurement
from parity.judging.verdict import judge_measurements
from parity.report.terminal import print_verdicts


def table(*measurements, width):
    stream = io.StringIO()
    verdict = judge_measurements(measurements, 1)
    print_verdicts({"torch": verdict}, "run", Console(file=stream, width=width))
    return stream.getvalue()


def printed(*measurements):
    return table(*measurements, width=100).splitlines()[-1]


FINE = Measurement(0, "grads", "kernel", 1.0, 1e-6)


class TestSentence:
    def test_parity(self):
        assert printed(FINE) == "torch: parity, worst z 1.00 of 8 allowed"

    def test_a_parity_that_says_nothing_of_some_tensors(self):
        noise = [Measurement(0, "grads", name, 1.0, 0.25) for name in ("a", "b")]
        assert printed(FINE, *noise) == (
            "torch: parity, worst z 1.00 of 8 allowed; gradients a and 1 more would "
            "pass with an error of a tenth, the first with 25%: rounding alone is as "
            "large there"
        )

    def test_a_broken_equality_says_by_how_much(self):
        gap = "0.2, 0.1 expected"
        broken = Measurement(0, "learning_rate", "", UNEQUAL, 0.0, gap=gap)
        assert printed(FINE, broken) == (
            "torch: DIVERGENCE, first at step 0 (learning rate), z unequal of 8 "
            "allowed: 0.2, 0.1 expected"
        )

    def test_brackets_are_no_markup(self):
        odd = Measurement(0, "grads", "[red]w[/red]", 9.0, 1e-6)
        assert "[red]w[/red]" in printed(FINE, odd)


def test_in_a_narrow_terminal_the_figures_stay_whole():
    name = "second/block_1/norm_mlp/bias"
    wrong = Measurement(0, "moments", name, 2.3e4, 7.02e-07)
    narrow = table(wrong, width=48)
    assert "2.3e+04" in narrow
    assert "7.0e-07" in narrow
    assert "…" not in narrow
    assert name in table(wrong, width=100)
