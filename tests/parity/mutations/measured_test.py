import re

from parity.mutations import measured


class TestScore:
    def test_is_read_as_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(measured, "FILE", tmp_path / "measured.json")
        assert measured.read() is None
        measured.write({"commit": "abc", "faults": [{"name": "a"}]})
        assert measured.read() == {"commit": "abc", "faults": [{"name": "a"}]}


class TestCommit:
    def test_names_the_checkout(self):
        assert re.fullmatch(r"[0-9a-f]{7,}\+?|unknown", measured.commit())

    def test_outside_of_one_it_is_unknown(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        monkeypatch.setattr(measured, "FILE", tmp_path / "measured.json")
        assert measured.commit() == "unknown"
