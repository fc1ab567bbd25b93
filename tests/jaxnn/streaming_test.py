"""Streamed data train as resident ones do, to the bit, and take no more memory than
they may."""

import itertools
import pathlib
import sys
import threading

import jax
import numpy as np
import pytest

from jaxnn import checkpoint, epochs, streaming, train
from jaxnn.experiment.data import evaluation, samples
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.sources import array_files
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from jaxnn.interruption import Interruption
from tests.memory import anonymous_peak

SAMPLES = 103
BASE = Experiment(
    dataset="npz",
    loss="cross_entropy",
    batch_size=8,
    epochs=3,
    plots=False,
    precision="fp32",
    learning_rate=0.01,
    device_cache_mb=4,
)
"""11 steps an epoch, the last of 2 samples: after the split 82 samples train and 21
test."""
MLP = dict(model="mlp", hidden_sizes=(12,), normalization="batch", dropout_rates=(0.3,))
CASES = {
    "a line": dict(
        dataset="linear", data_path="", num_samples=10 * SAMPLES, loss="mse"
    ),
    "linear": dict(task="regression", loss="mse", preprocess="standardize"),
    "mlp": dict(
        **MLP,
        accumulation_steps=2,
        validation_fraction=0.2,
        evaluate_train=True,
        preprocess="min_max",
    ),
    "mlp in fp16": dict(**MLP, precision="fp16", loss_scale_window=5),
    "stopped early": dict(
        model="mlp",
        hidden_sizes=(12,),
        patience=1,
        validation_fraction=0.2,
        epochs=12,
        learning_rate=0.1,
    ),
    "bytes": dict(model="cnn", channels=(4,), preprocess="standardize"),
    "tokens": dict(dataset="text", model="gru", hidden_sizes=(8,), sequence_length=6),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """--device_cache_mb counts KiB, a chunk has two of them at most, and a batch that
    is evaluated eight samples."""
    for module in (samples, streaming):
        monkeypatch.setattr(module, "MEBIBYTE", 2**10)
    monkeypatch.setattr(streaming, "CHUNK", 2**11)
    monkeypatch.setattr(evaluation, "MOST_NUMBERS", 1)


def written(folder: pathlib.Path, name: str) -> str:
    """A file of the case's data."""
    rng, path = np.random.default_rng(0), folder / f"{name}.npz"
    y = np.arange(SAMPLES) % 3
    if name == "tokens":
        path = path.with_suffix(".txt")
        path.write_text("the quick brown fox jumps over the lazy dog; " * 60)
    elif name == "bytes":
        np.savez(path, x=rng.integers(0, 255, (SAMPLES, 8, 8, 1)).astype(np.uint8), y=y)
    else:
        np.savez(
            path,
            x=rng.standard_normal((SAMPLES, 16)).astype(np.float32) + y[:, None],
            y=y,
        )
    return str(path)


def of_case(folder: pathlib.Path, name: str) -> Experiment:
    return BASE.replace(**{"data_path": written(folder, name), **CASES[name]})


def files(workdir: pathlib.Path) -> dict[str, bytes]:
    """What a run leaves that must be equal."""
    paths = sorted(
        path
        for path in workdir.rglob("*")
        if path.suffix == ".safetensors" or path.name == artifacts.METRICS
    )
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def trained(
    experiment: Experiment, workdir: pathlib.Path, device_cache: int
) -> dict[str, bytes]:
    train.main(experiment.replace(workdir=str(workdir), device_cache_mb=device_cache))
    return files(workdir)


def work_of(experiment: Experiment) -> epochs.Work:
    data = load_dataset(experiment)
    return epochs.make_work(
        experiment,
        data,
        evaluation.splits(experiment, data),
        np.zeros(1, np.float32),
        jax.devices()[:1],
    )[0]


class TestStreamedEpochs:
    @pytest.mark.parametrize("name", CASES)
    def test_leave_the_same_files_to_the_bit(self, tmp_path, name):
        experiment = of_case(tmp_path, name)
        work = work_of(experiment)
        assert samples.exceed_cache(experiment, work.train, work.evaluated)
        assert trained(experiment, tmp_path / "streamed", 4) == trained(
            experiment, tmp_path / "whole", 2**20
        )

    @pytest.mark.parametrize("name", ["linear", "bytes"])
    def test_of_mapped_files_too(self, tmp_path, monkeypatch, name):
        experiment = of_case(tmp_path, name)
        whole = trained(experiment, tmp_path / "whole", 2**20)
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0)
        assert isinstance(load_dataset(experiment).train_inputs, Rows)
        assert trained(experiment, tmp_path / "streamed", 4) == whole

    def test_a_trace_too(self, tmp_path):
        """Of all steps of the first epoch and some of the second."""
        experiment = of_case(tmp_path, "mlp").replace(record="full", record_steps=11)
        whole = trained(experiment, tmp_path / "whole", 2**20)
        assert len(whole) == 11 + 3
        assert trained(experiment, tmp_path / "streamed", 4) == whole

    @pytest.mark.parametrize(
        ("looks", "step", "device_cache"), [(0, 2, 4), (5, 16, 2**20)]
    )
    def test_stopped_within_an_epoch_go_on_there(
        self, tmp_path, monkeypatch, capsys, looks, step, device_cache
    ):
        """Whatever the memory may hold then. An epoch has chunks of 2, 3, 3 and 3
        steps."""
        experiment = of_case(tmp_path, "mlp in fp16")
        whole = trained(experiment, tmp_path / "whole", 2**20)
        asked = itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(Interruption, "is_due", lambda self: next(asked) == looks)
            trained(experiment, tmp_path / "cut", 4)
        assert checkpoint.steps(tmp_path / "cut") == [step]
        assert "stopped as asked; resume with" in capsys.readouterr().out
        assert (
            trained(experiment.replace(resume=True), tmp_path / "cut", device_cache)
            == whole
        )

    def test_divergence_is_told_at_the_same_step(self, tmp_path):
        experiment = of_case(tmp_path, "linear").replace(
            learning_rate=1e15, optimizer="sgd"
        )
        messages = []
        for device_cache in (2**20, 4):
            with pytest.raises(
                UserError, match=r"^step \d+: .* is not finite"
            ) as caught:
                trained(experiment, tmp_path / str(device_cache), device_cache)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]

    def test_some_batches_must_fit(self, tmp_path):
        experiment = of_case(tmp_path, "linear").replace(batch_size=13)
        with pytest.raises(
            UserError,
            match=r"^--device_cache_mb: 4 MiB hold less than 6 batches of 0.863 MiB on "
            r"a device; raise it to 6 at least, or lower --batch_size$",
        ):
            trained(experiment, tmp_path / "run", 4)
        assert not (tmp_path / "run").exists()
        assert trained(experiment, tmp_path / "run", 6)


class TestPrefetched:
    def test_is_one_ahead_and_no_more(self):
        made, wanted = [], threading.Semaphore(0)

        def items():
            for number in range(4):
                made.append(number)
                wanted.release()
                yield number

        found = streaming.prefetched(items())
        for number in range(4):
            assert next(found) == number
            for _ in range(2 if number == 0 else number < 3):
                assert wanted.acquire(timeout=10)
            assert made == list(range(min(number + 2, 4)))
        assert list(found) == []

    def test_what_goes_wrong_in_the_thread_is_raised(self):
        def items():
            yield 1
            raise UserError("a broken file")

        found = streaming.prefetched(items())
        assert next(found) == 1
        with pytest.raises(UserError, match="a broken file"):
            next(found)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
class TestMemory:
    def test_is_bounded_by_the_flag_and_not_by_the_data(self, tmp_path):
        """Of 320 MiB in a mapped file; the same run holds all of it where it may."""
        x = np.lib.format.open_memmap(
            tmp_path / "x.npy", "w+", np.float32, (80 * 2**10, 2**10)
        )
        x[:] = np.random.default_rng(0).random(2**10, np.float32)
        np.save(tmp_path / "y.npy", x[:, 0])
        flags = (
            "--dataset=npz",
            "--task=regression",
            f"--data_path={tmp_path}",
            "--batch_size=1024",
            "--epochs=2",
            "--learning_rate=0.0001",
            "--noplots",
            "--num_devices=1",
        )
        streamed, whole = (
            anonymous_peak(
                *flags,
                f"--device_cache_mb={limit}",
                f"--workdir={tmp_path / str(limit)}",
            )
            for limit in (32, 4096)
        )
        assert whole - streamed > 200 * 2**20
        assert files(tmp_path / "32") == files(tmp_path / "4096")
