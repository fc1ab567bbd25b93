"""Tests of jaxnn/experiment/data/sources/sklearn_tables.py.

Values, order and splits are scikit-learn's, to the bit.
"""

import numpy as np
import pytest
import sklearn.datasets
from sklearn.model_selection import train_test_split

from jaxnn.experiment.data.sources import sklearn_tables
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

TASKS = {
    "iris": "multiclass",
    "wine": "multiclass",
    "diabetes": "regression",
    "breast_cancer": "binary",
    "digits": "multiclass",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))


def bunch_of(name):
    return getattr(sklearn.datasets, f"load_{name}")(
        **({"scaled": False} if name == "diabetes" else {})
    )


@pytest.mark.parametrize("seed", [42, 7])
@pytest.mark.parametrize("name", TASKS)
class TestTables:
    def test_split_is_scikit_learns(self, name, seed):
        bunch = bunch_of(name)
        task = TASKS[name]
        parts = train_test_split(
            bunch.data.astype(np.float32),
            bunch.target,
            test_size=0.2,
            random_state=seed,
            stratify=None if task == "regression" else bunch.target,
        )
        data = getattr(sklearn_tables, name)(Experiment(dataset=name, split_seed=seed))
        shape = (8, 8, 1) if name == "digits" else bunch.data.shape[1:]
        targets = [
            y.astype(np.int32)
            if task == "multiclass"
            else y.astype(np.float32)[:, None]
            for y in parts[2:]
        ]
        np.testing.assert_array_equal(
            data.train_inputs, parts[0].reshape(-1, *shape), strict=True
        )
        np.testing.assert_array_equal(
            data.test_inputs, parts[1].reshape(-1, *shape), strict=True
        )
        np.testing.assert_array_equal(data.train_targets, targets[0], strict=True)
        np.testing.assert_array_equal(data.test_targets, targets[1], strict=True)

    def test_task_and_names(self, name, seed):
        bunch = bunch_of(name)
        data = getattr(sklearn_tables, name)(Experiment(dataset=name, split_seed=seed))
        classes = () if name == "diabetes" else tuple(map(str, bunch.target_names))
        assert (data.task, data.class_names) == (TASKS[name], classes)
        assert data.feature_names == tuple(bunch.feature_names)


class TestCache:
    @pytest.mark.parametrize("name", TASKS)
    def test_spares_the_source(self, name, monkeypatch):
        load = getattr(sklearn_tables, name)
        first = load(Experiment(dataset=name))
        monkeypatch.setattr(sklearn.datasets, f"load_{name}", None)
        np.testing.assert_array_equal(
            load(Experiment(dataset=name)).train_inputs, first.train_inputs, strict=True
        )


class TestOptions:
    def test_features_in_the_order_asked(self):
        whole, some = (
            sklearn_tables.iris(Experiment(dataset="iris", features=columns))
            for columns in ((), (3, 0))
        )
        np.testing.assert_array_equal(some.test_inputs, whole.test_inputs[:, [3, 0]])
        assert some.feature_names == ("petal width (cm)", "sepal length (cm)")

    def test_folds(self):
        tested = [
            len(
                sklearn_tables.iris(
                    Experiment(dataset="iris", num_folds=5, fold=fold)
                ).test_inputs
            )
            for fold in range(5)
        ]
        assert tested == [30] * 5

    def test_a_split_that_cannot_be_names_the_flag(self):
        with pytest.raises(
            UserError, match=r"^--test_fraction: cannot split --dataset=digits: "
        ):
            sklearn_tables.digits(Experiment(dataset="digits", test_fraction=0.001))
