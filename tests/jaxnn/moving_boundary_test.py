import shutil

import numpy as np
import pytest
from PIL import Image

from jaxnn import checkpoint, finished_run, moving_boundary, train
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.results.plots import animation

INPUTS = np.array([[0, 0], [0, 1], [1, 1]], np.float32)


def trained(folder, *flags):
    """A network with a hidden layer on two features, five steps of it."""
    name = "--flagfile=launch/experiments/mlp_xor.flags"
    all_flags = ["train", name, "--max_steps=5", "--noplots", f"--workdir={folder}"]
    experiment, _ = command_line.parse([*all_flags, *flags], "fp32")
    train.main(experiment)
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boundary") / "xor"
    return trained(folder, "--record=params", "--record_steps=5")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """With running statistics, and a checkpoint after each epoch, which is a step."""
    folder = tmp_path_factory.mktemp("boundary") / "kept"
    flags = ("--normalization=batch", "--checkpoint_every=1", "--keep=9")
    return trained(folder, *flags)


def copied(run, folder, *without):
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(*without))
    return folder


def frames_of(path):
    with Image.open(path) as film:
        return film.n_frames


class TestOfATrace:
    def test_a_frame_for_each_update(self, recorded, tmp_path):
        moving_boundary.write(str(recorded), tmp_path / "a.gif")
        # The start, five updates, and the last one once more.
        assert frames_of(tmp_path / "a.gif") in (6, 7)

    def test_frames_are_of_the_network_after_each_update(self, recorded):
        """The last one's parameters are the run's."""
        read = finished_run.load(str(recorded))
        last = animation.read_frames(trace.Reader(recorded / "trace"))[-1]
        np.testing.assert_array_equal(
            read.at(last.params, {}, INPUTS), read.forward(INPUTS)
        )


class TestOfCheckpoints:
    def test_a_frame_for_each(self, kept, tmp_path):
        moving_boundary.write(str(kept), tmp_path / "a.gif")
        # Five epochs, and the last one once more.
        assert frames_of(tmp_path / "a.gif") in (5, 6)

    def test_the_last_is_the_run_with_its_running_statistics(self, kept):
        read = finished_run.load(str(kept))
        *_, before, last = checkpoint.steps(kept)
        network = checkpoint.read_network(kept, last)
        wanted = read.forward(INPUTS)
        found = read.at(network.params, network.batch_stats, INPUTS)
        np.testing.assert_array_equal(found, wanted)

        other = checkpoint.read_network(kept, before)
        found = read.at(other.params, other.batch_stats, INPUTS)
        assert not np.array_equal(found, wanted)

    def test_a_damaged_one_is_left_out(self, kept, tmp_path, capsys):
        run = copied(kept, tmp_path / "run")
        damaged = next((run / checkpoint.FOLDER).glob("*3/arrays/manifest.ocdbt"))
        damaged.write_bytes(b"")
        moving_boundary.write(str(run), tmp_path / "a.gif")
        assert "000003 is damaged and left out" in capsys.readouterr().out
        assert frames_of(tmp_path / "a.gif") in (4, 5)


class TestNothingToDrawFrom:
    def test_names_both_flags(self, recorded, tmp_path):
        bare = copied(recorded, tmp_path / "bare", "trace")
        with pytest.raises(UserError, match="--record=params, or with --checkpoint_"):
            moving_boundary.write(str(bare), tmp_path / "a.gif")
        assert not (tmp_path / "a.gif").exists()

    def test_of_batch_normalization_names_checkpoints_alone(self, kept, tmp_path):
        bare = copied(kept, tmp_path / "bare", checkpoint.FOLDER)
        with pytest.raises(UserError, match="in JAX with --checkpoint_every=1"):
            moving_boundary.write(str(bare), tmp_path / "a.gif")
