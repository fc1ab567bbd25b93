import re

from parity.report import published_score


class TestScore:
    def test_is_read_as_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(published_score, "FILE", tmp_path / "measured.json")
        assert published_score.read() is None
        published_score.write({"commit": "abc", "faults": [{"name": "a"}]})
        assert published_score.read() == {"commit": "abc", "faults": [{"name": "a"}]}


class TestCommit:
    def test_names_the_checkout(self):
        assert re.fullmatch(r"[0-9a-f]{7,}\+?|unknown", published_score.commit())

    def test_outside_of_one_it_is_unknown(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        monkeypatch.setattr(published_score, "FILE", tmp_path / "measured.json")
        assert published_score.commit() == "unknown"
