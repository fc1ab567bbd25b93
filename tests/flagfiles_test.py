"""Every flagfile, at reduced size and in this process: it runs, and its head promises
what a run reports."""

import gzip
import pathlib

import numpy as np
import pytest

from jaxnn import train
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.results.promises import read_promises

FLAGFILES = {
    path.stem: path
    for folder in ("experiments", "benchmark")
    for path in sorted(pathlib.Path("launch", folder).glob("*.flags"))
}
SMALLER = {
    "linear_regression": ["--num_samples=320", "--epochs=2"],
    "breast_cancer": ["--epochs=2"],
    "digits": ["--epochs=2"],
    "logistic_breast_cancer": ["--epochs=2"],
    "universal_approximation": ["--num_samples=100", "--epochs=2"],
    "perceptron_iris": ["--epochs=1", "--record_steps=5"],
    "regularization_digits": ["--epochs=3", "--patience=1"],
    "regularization_digits_none": ["--epochs=2"],
    "cnn_digits": ["--epochs=1", "--channels=4,8", "--hidden_sizes=16"],
    "resnet_digits": [
        "--epochs=1",
        "--max_steps=2",
        "--warmup_steps=1",
        "--batch_size=32",
    ],
    "lstm_sine": [
        "--num_samples=400",
        "--sequence_length=20",
        "--hidden_sizes=8,8",
        "--epochs=1",
    ],
    "gru_sine": [
        "--num_samples=400",
        "--sequence_length=20",
        "--hidden_sizes=8,8",
        "--epochs=1",
    ],
    "rnn_sine": [
        "--num_samples=400",
        "--sequence_length=20",
        "--hidden_sizes=8,8",
        "--epochs=1",
    ],
    "transformer_text": [
        "--sequence_length=16",
        "--width=16",
        "--num_heads=2",
        "--epochs=1",
        "--warmup_steps=2",
    ],
    "wine": ["--epochs=2"],
    "diabetes": ["--epochs=2"],
    "mlp": ["--num_samples=320", "--epochs=1", "--hidden_sizes=16,8"],
    "cnn": [
        "--num_samples=128",
        "--epochs=1",
        "--channels=2,4",
        "--sample_shape=8,8,3",
    ],
    "lstm": ["--num_samples=64", "--sample_shape=8,16", "--hidden_sizes=8"],
    "transformer": [
        "--num_samples=16",
        "--sequence_length=16",
        "--width=16",
        "--num_heads=2",
    ],
    "mnist": [
        "--epochs=1",
        "--hidden_sizes=8",
        "--dropout_rates=0.2",
        "--batch_size=16",
    ],
    "fashion_mnist_regularization": [
        "--epochs=2",
        "--hidden_sizes=8",
        "--dropout_rates=0.2",
        "--batch_size=16",
    ],
    "cifar10_resnet20": [
        "--epochs=1",
        "--max_steps=2",
        "--warmup_steps=1",
        "--batch_size=8",
    ],
}
IMAGES = {
    "mnist": (28, 28),
    "fashion_mnist_regularization": (28, 28),
    "cifar10_resnet20": (32, 32, 3),
}


def write_idx(path: pathlib.Path, array: np.ndarray) -> None:
    """The official MNIST format: magic number, big-endian sizes, bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.with_name(path.name + ".gz").write_bytes(
        gzip.compress(header + array.tobytes())
    )


def write_images(name: str, folder: pathlib.Path) -> None:
    """Small files of the data set's official format."""
    rng = np.random.default_rng(0)
    shape = IMAGES[name]
    if len(shape) == 2:
        for part, count in (("train", 160), ("t10k", 40)):
            labels = np.arange(count, dtype=np.uint8) % 10
            write_idx(
                folder / f"{part}-images-idx3-ubyte",
                rng.integers(0, 256, (count, *shape), np.uint8),
            )
            write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
        return
    for part in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels, pixels = (
            np.arange(10, dtype=np.uint8)[:, None],
            rng.integers(0, 256, (10, 3072), np.uint8),
        )
        (folder / f"{part}.bin").write_bytes(
            np.concatenate([labels, pixels], axis=1).tobytes()
        )


def text_file(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "text.txt"
    path.write_text("\n".join(f"line {number} of a text" for number in range(200)))
    return path


@pytest.mark.parametrize("name", FLAGFILES)
def test_runs_at_reduced_size(name, tmp_path, capsys):
    flags = [
        f"--flagfile={FLAGFILES[name]}",
        f"--workdir={tmp_path / 'run'}",
        *SMALLER.get(name, ["--epochs=1"]),
    ]
    if name in IMAGES:
        write_images(name, tmp_path)
        flags.append(f"--data_path={tmp_path}")
    if name == "transformer_text":
        flags.append(f"--data_path={text_file(tmp_path)}")
    experiment, _ = command_line.parse(["train", *flags, "--noplots"], "fp32")
    assert experiment.name == name
    train.main(experiment)
    summary = artifacts.read_summary(tmp_path / "run")
    assert summary["steps"] > 0
    promised = {promise.metric for promise in read_promises(FLAGFILES[name])}
    assert promised <= summary["final"].keys()
    assert ("sample:" in capsys.readouterr().out) == name.startswith("transformer")
