"""Tests of jaxnn/experiment/flags/consistency.py: every rule, from both sides."""

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import consistency
from jaxnn.experiment.flags.config import Experiment

MLP = dict(model="mlp", hidden_sizes=(8, 4))
RULES = {
    "hidden layers of a linear model": (
        dict(hidden_sizes=(8,)),
        MLP,
        "--hidden_sizes: --model=linear has no hidden",
    ),
    "hidden layers of a transformer": (
        dict(model="transformer", hidden_sizes=(8,)),
        dict(model="transformer"),
        "--hidden_sizes: --model=transformer has no hidden layers, got 1; use --width",
    ),
    "biases that stay": (
        dict(model="resnet", use_bias=False),
        dict(model="logistic", use_bias=False),
        "--nouse_bias: is for --model=linear, perceptron, logistic, mlp, cnn; leave",
    ),
    "a broken expression": (
        dict(freeze="("),
        dict(freeze="()"),
        "--freeze: '.' is no regular expression: missing .*, unterminated subpattern",
    ),
    "a diagnosis of frozen parameters": (
        dict(freeze="bias", diagnose=True),
        dict(freeze="bias"),
        "--freeze: --diagnose looks at the gradients of all parameters; leave out one",
    ),
    "mlp without layers": (
        dict(model="mlp"),
        MLP,
        "--hidden_sizes: --model=mlp needs at least one",
    ),
    "lstm without layers": (
        dict(model="lstm"),
        dict(model="lstm", hidden_sizes=(4,)),
        "--hidden_sizes: --model=lstm",
    ),
    "cnn without convolutions": (
        dict(model="cnn"),
        dict(model="cnn", channels=(4,)),
        "--channels: --model=cnn needs",
    ),
    "even kernel": (
        dict(model="cnn", channels=(4,), kernel_size=2),
        dict(model="cnn", channels=(4,), kernel_size=5),
        "--kernel_size: must be odd, got 2",
    ),
    "depth": (
        dict(model="resnet", resnet_depth=34),
        dict(model="resnet", resnet_depth=32),
        "--resnet_depth: 34 is",
    ),
    "heads": (
        dict(model="transformer", width=10, num_heads=4),
        dict(model="transformer", width=12, num_heads=4),
        "--width: 10 is not divisible by --num_heads=4",
    ),
    "normalization": (
        dict(normalization="batch"),
        dict(**MLP, normalization="batch"),
        "--normalization: is for",
    ),
    "a residual connection": (
        dict(residual=True),
        dict(**MLP, residual=True),
        "--residual: is for --model=mlp; leave it out for linear",
    ),
    "a decay that float32 rounds to 1": (
        dict(adam_b1=0.99999999),
        dict(adam_b1=0.9999999),
        "--adam_b1: 0.99999999 is 1 in float32; lower it",
    ),
    "an eps that float32 rounds to 0": (
        dict(adam_eps=1e-300),
        dict(adam_eps=1e-36),
        "--adam_eps: 1e-300 is outside float32's range, 1e-37 to ",
    ),
    "a penalty beyond float32": (
        dict(l2=1e300),
        dict(l2=1e-30),
        r"--l2: 1e\+300 is outside float32's range",
    ),
    "a delimiter of two characters": (
        dict(delimiter=";;"),
        dict(delimiter="tab"),
        "--delimiter: takes one character or tab, got ';;'",
    ),
    "a delimiter for decimals": (
        dict(delimiter=",", decimal=","),
        dict(delimiter=";", decimal=","),
        "--delimiter: ',' is --decimal too",
    ),
    "rates and layers": (
        dict(**MLP, dropout_rates=(0.5,)),
        dict(**MLP, dropout_rates=(0.5, 0.5)),
        "--dropout_rates: 1 rates for 2 hidden layers",
    ),
    "rates of a transformer": (
        dict(model="transformer", dropout_rates=(0.1, 0.1)),
        dict(model="transformer", dropout_rates=(0.1,)),
        "--dropout_rates: --model=transformer",
    ),
    "weight decay": (
        dict(weight_decay=0.1),
        dict(weight_decay=0.1, optimizer="adamw"),
        "--weight_decay: is decoupled",
    ),
    "label smoothing": (
        dict(label_smoothing=0.1),
        dict(label_smoothing=0.1, loss="cross_entropy"),
        "--label_smoothing: belongs to --loss=cross_entropy",
    ),
    "early stopping without validation": (
        dict(patience=3),
        dict(patience=3, validation_fraction=0.1),
        "--patience: ",
    ),
    "early stopping resumed by many": (
        dict(
            patience=3,
            validation_fraction=0.1,
            resume=True,
            coordinator_address="a:1",
            num_processes=2,
        ),
        dict(patience=3, validation_fraction=0.1, resume=True),
        "--patience: a run of several processes",
    ),
    "an address without a port": (
        dict(coordinator_address="here", num_processes=2),
        dict(coordinator_address="here:1", num_processes=2),
        "--coordinator_address: 'here' is not HOST:PORT",
    ),
    "an address with a port too large": (
        dict(coordinator_address="here:65536", num_processes=2),
        dict(coordinator_address="here:65535", num_processes=2),
        "--coordinator_address: 'here:65536' is not HOST:PORT",
    ),
    "an address without a number": (
        dict(coordinator_address="a:1"),
        dict(coordinator_address="a:1", num_processes=2),
        "--coordinator_address, --num_processes: give both",
    ),
    "a process too many": (
        dict(coordinator_address="a:1", num_processes=2, process_id=2),
        dict(coordinator_address="a:1", num_processes=3, process_id=2),
        "--process_id: 2 is not below --num_processes=2",
    ),
    "many recorded": (
        dict(distributed=True, record="full"),
        dict(distributed=True),
        "--record: one process can be recorded",
    ),
    "rate beyond float32": (
        dict(learning_rate=1e38),
        dict(learning_rate=1e30),
        "--learning_rate: 1e.38 is outside",
    ),
    "least rate": (
        dict(min_learning_rate=1e-2),
        dict(min_learning_rate=1e-3),
        "--min_learning_rate: 0.01 is above",
    ),
    "warm-up": (
        dict(warmup_steps=5, schedule="cosine"),
        dict(warmup_steps=5, schedule="warmup_cosine"),
        "--warmup_steps: --schedule=cosine has no warm-up",
    ),
    "one fold": (
        dict(num_folds=1),
        dict(num_folds=2, fold=1),
        "--num_folds: cross-validation needs at least 2",
    ),
    "fold": (
        dict(num_folds=3, fold=3),
        dict(num_folds=3, fold=2),
        "--fold: 3 asked for, --num_folds=3",
    ),
    "file": (
        dict(dataset="csv"),
        dict(dataset="csv", data_path="a.csv"),
        "--data_path: --dataset=csv needs the file",
    ),
    "no shape": (
        dict(dataset="blobs", num_classes=3),
        dict(dataset="blobs", num_classes=3, sample_shape=(4,)),
        "--sample_shape: --dataset=blobs needs 1 to 3 sizes, e.g. 32,32,3; got 0",
    ),
    "a shape too long": (
        dict(dataset="blobs", num_classes=3, sample_shape=(4, 4, 4, 4)),
        dict(dataset="blobs", num_classes=3, sample_shape=(4, 4, 4)),
        "--sample_shape: --dataset=blobs needs 1 to 3 sizes, e.g. 32,32,3; got 4",
    ),
    "one class": (
        dict(dataset="blobs", num_classes=1, sample_shape=(4,)),
        dict(dataset="blobs", num_classes=2, sample_shape=(4,)),
        "--num_classes: --dataset=blobs needs at least 2",
    ),
    "no tokens": (
        dict(dataset="markov"),
        dict(dataset="markov", num_classes=2),
        "--num_classes: --dataset=markov needs at least 2",
    ),
    "devices": (
        dict(batch_size=10, num_devices=4),
        dict(batch_size=12, num_devices=4),
        "--batch_size: 10 is not divisible by --num_devices=4; change",
    ),
    "devices and parts": (
        dict(batch_size=12, num_devices=4, accumulation_steps=2),
        dict(batch_size=16, num_devices=4, accumulation_steps=2),
        "--batch_size: 12 is not divisible by --num_devices=4 times "
        "--accumulation_steps=2",
    ),
    "smallest scale": (
        dict(min_loss_scale=4.0, initial_scale_power=1),
        dict(min_loss_scale=2.0, initial_scale_power=1),
        "--min_loss_scale: 4 is above",
    ),
    "resume and overwrite": (
        dict(resume=True, overwrite=True),
        dict(resume=True),
        "--resume: continues a run",
    ),
}


class TestCheck:
    @pytest.mark.parametrize("rule", RULES)
    def test_refuses_with_one_line_and_allows_what_it_asks_for(self, rule):
        wrong, right, message = RULES[rule]
        with pytest.raises(UserError, match=f"^{message}") as error:
            consistency.check(Experiment(precision="fp32", **wrong))
        assert "\n" not in str(error.value)
        consistency.check(Experiment(precision="fp32", **right))
