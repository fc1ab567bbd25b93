import contextlib

import pytest

from jaxnn.experiment.patches import Patch, put


class Plain:
    rate = 1

    def double(self, x):
        return 2 * x


def doubled(value):
    return 2 * value


@pytest.mark.parametrize(
    ("holder", "read"),
    [
        (Plain, lambda: Plain.rate),
        (rates := {"rate": 1}, lambda: rates["rate"]),
        (plain := Plain(), lambda: plain.rate),
    ],
)
def test_replacements_hold_until_undone_the_last_on_top(holder, read):
    with contextlib.ExitStack() as undo:
        put(
            undo,
            [
                Patch(holder, "rate", doubled),
                Patch(holder, "rate", lambda value: value + 1),
            ],
        )
        assert read() == 3
    assert read() == 1


def test_what_an_object_inherits_is_inherited_again():
    one = Plain()
    with contextlib.ExitStack() as undo:
        put(undo, [Patch(one, "double", lambda plain: lambda x: plain(x) + 1)])
        assert (one.double(3), Plain().double(3)) == (7, 6)
    assert "double" not in vars(one)
    assert one.double(3) == 6


def test_all_is_undone_where_a_later_one_fails():
    with pytest.raises(AttributeError, match="absent"), contextlib.ExitStack() as undo:
        put(undo, [Patch(Plain, "rate", doubled), Patch(Plain, "absent", doubled)])
    assert Plain.rate == 1
