"""report.html: whole, escaped, self-contained, and each z where it belongs."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.judging.explanation import Explanation
from parity.judging.measure import UNEQUAL, Measurement
from parity.judging.recording import Judgement
from parity.judging.third_opinion import Vote
from parity.judging.verdict import judge_measurements
from parity.quantities import QUANTITIES
from parity.report import curves, heat_map, page
from parity.report.quantity_table import quantity_table
from parity.semantics.switch import Switch

STEPS, TENSORS = 4, ("hidden/kernel", "hidden/bias")
HOSTILE = "<script>alert('&')</script>"
VOID = {"meta", "br", "path"}


class Page(HTMLParser):
    """Checks that elements nest; keeps the text and every attribute."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def recording(worst: float = 2.0, tensors=TENSORS, steps=STEPS) -> list[Measurement]:
    """z of `worst` at the last step of the first gradient, 1 elsewhere."""
    measured = [
        Measurement(step, quantity, tensor, 1.0, 1e-3)
        for step in range(steps)
        for quantity in ("grads", "updated")
        for tensor in tensors
    ]
    exact = [Measurement(step, "batch", "ids", 0.0, 0.0) for step in range(steps)]
    return [*measured, *exact, Measurement(steps - 1, "grads", tensors[0], worst, 1e-3)]


def written(
    tmp_path,
    measurements,
    diagnosis=None,
    title="digits fp16",
    more=None,
    order=TENSORS,
    score=None,
    vote=None,
) -> str:
    steps = max(m.step for ms in measurements.values() for m in ms) + 1
    judgements = {
        name: Judgement(
            ms, judge_measurements(ms, steps, order=order), order, diagnosis, vote
        )
        for name, ms in measurements.items()
    }
    page.write(tmp_path / "report.html", title, judgements, more or {}, score)
    return (tmp_path / "report.html").read_text()


def cause(
    name="loss_not_scaled",
    explanation="The loss is not scaled.",
    reference="DeepSpeed PR 8393",
    before=2e8,
    after=0.9,
    explained=True,
) -> Explanation:
    switch = Switch(name, (), explanation, reference, lambda experiment: True)
    return Explanation((switch,), before, after, explained, 0.0)


class TestPage:
    def test_parity(self, tmp_path):
        text = Page(
            written(
                tmp_path,
                {"torch": recording(), "jax": recording(0.5)},
                more={"seconds": {"judging": 3}},
            )
        )
        assert (
            "Parity. In 4 steps nothing that torch or jax computed is further than z "
            "= 2.00" in text.text
        )
        assert "Divergence" not in text.text
        assert "Where they part" not in text.text
        assert "judging 3" in text.text

    def test_says_what_the_judge_was_shown_to_catch(self, tmp_path):
        row = {
            "name": "adam_eps",
            "planted": 3,
            "detectable": 2,
            "caught": 2,
            "located": 1,
            "explained": 0,
            "below": {"mlp fp32 adam_eps": 1.25},
        }
        score = {
            "commit": "abc1234",
            "sentence": "caught 2 of 2",
            "faults": [row],
            "bases": [],
        }
        text = Page(written(tmp_path, {"torch": recording()}, score=score)).text
        assert "(commit abc1234): caught 2 of 2." in text
        assert "adam_eps32 of 21 of 20 of 2mlp fp32 adam_eps (z 1.2)" in text
        assert (
            "green verdict" not in Page(written(tmp_path, {"torch": recording()})).text
        )

    def test_divergence_is_named(self, tmp_path):
        text = Page(
            written(tmp_path, {"torch": recording(5e3), "jax": recording()})
        ).text
        assert (
            "Divergence. torch parts from its replay at step 3: gradients "
            "hidden/kernel, z = 5.0e+03; 8 is" in text
        )
        assert "Parity." not in text

    def test_divergence_of_the_other_recording_opens_it(self, tmp_path):
        text = written(tmp_path, {"torch": recording(), "jax": recording(99.0)})
        assert '<details class="other" open>' in text
        assert "Divergence.</b> jax" in text

    def test_broken_equality_is_named(self, tmp_path):
        broken = [*recording(), Measurement(1, "batch", "ids", UNEQUAL, 0.0)]
        assert (
            "torch breaks an equality at step 1: sample ids"
            in Page(written(tmp_path, {"torch": broken})).text
        )

    def test_needs_no_network_and_no_script(self, tmp_path):
        text = written(
            tmp_path,
            {"torch": recording(99.0)},
            [cause(reference="https://example.org/8393")],
        )
        attributes = dict(Page(text).attributes)
        assert not attributes.keys() & {"src", "onclick", "onload"}
        assert attributes["href"] == "https://example.org/8393", (
            "a link to follow is not a resource to load"
        )
        assert not re.findall(r"<script|<link|@import|url\(", text)

    def test_everything_is_escaped(self, tmp_path):
        names = (HOSTILE, "hidden/bias")
        text = written(
            tmp_path,
            {HOSTILE: recording(99.0, names)},
            [cause(**dict.fromkeys(("name", "explanation", "reference"), HOSTILE))],
            HOSTILE,
            {HOSTILE: HOSTILE, "flags": [HOSTILE]},
            names,
        )
        parsed = Page(text)
        assert "script" not in parsed.tags
        assert parsed.text.count(HOSTILE) >= 10

    def test_smaller_than_a_megabyte(self, tmp_path):
        """50 steps of 200 tensors whose z change colour at every step, in every
        quantity, in two recordings."""
        rng = np.random.default_rng(0)
        names = [f"block_{number}/attention/kernel" for number in range(200)]
        kinds = [
            *(("activations", name) for name in names[::2]),
            *(("grads", name) for name in names),
            *(
                ("moments", f"{moment}/{name}")
                for moment in ("first", "second")
                for name in names
            ),
            *(("updated", name) for name in names),
        ]
        measured = [
            Measurement(step, quantity, name, float(rng.lognormal(0, 1)), 1e-3)
            for step in range(50)
            for quantity, name in kinds
        ]
        written(tmp_path, {"torch": measured, "jax": measured}, order=names)
        assert (tmp_path / "report.html").stat().st_size < 1e6

    def test_every_quantity_has_a_colour(self):
        style = page.STYLE.read_text()
        assert not [name for name in QUANTITIES if f".{name}" not in style]


class TestDiagnosis:
    def test_explained(self, tmp_path):
        others = [cause(name="stale_gradient", explained=False)]
        text = Page(
            written(tmp_path, {"torch": recording(99.0)}, [cause(), *others])
        ).text
        assert "Explained by loss_not_scaled: with it z 2.0e+08 becomes 0.90." in text
        assert "DeepSpeed PR 8393" in text
        assert "stale_gradient" not in text

    def test_explained_twice(self, tmp_path):
        text = Page(
            written(
                tmp_path,
                {"torch": recording(99.0)},
                [cause(), cause(name="stale_gradient")],
            )
        ).text
        assert "Explained by loss_not_scaled" in text
        assert "which this recording cannot tell apart, by stale_gradient" in text

    def test_not_explained(self, tmp_path):
        text = Page(
            written(
                tmp_path,
                {"torch": recording(99.0)},
                [cause(explained=False, after=UNEQUAL)],
            )
        ).text
        assert "No known difference explains it. The nearest:" in text
        assert (
            "Not explained by loss_not_scaled: with it z 2.0e+08 becomes unequal."
            in text
        )

    def test_nothing_applies(self, tmp_path):
        assert (
            "No known difference explains it, or comes near."
            in Page(written(tmp_path, {"torch": recording(99.0)}, [])).text
        )

    def test_not_looked_for(self, tmp_path):
        assert "Why" not in Page(written(tmp_path, {"torch": recording(99.0)})).text

    def test_which_side_is_nearer(self, tmp_path):
        text = Page(
            written(tmp_path, {"torch": recording(99.0)}, vote=Vote(0.1, 1e-7))
        ).text
        assert "z 99.00; the oracle (NumPy, float64) sides with the replay" in text


class TestTable:
    def test_rows_are_what_was_compared(self):
        text = Page(quantity_table(judge_measurements(recording(99.0), STEPS))).text
        assert "gradients9✗ 99.00step 3 hidden/kernel1.0e-031.0e-03" in text
        assert "sample ids4equalanyany" in text
        assert "loss" not in text


class TestCurves:
    def test_worst_tensor_of_each_step(self):
        series = curves.worst_by_step(recording(5.0))
        assert series["grads"] == {0: 1.0, 1: 1.0, 2: 1.0, 3: 5.0}
        assert "batch" not in series, "an equality that holds is no curve"

    def test_broken_equality_is_drawn_at_the_top(self):
        figure = curves.figure(
            [*recording(), Measurement(2, "batch", "ids", UNEQUAL, 0.0)], 8.0
        )
        assert re.search(
            r'class="batch">.*?d=""/><path class="dots" d="M2 2\.7h0"', figure
        )
        assert ">unequal</span>" in figure

    def test_line_stops_where_z_is_zero_or_unequal(self):
        points = {0: 1.0, 1: 0.0, 2: 1.0, 3: 2.0, 4: UNEQUAL}
        drawn = curves._curve("grads", points, curves.Scale({"grads": points}, 8.0), 5)
        line = re.search(r'class="line" d="([^"]*)"', drawn)[1]
        assert [re.sub(r" [\d.]+", "", run) for run in line.split("M")[1:]] == [
            "0",
            "2L3",
        ]

    @given(st.lists(st.floats(0, 1e300), min_size=2, max_size=5))
    def test_a_larger_z_is_never_lower(self, values):
        scale = curves.Scale({"grads": dict(enumerate(values))}, 8.0)
        heights = [scale.height(value) for value in sorted(values)]
        assert heights == sorted(heights, reverse=True)
        assert scale.height(UNEQUAL) < curves.TOP <= min(heights)
        assert max(heights) <= 100


class TestHeatMap:
    def test_rows_in_the_order_of_a_step(self):
        order = ("hidden/kernel", "output/bias", "hidden/bias")
        measurements = [Measurement(0, "grads", name, 1.0, 0) for name in sorted(order)]
        measurements += [
            Measurement(0, "moments", f"{moment}/{name}", 1.0, 0)
            for name in sorted(order)
            for moment in ("second", "first")
        ]
        table = heat_map.rows(measurements, order)
        assert tuple(table["grads"]) == order
        assert tuple(table["moments"]) == tuple(
            f"{moment}/{name}" for moment in ("first", "second") for name in order
        )

    def test_each_step_has_its_colour(self):
        row = {0: 0.0, 1: 0.2, 2: 0.3, 4: 0.4, 5: 9.0, 6: UNEQUAL}
        assert list(heat_map._strokes(row, 8.0)) == [
            '<path class=c0 d="M0 0h1"/>',
            '<path class=c1 d="M1 0h2m1 0h1"/>',
            '<path class=c6 d="M5 0h1"/>',
            '<path class=c9 d="M6 0h1"/>',
        ]

    @pytest.mark.parametrize("threshold", [8.0, 3.0])
    def test_colours_part_at_the_threshold(self, threshold):
        assert heat_map.colour(threshold, threshold) == 5
        assert heat_map.colour(np.nextafter(threshold, 99), threshold) == 6

    @given(st.lists(st.floats(0, UNEQUAL), min_size=2))
    def test_a_larger_z_never_has_a_paler_colour(self, values):
        colours = [heat_map.colour(value, 8.0) for value in sorted(values)]
        assert colours == sorted(colours)

    def test_what_failed_is_open_in_a_large_figure(self):
        names = tuple(f"layer_{number}" for number in range(heat_map.OPEN_ROWS))
        figure = heat_map.figure(recording(99.0, names, steps=1), 8.0, names)
        assert re.findall(r"<details( open)?><summary.*?<b>(.*?)</b>", figure) == [
            (" open", "gradients"),
            ("", "updated parameters"),
        ]

    @pytest.mark.parametrize(
        "quantity", [name for name, quantity in QUANTITIES.items() if quantity.is_exact]
    )
    def test_equality_that_holds_is_one_row(self, quantity):
        measurements = [Measurement(0, quantity, name, 0.0, 0.0) for name in TENSORS]
        assert heat_map.figure(measurements, 8.0, ()).count("<svg") == 1
        broken = [m._replace(z=UNEQUAL) for m in measurements]
        assert (
            heat_map.figure([*measurements[:1], broken[1]], 8.0, ()).count(
                "unequal <small>at 0"
            )
            == 1
        )
        assert heat_map.figure(broken, 8.0, ()).count("<svg") == 3, (
            "one for all, and each that is broken"
        )
