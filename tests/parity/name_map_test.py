"""Names of a trace and of one's own functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from parity.name_map import Names, suggestions

words = st.text("abc./", min_size=1, max_size=6)


class TestNames:
    @given(
        pairs=st.dictionaries(words, words.map(lambda word: "own " + word), max_size=5),
        others=st.sets(words),
    )
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_there_and_back(self, pairs, others):
        pairs = dict(zip(pairs, sorted(set(pairs.values()))))
        params = {
            name: np.full(2, number) for number, name in enumerate({*pairs, *others})
        }
        names = Names(pairs)
        outputs = {
            f"grads/{name}": array for name, array in names.to_own(params).items()
        }
        back = names.to_trace(outputs, params, "grads")
        assert {name: array.tolist() for name, array in back.items()} == {
            f"grads/{name}": array.tolist() for name, array in params.items()
        }

    def test_refuses_one_name_for_two(self):
        with pytest.raises(UserError, match="name_map: w stands for several names"):
            Names({"a": "w", "b": "w"})

    def test_names_what_has_no_partner(self):
        with pytest.raises(UserError, match="the step returns no grads/b"):
            Names({}).to_trace(
                {"grads/a": np.ones(1)}, {"a": np.ones(1), "b": np.ones(2)}, "grads"
            )
        with pytest.raises(UserError, match="the trace has no params/b"):
            Names({}).to_trace(
                {"grads/a": np.ones(1), "grads/b": np.ones(2)},
                {"a": np.ones(1)},
                "grads",
            )


class TestSuggestions:
    def test_pairs_by_shape_then_by_value(self):
        left = {
            "x": np.zeros(3),
            "y": np.full(3, 5.0),
            "z": np.zeros(7),
            "same": np.zeros(3),
        }
        right = {"p": np.full(3, 4.9), "q": np.full(3, 0.1), "same": np.zeros(3)}
        assert suggestions(left, right) == {"x": "q", "y": "p"}
