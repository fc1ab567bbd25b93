"""Tests of jaxnn/predict.py and jaxnn/finished_run.py: a run is read back and applied
to new rows."""

import csv
import sys

import numpy as np
import pytest

import jaxnn.predict
from jaxnn import train
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line

RNG = np.random.default_rng(0)
ROWS = [
    [f"{x:.4f}", f"{y:.4f}", colour]
    for (x, y), colour in zip(
        RNG.standard_normal((60, 2)) * [1, 100], RNG.choice(["red", "green"], 60)
    )
]
CLASSES = ["no", "yes"]


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Workdir of a logistic regression on a CSV file with a column of text."""
    folder = tmp_path_factory.mktemp("predict")
    rows = [[*row, CLASSES[float(row[0]) + (row[2] == "red") > 0.5]] for row in ROWS]
    path = write(folder / "train.csv", ["x", "y", "colour", "label"], rows)
    experiment, _ = command_line.parse(
        [
            "",
            "--dataset=csv",
            f"--data_path={path}",
            "--target=label",
            "--preprocess=standardize",
            "--model=logistic",
            "--loss=binary_cross_entropy",
            "--batch_size=16",
            "--epochs=20",
            "--learning_rate=0.1",
            "--noplots",
            f"--workdir={folder / 'run'}",
        ],
        "fp32",
    )
    train.main(experiment)
    return folder / "run"


@pytest.fixture
def predict(run, monkeypatch, capsys):
    """predict("--data_path=...") -> (exit code, stdout, stderr)."""

    def start(*arguments, workdir=run):
        monkeypatch.setattr(
            sys, "argv", ["jaxnn.predict", f"--workdir={workdir}", *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as end:
            command_line.run_tool(
                jaxnn.predict.main, jaxnn.predict.__doc__, jaxnn.predict.define_flags
            )
        return end.value.code, *capsys.readouterr()

    return start


class TestMain:
    def test_probabilities_are_the_formulas(self, run, predict, tmp_path):
        """By hand in float64 from the parameters and the training split's statistics: 4
        digits of float32's 7."""
        new = write(
            tmp_path / "new.csv",
            ["colour", "y", "x"],
            [[c, y, x] for x, y, c in ROWS[:7]],
        )
        code, out, err = predict(f"--data_path={new}")
        assert code == 0, err
        header, *rows = list(csv.reader(out.splitlines()))
        assert header == ["label", "p(no)", "p(yes)"]
        logits = by_hand(run, new)
        np.testing.assert_allclose(
            [float(row[2]) for row in rows], 1 / (1 + np.exp(-logits)), rtol=1e-4
        )
        np.testing.assert_allclose(
            [float(row[1]) + float(row[2]) for row in rows], 1, rtol=1e-7
        )
        assert [row[0] for row in rows] == [CLASSES[int(z >= 0)] for z in logits]

    def test_writes_a_file_once(self, predict, tmp_path):
        new, output = (
            write(tmp_path / "new.csv", ["x", "y", "colour"], ROWS),
            tmp_path / "out.csv",
        )
        assert predict(f"--data_path={new}", f"--output={output}")[:2] == (
            0,
            f"60 predictions in {output}\n",
        )
        assert len(output.read_text().splitlines()) == 61
        code, _, err = predict(f"--data_path={new}", f"--output={output}")
        assert (code, err) == (
            2,
            f"error: --output: {output} exists; choose another file or add "
            "--overwrite\n",
        )
        assert (
            predict(f"--data_path={new}", f"--output={output}", "--overwrite")[0] == 0
        )

    @pytest.mark.parametrize(
        ("header", "row", "message"),
        [
            (["x", "colour"], ["1", "red"], "column 'y' is missing"),
            (
                ["x", "y", "colour", "z"],
                ["1", "2", "red", "3"],
                "column 'z' is unknown",
            ),
            (["x", "y", "colour"], ["1", "two", "red"], "new.csv:3"),
            (["x", "y", "colour"], ["1", "", "red"], "new.csv:3"),
            (["x", "y", "colour"], ["1", "2"], "new.csv:3"),
            (["x", "y", "colour"], ["nan", "2", "red"], "new.csv:3"),
        ],
    )
    def test_rows_that_cannot_be_read_are_named(
        self, predict, tmp_path, header, row, message
    ):
        good = [{"x": "1", "y": "2", "colour": "red"}.get(name, "3") for name in header]
        code, out, err = predict(
            f"--data_path={write(tmp_path / 'new.csv', header, [good, row])}",
            f"--output={tmp_path / 'out.csv'}",
        )
        assert (code, out) == (2, "")
        assert err.startswith("error: --data_path: ")
        assert message in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out.csv").exists()

    def test_texts_that_training_did_not_know_are_told(self, predict, tmp_path):
        rows = [["1", "2", "violet"], ["3", "4", "red"], ["5", "6", "pink"]]
        path = write(tmp_path / "new.csv", ["x", "y", "colour"], rows)
        code, out, err = predict(f"--data_path={path}")
        assert (code, len(out.splitlines())) == (0, 4)
        assert err == (
            f"note: {path}: column 'colour': 2 of 3 rows hold a text that training did "
            "not know, e.g. 'violet' in line 2; all inputs of the column are 0 there\n"
        )

    def test_another_dialect(self, predict, tmp_path):
        plain = write(tmp_path / "a.csv", ["x", "y", "colour"], ROWS[:5])
        text = plain.read_text().replace(",", ";").replace(".", ",")
        (tmp_path / "b.csv").write_text(text)
        assert predict(f"--data_path={plain}") == predict(
            f"--data_path={tmp_path / 'b.csv'}"
        )

    def test_a_folder_without_a_run(self, predict, tmp_path):
        code, _, err = predict("--data_path=x.csv", workdir=tmp_path)
        assert code == 2
        assert err.startswith(f"error: --workdir: {tmp_path} holds no finished run")

    def test_damaged_description(self, run, predict, tmp_path):
        for name in (artifacts.FLAGS, artifacts.SUMMARY, artifacts.PARAMS):
            (tmp_path / name).write_bytes((run / name).read_bytes())
        (tmp_path / artifacts.DATA).write_text("{}")
        code, _, err = predict("--data_path=x.csv", workdir=tmp_path)
        assert (code, err.count("\n")) == (2, 1)
        assert "data.json" in err


class TestTable:
    def test_regression_values(self):
        described = Description("regression", target="price")
        assert jaxnn.predict.table(described, np.array([[1.5], [-2.0]])) == (
            ["price"],
            [["1.5"], ["-2"]],
        )

    def test_classes_and_shares(self):
        described = Description("multiclass", ("a", "b", "c"))
        header, rows = jaxnn.predict.table(
            described, np.log([[1.0, 2.0, 1.0], [1e-30, 1e-30, 1.0]])
        )
        assert header == ["class", "p(a)", "p(b)", "p(c)"]
        assert rows == [["b", "0.25", "0.5", "0.25"], ["c", "1e-30", "1e-30", "1"]]

    def test_binary_at_the_boundary_is_the_second_class(self):
        described = Description("binary", ("no", "yes"))
        _, rows = jaxnn.predict.table(described, np.array([[0.0], [-800.0], [800.0]]))
        assert rows == [["yes", "0.5", "0.5"], ["no", "1", "0"], ["yes", "0", "1"]]


def by_hand(run, path):
    """Logits of a CSV file's rows, from the run's parameters and its training split."""
    experiment, _ = command_line.parse(
        ["", f"--flagfile={run / artifacts.FLAGS}"], "fp32"
    )
    rows = list(csv.DictReader(path.read_text().splitlines()))
    params = artifacts.read_arrays(run / artifacts.PARAMS, "")
    data = load_dataset(experiment)
    inputs = np.array(
        [
            [
                {"x": row["x"], "y": row["y"]}.get(
                    name, float(name == f"colour={row['colour']}")
                )
                for name in data.feature_names
            ]
            for row in rows
        ],
        np.float64,
    )
    scaled = (inputs - data.scaling.offset) / data.scaling.divisor
    return (scaled @ params["output/kernel"] + params["output/bias"])[:, 0]
