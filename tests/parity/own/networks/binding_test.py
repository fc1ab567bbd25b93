"""Tests of parity/own/networks/binding.py: recorded inputs as somebody's arguments."""

import pytest

from jaxnn.experiment.errors import UserError
from parity.own.networks.binding import bind

NAMED = {"ids": 1, "mask": 2}


def call(function, named=NAMED, unnamed=()):
    """Returns what a function that returns its locals was given besides the first."""
    places, keywords = bind(function, "model", named, unnamed)
    return function("first", *places, **keywords)


class TestBind:
    def test_by_name_in_any_order(self):
        assert call(lambda s, mask, ids: (mask, ids)) == (2, 1)

    def test_by_name_though_there_is_a_default(self):
        assert call(lambda s, ids, mask=None: (ids, mask)) == (1, 2)

    def test_by_place_where_no_name_fits(self):
        assert call(lambda s, x, y: (x, y)) == (1, 2)

    def test_what_a_name_took_is_not_given_again(self):
        assert call(lambda s, x, ids: (x, ids)) == (2, 1)

    def test_unknown_arguments_keep_their_defaults(self):
        assert call(lambda s, ids, other=7: (ids, other)) == (1, 7)

    def test_values_without_a_name_come_first(self):
        assert call(lambda s, x, y: (x, y), {"ids": 1}, [5]) == (5, 1)

    def test_positional_only(self):
        def function(s, x, mask, /, *, ids):
            return x, mask, ids

        assert call(function, NAMED, [5]) == (5, 2, 1)

    def test_any_number_of_arguments(self):
        assert call(lambda s, *xs: xs, NAMED, [5]) == (1, 2, 5)

    def test_keywords_without_a_name_get_nothing(self):
        assert call(lambda s, ids, **rest: (ids, rest)) == (1, {})

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (lambda s, ids, deterministic: deterministic, False),
            (lambda s, ids, deterministic=True: deterministic, False),
            (lambda s, ids, train: train, True),
            (lambda s, ids, *, training=False: training, True),
        ],
    )
    def test_tells_that_it_trains(self, function, expected):
        assert call(function) is expected

    def test_a_recorded_flag_counts(self):
        assert call(lambda s, train: train, {"train": 0}) == 0

    def test_too_few_values(self):
        with pytest.raises(UserError) as caught:
            call(lambda s, ids, mask, types: None)
        assert str(caught.value) == (
            "model: its argument 'types' is none of what torch's forward was given "
            "(ids, mask); name it as there, or give it a default"
        )

    def test_too_few_values_for_a_loss(self):
        with pytest.raises(UserError, match=r"'b' is none .* \(nothing and 1 more for"):
            bind(lambda outputs, a, b: None, "loss", {}, [5])
