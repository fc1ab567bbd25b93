"""Tests of jaxnn/experiment/memory.py."""

import os

import pytest

from jaxnn.experiment import memory
from jaxnn.experiment.errors import UserError


class TestRequireRoom:
    def test_takes_what_fits(self):
        memory.require_room(2**20, "--batch_size", "rows")

    def test_names_the_flag_and_both_sizes(self, monkeypatch):
        monkeypatch.setattr(memory, "total", lambda: 2**30)
        with pytest.raises(
            UserError,
            match=r"^--width: 7 parameters take 2 GiB .* has 1;",
        ):
            memory.require_room(2**31, "--width", "7 parameters")


class TestTotal:
    @pytest.mark.parametrize(("limit", "is_less"), [("max", False), ("1024", True)])
    def test_a_container_may_have_less(self, tmp_path, monkeypatch, limit, is_less):
        file = tmp_path / "memory.max"
        file.write_text(f"{limit}\n")
        monkeypatch.setattr(memory, "LIMIT_OF_CONTAINER", file)
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert memory.total() == (1024 if is_less else physical)
