"""Imports matplotlib in half the time."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def undocumented() -> Iterator[None]:
    """What is imported of matplotlib meanwhile gets no generated documentation.

    matplotlib writes a signature and a docstring for the `set` method of each of its
    hundred classes of artists, inspecting all their methods: 0.2 to 0.3 of 0.5 s of
    processor time, for help that a run never shows. Nothing else depends on them. A
    matplotlib without that private method is imported as it is.
    """
    from matplotlib.artist import Artist

    name = "_update_set_signature_and_docstring"
    write = vars(Artist).get(name)
    if write:
        setattr(Artist, name, classmethod(lambda cls: None))
    try:
        yield
    finally:
        if write:
            setattr(Artist, name, write)
