"""Tests of tests/sharing.py."""

import pathlib

from tests import sharing


def test_what_is_named_is_there():
    assert all(
        pathlib.Path(name).exists() for name in (*sharing.TOGETHER, *sharing.LONGEST)
    )


def test_files_stay_together_and_so_do_those_that_share_recordings():
    assert sharing.unit("tests/a_test.py::TestA::test_b[c::d]") == "tests/a_test.py"
    assert (
        sharing.unit("tests/torch_ref/faults/a_test.py::test_b")
        == "tests/torch_ref/faults/"
    )


def test_the_longest_come_first():
    names = [
        "tests/a_test.py::test_b",
        *(
            f"{name}x::test_y" if name.endswith("/") else f"{name}::test_y"
            for name in reversed(sharing.LONGEST)
        ),
    ]
    assert sorted(names, key=sharing.rank) == names[::-1]
