"""Only the traceback of a closed event loop is dropped, and the hook is put back."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from jaxnn import late_callbacks


@pytest.fixture
def told(monkeypatch):
    """What reaches the hook that was there before."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    return told


def raised_by(call) -> SimpleNamespace:
    """What Python hands to the hook when C++ calls and it raises."""
    try:
        call()
    except RuntimeError as error:
        trace = error.__traceback__.tb_next.tb_next  # without this frame and the lambda
        return SimpleNamespace(exc_value=error, exc_traceback=trace, object=None)
    raise AssertionError


def closed_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def test_a_call_into_a_closed_loop_is_dropped(told):
    late_callbacks.drop()
    loop = closed_loop()
    sys.unraisablehook(raised_by(lambda: loop.call_soon_threadsafe(print)))
    assert told == []


def test_what_else_says_so_is_not(told):
    late_callbacks.drop()
    loop = closed_loop()
    other = raised_by(lambda: loop.call_soon(print))
    sys.unraisablehook(other)
    assert told == [other]


def test_the_hook_is_put_back(told):
    before = sys.unraisablehook
    put_back = late_callbacks.drop()
    assert sys.unraisablehook != before
    put_back()
    assert sys.unraisablehook == before


def test_a_hook_set_meanwhile_stays(told, monkeypatch):
    put_back = late_callbacks.drop()
    monkeypatch.setattr(sys, "unraisablehook", print)
    put_back()
    assert sys.unraisablehook is print
