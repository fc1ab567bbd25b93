"""Tests of jaxnn/experiment/data/splits.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from jaxnn.experiment.data import splits
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 50, 25]))
EXPERIMENT = Experiment(dataset="iris", validation_fraction=0.2)
fractions = st.floats(0.15, 0.6)
seeds = st.integers(0, 100)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def assert_partition(split, count):
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(count))


class TestShuffled:
    def test_is_scikit_learns(self):
        for labels in (LABELS, None):
            split = splits.shuffled(
                Experiment(split_seed=7, test_fraction=0.3), len(LABELS), labels
            )
            train, test = train_test_split(
                np.arange(len(LABELS)), test_size=0.3, random_state=7, stratify=labels
            )
            np.testing.assert_array_equal(split.train, train)
            np.testing.assert_array_equal(split.test, test)
            assert not len(split.validation)

    @given(test=fractions, validation=fractions, seed=seeds)
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_disjoint_complete_and_stratified(self, test, validation, seed):
        experiment = Experiment(
            test_fraction=test, validation_fraction=validation, split_seed=seed
        )
        split = splits.shuffled(experiment, len(LABELS), LABELS)
        assert_partition(split, len(LABELS))
        for part in split:
            counts = np.bincount(LABELS[part], minlength=3)
            # Each of the two divisions gives a class a whole number less than one away
            # from its share.
            assert (
                np.abs(counts - np.bincount(LABELS) * len(part) / len(LABELS)) < 2
            ).all()

    def test_seed_decides_and_the_cache_changes_nothing(self):
        first, again = (
            splits.shuffled(EXPERIMENT, len(LABELS), LABELS) for _ in range(2)
        )
        for one, two in zip(first, again):
            np.testing.assert_array_equal(one, two)
        other = splits.shuffled(EXPERIMENT.replace(split_seed=1), len(LABELS), LABELS)
        assert (first.train != other.train).any()

    def test_the_cache_tells_labels_apart(self):
        splits.shuffled(EXPERIMENT, len(LABELS), LABELS)
        other = splits.shuffled(EXPERIMENT, len(LABELS), LABELS[::-1].copy())
        np.testing.assert_array_equal(
            np.bincount(LABELS[::-1][other.test]), [20, 10, 5]
        )

    def test_validation_is_a_share_of_the_training_part(self):
        split = splits.shuffled(
            Experiment(test_fraction=0.2, validation_fraction=0.5), 100
        )
        assert list(map(len, split)) == [40, 40, 20]

    @pytest.mark.parametrize("labels", [LABELS, None])
    def test_folds_are_scikit_learns_and_cover_everything(self, labels):
        kind = KFold if labels is None else StratifiedKFold
        theirs = kind(5, shuffle=True, random_state=42).split(
            np.zeros(len(LABELS)), labels
        )
        for fold, (train, test) in enumerate(theirs):
            split = splits.shuffled(
                Experiment(num_folds=5, fold=fold), len(LABELS), labels
            )
            np.testing.assert_array_equal(split.train, train)
            np.testing.assert_array_equal(split.test, test)

    def test_folds_with_validation(self):
        tested = []
        for fold in range(3):
            split = splits.shuffled(
                EXPERIMENT.replace(num_folds=3, fold=fold), len(LABELS), LABELS
            )
            assert_partition(split, len(LABELS))
            # A fifth of the 116 or 117 left.
            assert len(split.validation) == 24
            tested.append(split.test)
        np.testing.assert_array_equal(
            np.sort(np.concatenate(tested)), np.arange(len(LABELS))
        )

    @pytest.mark.parametrize(
        ("change", "count", "labels"),
        [
            (dict(test_fraction=0.001), 175, LABELS),
            (dict(test_fraction=0.2), 3, np.array([0, 0, 1])),
            (dict(validation_fraction=0.001), 175, LABELS),
            (dict(num_folds=26), 175, LABELS),
            (dict(num_folds=4), 3, None),
        ],
    )
    def test_a_split_that_cannot_be_names_the_flag(self, change, count, labels):
        with pytest.raises(
            UserError,
            match=rf"^--{next(iter(change))}: cannot split --dataset=linear: [^\n]+$",
        ):
            splits.shuffled(Experiment(**change), count, labels)


class TestHeldOut:
    def test_without_validation_everything_trains_in_order(self):
        train, validation, test = splits.held_out(Experiment(), 9)
        np.testing.assert_array_equal(train, np.arange(9))
        assert not len(validation)
        assert not len(test)

    def test_validation_is_stratified(self):
        split = splits.held_out(EXPERIMENT, len(LABELS), LABELS)
        assert_partition(split, len(LABELS))
        np.testing.assert_array_equal(
            np.bincount(LABELS[split.validation]), [20, 10, 5]
        )

    def test_refuses_folds(self):
        with pytest.raises(
            UserError,
            match=r"^--num_folds: --dataset=iris brings a test split of its own; "
            "leave out",
        ):
            splits.held_out(EXPERIMENT.replace(num_folds=5), 100)


class TestContiguous:
    @given(
        length=st.integers(1, 1000),
        test=st.floats(0.01, 0.99),
        validation=st.floats(0, 0.99),
    )
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_one_after_the_other_without_gaps(self, length, test, validation):
        experiment = Experiment(test_fraction=test, validation_fraction=validation)
        parts = [
            np.arange(length)[part] for part in splits.contiguous(experiment, length)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(length))
        assert len(parts[2]) == round(length * test)

    def test_refuses_folds(self):
        with pytest.raises(
            UserError, match=r"^--num_folds: --dataset=sine is split in time; leave out"
        ):
            splits.contiguous(Experiment(dataset="sine", num_folds=2), 100)
