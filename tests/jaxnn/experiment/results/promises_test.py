"""Tests of jaxnn/experiment/results/promises.py."""

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.results.promises import Promise, read_promises, read_seconds


def read(tmp_path, text):
    path = tmp_path / "x.flags"
    path.write_text(text)
    return read_promises(path)


class TestRead:
    def test_one_or_several(self, tmp_path):
        assert read(
            tmp_path, "# A head.\n# Expect: accuracy >= 0.95\n--epochs=3\n"
        ) == [Promise("accuracy", ">=", "0.95")]
        assert read(tmp_path, "# Expect: a < 1e-2, b <= other.b\n") == [
            Promise("a", "<", "1e-2"),
            Promise("b", "<=", "other.b"),
        ]

    @pytest.mark.parametrize(
        "text",
        ["", "--epochs=3\n", "# Expect: a good result\n", "# Expect: a < 1, b\n"],
    )
    def test_refuses_a_head_that_promises_nothing(self, tmp_path, text):
        with pytest.raises(
            UserError,
            match=r"x\.flags has no line such as '# Expect: accuracy >= 0\.95'",
        ):
            read(tmp_path, text)


class TestIsMet:
    @pytest.mark.parametrize(
        ("relation", "met"), [("<", False), ("<=", True), (">", False), (">=", True)]
    )
    def test_a_number(self, relation, met):
        assert Promise("a", relation, "0.5").is_met("x", {"x": {"a": 0.5}}) is met

    def test_another_experiments_metric(self):
        promise = Promise("gap", "<", "other.gap")
        assert promise.is_met("x", {"x": {"gap": 0.1}, "other": {"gap": 0.2}})
        assert not promise.is_met("x", {"x": {"gap": 0.1}, "other": {"gap": 0.05}})

    def test_what_is_missing_is_not_met(self):
        assert not Promise("a", ">=", "0").is_met("x", {"x": {}})
        assert not Promise("a", ">=", "y.a").is_met("x", {"x": {"a": 1}})

    def test_reads_as_it_was_written(self):
        assert str(Promise("a", ">=", "0.5")) == "a >= 0.5"


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("# Time on 2 CPU cores: about 12 s.", 12),
        ("# Time on 2 CPU cores: about 2.5 s in jaxnn, 10 s under DeepSpeed.", 2.5),
        ("# Expect: accuracy >= 1", 1),
    ],
)
def test_read_seconds(tmp_path, head, seconds):
    flagfile = tmp_path / "x.flags"
    flagfile.write_text(f"# A network.\n{head}\n--model=mlp\n")
    assert read_seconds(flagfile) == seconds
