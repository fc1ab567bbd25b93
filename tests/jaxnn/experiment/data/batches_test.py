"""Tests of jaxnn/experiment/data/batches.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.batches import PADDING
from jaxnn.experiment.flags.config import Experiment

SAMPLES = st.integers(1, 300)
BATCH = st.integers(1, 64)
SEED = st.integers(0, 2**31 - 1)
EPOCH = st.integers(0, 999)
fast = settings(deadline=None, max_examples=100, derandomize=True)


class TestStepsPerEpoch:
    @pytest.mark.parametrize(
        ("samples", "batch", "steps"),
        [(1, 32, 1), (32, 32, 1), (33, 32, 2), (455, 32, 15)],
    )
    def test_counts_the_last_smaller_batch(self, samples, batch, steps):
        assert batches.steps_per_epoch(samples, batch) == steps


class TestTotalSteps:
    def test_does_not_depend_on_max_steps(self):
        assert (
            batches.total_steps(Experiment(epochs=3, batch_size=32, max_steps=1), 33)
            == 6
        )


class TestPlan:
    @pytest.mark.parametrize(
        ("max_steps", "plan"),
        [
            (0, [4, 4, 4]),
            (1, [1]),
            (4, [4]),
            (5, [4, 1]),
            (8, [4, 4]),
            (11, [4, 4, 3]),
            (12, [4, 4, 4]),
            (99, [4, 4, 4]),
        ],
    )
    def test_stops_at_max_steps(self, max_steps, plan):
        assert (
            batches.plan(Experiment(epochs=3, batch_size=32, max_steps=max_steps), 100)
            == plan
        )

    @given(SAMPLES, BATCH, st.integers(1, 9), st.integers(0, 2000))
    @fast
    def test_adds_up(self, samples, batch, epochs, max_steps):
        experiment = Experiment(epochs=epochs, batch_size=batch, max_steps=max_steps)
        plan = batches.plan(experiment, samples)
        total = batches.total_steps(experiment, samples)
        assert sum(plan) == (min(max_steps, total) if max_steps else total)
        assert min(plan) > 0
        assert set(plan[:-1]) <= {batches.steps_per_epoch(samples, batch)}


class TestPosition:
    @pytest.mark.parametrize(
        ("step", "position"),
        [(0, (0, 0)), (3, (0, 3)), (4, (1, 0)), (9, (2, 1)), (10, (3, 0))],
    )
    def test_counts_epochs_and_the_steps_of_the_one_under_way(self, step, position):
        assert batches.position([4, 4, 2], step) == position


class TestSamplesPerStep:
    @given(SAMPLES, BATCH, st.integers(0, 2**31 - 1), st.integers(0, 9))
    @fast
    def test_counts_what_is_not_padding(self, samples, batch, seed, epoch):
        experiment = Experiment(batch_size=batch, seed=seed)
        ids = batches.epoch_batches(experiment, samples, epoch)
        np.testing.assert_array_equal(
            batches.samples_per_step(experiment, samples, len(ids)),
            (ids >= 0).sum(axis=1),
        )


class TestEpochBatches:
    def test_is_the_cut_order_of_the_experiments_seed(self):
        cut = batches.epoch_batches(Experiment(seed=3, batch_size=4), 10, 1)
        np.testing.assert_array_equal(
            cut.reshape(-1)[:10], batches.epoch_order(10, 3, 1)
        )
        assert cut.shape == (3, 4)


class TestEpochOrder:
    @given(SAMPLES, SEED, EPOCH)
    @fast
    def test_is_a_permutation(self, samples, seed, epoch):
        order = batches.epoch_order(samples, seed, epoch)
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(samples))

    @given(SEED, EPOCH)
    @fast
    def test_is_reproducible_and_differs_by_epoch_and_seed(self, seed, epoch):
        order = batches.epoch_order(100, seed, epoch)
        np.testing.assert_array_equal(order, batches.epoch_order(100, seed, epoch))
        assert (order != batches.epoch_order(100, seed, epoch + 1)).any()
        assert (order != batches.epoch_order(100, seed + 1, epoch)).any()

    def test_is_the_published_order(self):
        """Recorded runs depend on it: NumPy's PCG64 seeded by [seed, epoch]."""
        np.testing.assert_array_equal(
            batches.epoch_order(8, 0, 0), [2, 4, 3, 6, 5, 0, 1, 7]
        )


class TestGlobalBatches:
    @given(SAMPLES, BATCH, SEED)
    @fast
    def test_every_sample_once_and_padding_only_at_the_end(self, samples, batch, seed):
        cut = batches.global_batches(batches.epoch_order(samples, seed, 0), batch)
        assert cut.dtype == np.int32
        assert cut.shape == (-(-samples // batch), batch)
        flat = cut.reshape(-1)
        np.testing.assert_array_equal(np.sort(flat[:samples]), np.arange(samples))
        assert (flat[samples:] == PADDING).all()
        assert len(flat) - samples < batch


class TestRankSlice:
    @given(SAMPLES, st.integers(1, 16), st.integers(1, 8))
    @fast
    def test_slices_concatenate_to_the_global_batch(
        self, samples, per_rank, world_size
    ):
        cut = batches.global_batches(
            np.arange(samples, dtype=np.int32), per_rank * world_size
        )
        for ids in (cut, cut[0]):
            slices = [
                batches.rank_slice(ids, rank, world_size) for rank in range(world_size)
            ]
            assert {part.shape[-1] for part in slices} == {per_rank}
            np.testing.assert_array_equal(np.concatenate(slices, axis=-1), ids)

    @given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
    @fast
    def test_a_microbatch_has_the_same_samples_on_any_number_of_ranks(
        self, steps, rows, microbatches, world_size
    ):
        ids = np.arange(steps * rows * microbatches * world_size).reshape(
            steps, microbatches * world_size * rows
        )
        slices = [
            batches.rank_slice(ids, rank, world_size, microbatches).reshape(
                steps, microbatches, rows
            )
            for rank in range(world_size)
        ]
        np.testing.assert_array_equal(
            np.concatenate(slices, axis=-1),
            ids.reshape(steps, microbatches, world_size * rows),
        )
