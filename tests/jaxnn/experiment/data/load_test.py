"""Tests of jaxnn/experiment/data/load.py."""

import numpy as np
import pytest

from jaxnn.experiment.catalogue import losses_for
from jaxnn.experiment.data import preprocessing
from jaxnn.experiment.data.load import DATASETS, load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

LINEAR = Experiment(num_samples=100)
CANCER = Experiment(dataset="breast_cancer", loss="binary_cross_entropy")
DIGITS = Experiment(dataset="digits", loss="cross_entropy")
IRIS = Experiment(dataset="iris", loss="cross_entropy", model="mlp", batch_size=8)
TEXT = Experiment(dataset="text", loss="cross_entropy", model="transformer")
SINE = Experiment(dataset="sine")
GENERATED = (
    LINEAR,
    CANCER,
    DIGITS,
    IRIS,
    TEXT,
    SINE,
    Experiment(dataset="gates", loss="hinge", batch_size=4),
    Experiment(dataset="approximation"),
    Experiment(dataset="diabetes"),
    IRIS.replace(dataset="wine"),
    Experiment(
        dataset="blobs",
        sample_shape=(5, 4),
        num_classes=3,
        num_samples=100,
        loss="cross_entropy",
    ),
    TEXT.replace(dataset="markov", num_classes=9, num_samples=100),
)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def refused(experiment, message):
    with pytest.raises(UserError, match=message) as error:
        load_dataset(experiment)
    assert "\n" not in str(error.value)


class TestRegistry:
    def test_is_the_flags_choices_in_order(self):
        assert (
            tuple(DATASETS)
            == Experiment.__dataclass_fields__["dataset"].metadata["choices"]
        )

    def test_every_preprocessing_is_known(self):
        assert (
            tuple(preprocessing.METHODS)
            == Experiment.__dataclass_fields__["preprocess"].metadata["choices"]
        )


class TestLoad:
    @pytest.mark.parametrize(
        "experiment", GENERATED, ids=lambda experiment: experiment.dataset
    )
    def test_formats(self, experiment):
        data = load_dataset(experiment)
        tokens = data.task == "language"
        whole = data.task in ("multiclass", "language")
        assert (
            data.train_inputs.dtype
            == data.test_inputs.dtype
            == (np.int32 if tokens else np.float32)
        )
        assert (
            data.train_targets.dtype
            == data.test_targets.dtype
            == (np.int32 if whole else np.float32)
        )
        assert (
            data.train_inputs.shape[1:]
            == data.test_inputs.shape[1:]
            == data.signature.input_shape
        )
        assert len(data.train_inputs) == len(data.train_targets)
        assert data.validation_inputs is None

    @pytest.mark.parametrize(
        "loss", Experiment.__dataclass_fields__["loss"].metadata["choices"]
    )
    @pytest.mark.parametrize(
        "experiment",
        [LINEAR, CANCER, DIGITS, TEXT],
        ids=lambda experiment: experiment.dataset,
    )
    def test_loss_must_fit(self, experiment, loss):
        fitting = losses_for(load_dataset(experiment).task)
        if loss in fitting:
            load_dataset(experiment.replace(loss=loss))
        else:
            refused(
                experiment.replace(loss=loss),
                f"^--loss: {loss} .*--dataset={experiment.dataset} .*use "
                f"{' or '.join(fitting)}$",
            )

    @pytest.mark.parametrize(
        ("model", "fitting"),
        [
            ("linear", "lds"),
            ("perceptron", "lds"),
            ("logistic", "lds"),
            ("mlp", "lds"),
            ("cnn", "d"),
            ("resnet", "d"),
            ("rnn", "st"),
            ("lstm", "st"),
            ("gru", "st"),
            ("transformer", "t"),
            ("transformer_encoder", "ds"),
        ],
    )
    def test_model_must_fit(self, model, fitting):
        for letter, experiment in zip("ldst", (LINEAR, DIGITS, SINE, TEXT)):
            if letter in fitting:
                load_dataset(experiment.replace(model=model))
            else:
                refused(
                    experiment.replace(model=model),
                    rf"^--model: {model} needs .*; "
                    rf"--dataset={experiment.dataset} has [a-z ]+$",
                )

    def test_model_error_says_what_it_needs(self):
        refused(
            CANCER.replace(model="cnn"),
            r"^--model: cnn needs images \(digits, mnist, fashion_mnist, cifar10, "
            r"blobs, npz\); --dataset=breast_cancer has rows of a table$",
        )

    def test_batch_must_not_exceed_the_data(self):
        load_dataset(LINEAR.replace(batch_size=100))
        refused(
            LINEAR.replace(batch_size=101),
            r"^--batch_size: 101 is larger than the 100 training samples of ",
        )
        refused(
            LINEAR.replace(batch_size=100, validation_fraction=0.1),
            r"^--batch_size: 100 is larger than the 90 ",
        )
        refused(
            Experiment(dataset="gates", loss="hinge"),
            r"^--batch_size: 32 is larger than the 4 training samples",
        )

    @pytest.mark.parametrize(
        ("flag", "value"),
        [
            ("data_path", "x.csv"),
            ("target", "y"),
            ("features", (0,)),
            ("sample_shape", (8, 8, 1)),
            ("num_classes", 10),
        ],
    )
    def test_flags_that_mean_nothing_are_refused(self, flag, value):
        refused(
            DIGITS.replace(**{flag: value}),
            rf"^--{flag}: is for --dataset=.*; leave it out for digits$",
        )

    def test_only_images_are_augmented(self):
        for change in (dict(random_crop=2), dict(random_flip=True)):
            (flag,) = change
            refused(CANCER.replace(**change), rf"^--{flag}: is for images .*breast_can")
        refused(
            DIGITS.replace(random_crop=8),
            "^--random_crop: 8 is not below the size of the images, 8 by 8; ",
        )
        assert load_dataset(DIGITS.replace(random_crop=7, random_flip=True))

    @pytest.mark.parametrize(
        "experiment",
        [LINEAR, SINE, TEXT, Experiment(dataset="approximation")],
        ids=lambda experiment: experiment.dataset,
    )
    def test_folds_need_samples_to_shuffle(self, experiment):
        refused(
            experiment.replace(num_folds=5),
            rf"^--num_folds: --dataset={experiment.dataset} .*; leave out ",
        )


class TestPreprocess:
    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    @pytest.mark.parametrize(
        "experiment", [CANCER, DIGITS, SINE], ids=lambda experiment: experiment.dataset
    )
    def test_every_split_by_the_training_splits_figures(self, experiment, method):
        raw = load_dataset(experiment.replace(validation_fraction=0.1))
        data = load_dataset(
            experiment.replace(validation_fraction=0.1, preprocess=method)
        )
        axes = (0, 1) if experiment is SINE else (0,)
        x = raw.train_inputs.astype(np.float64)
        offset, divisor = (
            (x.mean(axis=axes), x.std(axis=axes))
            if method == "standardize"
            else (x.min(axis=axes), x.max(axis=axes) - x.min(axis=axes))
        )
        for split in ("train", "validation", "test"):
            exact = (getattr(raw, f"{split}_inputs") - offset) / np.where(
                divisor == 0, 1, divisor
            )
            # Sums of a thousand numbers in another order differ in the last digits of
            # float64, cancellation adds some.
            np.testing.assert_allclose(
                getattr(data, f"{split}_inputs"), exact, rtol=2**-24, atol=1e-12
            )
            np.testing.assert_array_equal(
                getattr(data, f"{split}_targets"), getattr(raw, f"{split}_targets")
            )
        assert data.scaled_on_host

    def test_bytes_stay_bytes(self, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (40, 3, 3, 2), np.uint8)
        np.savez(tmp_path / "i.npz", x=images, y=np.tile([0, 1], 20))
        experiment = Experiment(
            dataset="npz",
            data_path=f"{tmp_path}/i.npz",
            loss="hinge",
            preprocess="standardize",
        )
        data = load_dataset(experiment)
        assert (data.train_inputs.dtype, data.scaled_on_host) == (np.uint8, False)
        pixels = data.train_inputs.reshape(-1, 2).astype(np.float64)
        np.testing.assert_allclose(
            data.scaling.offset, pixels.mean(axis=0), rtol=2**-24
        )
        assert load_dataset(experiment.replace(preprocess="none")).scaling is None

    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    def test_characters_have_no_scale(self, method):
        refused(
            TEXT.replace(preprocess=method),
            rf"^--preprocess: {method} scales numbers, and --dataset=text has",
        )

    def test_beyond_float32(self, tmp_path):
        x = np.full((40, 1), 1e-45, np.float32)
        experiment = Experiment(
            dataset="npz",
            data_path=f"{tmp_path}/a.npz",
            preprocess="min_max",
            batch_size=1,
        )
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) + 0.5)
        # Tells which rows train.
        answers = load_dataset(experiment).train_targets
        x[:] = 1e30
        x[(answers[:, 0] - 0.5).astype(int)] = 0
        x[int(answers[0, 0])] = 1e-45
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) + 0.5)
        refused(
            experiment,
            "^--preprocess: min_max takes --dataset=npz beyond float32's range; "
            "leave it out$",
        )


class TestPositiveClass:
    @pytest.mark.parametrize(("name", "place"), [("setosa", 0), ("virginica", 2)])
    def test_one_against_all(self, name, place):
        whole = load_dataset(IRIS)
        data = load_dataset(
            IRIS.replace(
                positive_class=name,
                loss="binary_cross_entropy",
                validation_fraction=0.0,
            )
        )
        assert (data.task, data.class_names, data.num_outputs) == (
            "binary",
            (f"not {name}", name),
            1,
        )
        np.testing.assert_array_equal(data.train_inputs, whole.train_inputs)
        for ours, theirs in (
            (data.train_targets, whole.train_targets),
            (data.test_targets, whole.test_targets),
        ):
            np.testing.assert_array_equal(
                ours, (theirs == place).astype(np.float32)[:, None], strict=True
            )
        assert data.description.class_names == data.class_names

    def test_of_a_binary_task(self):
        data = load_dataset(CANCER.replace(positive_class="malignant"))
        whole = load_dataset(CANCER)
        np.testing.assert_array_equal(
            data.test_targets, 1 - whole.test_targets, strict=True
        )

    def test_an_unknown_class_lists_the_known(self):
        refused(
            IRIS.replace(positive_class="rose"),
            r"^--positive_class: unknown class 'rose'; known: setosa, versic",
        )

    @pytest.mark.parametrize(
        "experiment", [LINEAR, TEXT], ids=lambda experiment: experiment.dataset
    )
    def test_without_classes(self, experiment):
        refused(
            experiment.replace(positive_class="a"),
            r"^--positive_class: --dataset=\w+ has no classes \(\w+\); ",
        )


class TestDescription:
    @pytest.mark.parametrize(
        "experiment", GENERATED, ids=lambda experiment: experiment.dataset
    )
    def test_is_the_datas(self, experiment):
        data = load_dataset(experiment)
        described = data.description
        assert (described.task, described.class_names) == (data.task, data.class_names)
        assert described.input_shape == data.signature.input_shape
        assert tuple(column.name for column in described.columns) == data.feature_names
        assert described.vocabulary == (
            data.class_names if data.task == "language" else ()
        )
