"""Tests of jaxnn/experiment/results/scores.py against scikit-learn.

Scores that count samples must be equal to the bit.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from jaxnn.experiment.results import scores

EPS = np.finfo(np.float64).eps
CLASSES = 5


def labels(count):
    """Two lists of classes, equally long: truth and prediction."""
    classes = st.integers(0, count - 1)
    return st.integers(1, 20).flatmap(
        lambda n: st.tuples(*[arrays(np.int32, n, elements=classes)] * 2)
    )


@st.composite
def scored(draw, classes, many_ties=True):
    """Scores [n, classes], on a coarse grid with many ties, and classes [n]."""
    rows = draw(st.integers(2, 20))
    elements = st.integers(-2, 2) if many_ties else st.integers(-1000, 1000)
    outputs = draw(arrays(np.float32, (rows, classes), elements=elements.map(float)))
    return outputs, draw(
        arrays(np.int32, rows, elements=st.integers(0, max(classes, 2) - 1))
    )


class TestConfusion:
    @given(labels(CLASSES))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_is_scikit_learns(self, pair):
        expected = metrics.confusion_matrix(*pair, labels=range(CLASSES))
        np.testing.assert_array_equal(scores.confusion(*pair, CLASSES), expected)

    def test_rows_are_true_classes(self):
        np.testing.assert_array_equal(
            scores.confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2),
            [[1, 1], [0, 1]],
        )


class TestBinary:
    @given(labels(2))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_is_scikit_learns_and_none_where_it_is_nan(self, pair):
        ours = scores.binary(scores.confusion(*pair, 2))
        expected = metrics.precision_recall_fscore_support(
            *pair, labels=[1], zero_division=np.nan
        )
        for value, (theirs,) in zip(ours.values(), expected):
            assert value == theirs or (value is None and np.isnan(theirs))

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ([[3, 1], [2, 4]], (0.8, 4 / 6, 8 / 11)),
            ([[3, 0], [2, 0]], (None, 0, 0)),
            ([[3, 1], [0, 0]], (0, None, 0)),
            ([[3, 0], [0, 0]], (None, None, None)),
        ],
    )
    def test_by_hand(self, counts, expected):
        assert scores.binary(np.array(counts)) == dict(
            zip(("precision", "recall", "f1"), expected)
        )


class TestMacro:
    @given(labels(CLASSES))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_is_scikit_learns(self, pair):
        ours = scores.macro(scores.confusion(*pair, CLASSES))
        expected = metrics.precision_recall_fscore_support(
            *pair, average="macro", zero_division=0
        )
        # F1 is rounded in other places.
        np.testing.assert_allclose(list(ours.values()), expected[:3], rtol=4 * EPS)


class TestTopKAccuracy:
    @pytest.mark.parametrize("k", [1, 3])
    @given(pair=scored(CLASSES))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_is_scikit_learns(self, k, pair):
        outputs, targets = pair
        # Of equal scores scikit-learn takes the last class for the larger, we the
        # first, as argmax does: in a mirror.
        expected = metrics.top_k_accuracy_score(
            CLASSES - 1 - targets, outputs[:, ::-1], k=k, labels=range(CLASSES)
        )
        assert scores.top_k_accuracy(outputs, targets, k) == expected

    @given(scored(CLASSES))
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_top_1_is_argmax(self, pair):
        outputs, targets = pair
        assert scores.top_k_accuracy(outputs, targets, 1) == np.mean(
            outputs.argmax(axis=1) == targets
        )


class TestRocAuc:
    @pytest.mark.parametrize("many_ties", [True, False])
    @given(data=st.data())
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_is_the_share_of_pairs_in_order(self, many_ties, data):
        outputs, targets = data.draw(scored(1, many_ties))
        positives = outputs[targets == 1, 0]
        negatives = outputs[targets == 0, 0]
        if not len(positives) or not len(negatives):
            assert scores.roc_auc(outputs[:, 0], targets == 1) is None
            return
        halves = sum(2 * int(p > n) + int(p == n) for p in positives for n in negatives)
        ours = scores.roc_auc(outputs[:, 0], targets == 1)
        assert ours == float(Fraction(halves, 2 * len(positives) * len(negatives)))
        # scikit-learn adds at most 20 trapezoids, each of a few rounded numbers up to
        # 1.
        assert abs(ours - metrics.roc_auc_score(targets, outputs[:, 0])) <= 4 * 20 * EPS

    def test_one_vs_rest_is_scikit_learns(self):
        rng = np.random.default_rng(0)
        outputs = rng.standard_normal((50, 4)).astype(np.float32)
        targets = np.arange(50) % 4
        expected = metrics.roc_auc_score(
            targets, scores.softmax(outputs), multi_class="ovr", average="macro"
        )
        # Up to 50 trapezoids.
        assert (
            abs(scores.roc_auc_one_vs_rest(outputs, targets) - expected) <= 4 * 50 * EPS
        )

    def test_one_vs_rest_needs_every_class(self):
        assert scores.roc_auc_one_vs_rest(np.eye(3), np.array([0, 1, 1])) is None


class TestSoftmax:
    def test_does_not_overflow(self):
        np.testing.assert_array_equal(
            scores.softmax(np.array([[1e4, 1e4, -1e4]], np.float32)), [[0.5, 0.5, 0]]
        )

    def test_by_hand(self):
        # log and exp of numbers below 2, each rounded.
        np.testing.assert_allclose(
            scores.softmax(np.log([[1.0, 2.0, 5.0]])),
            [[0.125, 0.25, 0.625]],
            rtol=8 * EPS,
        )


class TestCrossEntropy:
    def test_is_scikit_learns_log_loss(self, monkeypatch):
        monkeypatch.setattr(scores, "ROWS_AT_ONCE", 3)
        rng = np.random.default_rng(0)
        outputs = 5 * rng.standard_normal((7, 4, 6)).astype(np.float32)
        targets = rng.integers(0, 6, (7, 4))
        probabilities = scores.softmax(outputs).reshape(-1, 6)
        expected = metrics.log_loss(targets.reshape(-1), probabilities, labels=range(6))
        # A mean of 28 terms up to 30; log_loss starts from rounded probabilities.
        np.testing.assert_allclose(
            scores.cross_entropy(outputs, targets), expected, atol=28 * 30 * EPS, rtol=0
        )

    def test_a_confident_mistake_costs_its_margin(self):
        assert (
            scores.cross_entropy(np.array([[[6e4, -6e4]]], np.float32), np.array([[1]]))
            == 1.2e5
        )


class TestRegression:
    @given(
        st.integers(2, 20).flatmap(
            lambda n: st.tuples(
                *[
                    arrays(
                        np.float32, (n, 2), elements=st.integers(-1000, 1000).map(float)
                    )
                ]
                * 2
            )
        )
    )
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_is_scikit_learns(self, pair):
        outputs, targets = (array.astype(np.float64) for array in pair)
        ours = scores.regression(*pair)
        # Sums of at most 40 terms, in another order.
        rounding = 40 * EPS
        np.testing.assert_allclose(
            ours["mae"], metrics.mean_absolute_error(targets, outputs), rtol=rounding
        )
        np.testing.assert_allclose(
            ours["rmse"] ** 2,
            metrics.mean_squared_error(targets, outputs),
            rtol=rounding,
        )
        assert ours["max_error"] == max(
            metrics.max_error(targets[:, i], outputs[:, i]) for i in range(2)
        )
        if (np.ptp(targets, axis=0) == 0).any():
            assert ours["r2"] is None
        else:
            expected = metrics.r2_score(targets, outputs)
            # 1 - quotient cancels: the error is of the quotient's size, which is 1 -
            # R^2 or less than twice it.
            np.testing.assert_allclose(
                ours["r2"], expected, atol=2 * rounding * (2 + abs(expected)), rtol=0
            )

    def test_a_constant_target_has_no_r2_even_where_its_mean_is_rounded(self):
        assert (
            scores.r2(np.arange(3.0)[:, None], np.full((3, 1), 0.1, np.float32)) is None
        )

    def test_the_mean_explains_nothing(self):
        assert scores.r2(np.full((4, 1), 2.5), np.arange(1, 5.0)[:, None]) == 0
