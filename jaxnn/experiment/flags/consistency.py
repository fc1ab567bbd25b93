"""Checks that flags agree with each other; one clear line on the first that do not."""

import re

from jaxnn.experiment.catalogue import (
    MODELS,
    NONE,
    REQUIRED,
    TRANSFORMERS,
    facts_on,
    is_own,
)
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment

RESNET_DEPTHS = (18, 20, 32, 50)
UNBIASED = ("linear", "mlp", "cnn")
"""Families of networks that can do without biases."""
LONGEST_NAME = 200
PORTS_BELOW = 2**16


def check(experiment: Experiment) -> None:
    """Raises UserError on the first flag out of range or in conflict with another."""
    options.check_ranges(experiment)
    for rule in (
        _name,
        _network,
        _dropout,
        _objective,
        _frozen,
        _schedule,
        _data,
        _generated,
        _batch,
        _run,
        _hosts,
    ):
        rule(experiment)


def _name(experiment: Experiment) -> None:
    # It is part of a folder's name, to which a stack, a time and a number are added.
    name = experiment.name
    if "/" in name or name in (".", "..") or len(name.encode()) > LONGEST_NAME:
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise UserError(
            f"--name: {shown!r} cannot be part of a folder's name; leave out slashes, "
            f"at most {LONGEST_NAME} bytes, and give the folder by --workdir"
        )


def _network(experiment: Experiment) -> None:
    model = experiment.model
    facts = facts_on(model)
    layers = len(experiment.hidden_sizes)
    if facts.hidden == NONE and layers:
        if model in TRANSFORMERS:
            hint = "use --width and --num_layers"
        else:
            hint = "use --model=mlp"
        raise UserError(
            f"--hidden_sizes: --model={model} has no hidden layers, got {layers}; "
            f"{hint}"
        )
    if facts.hidden == REQUIRED and not layers:
        raise UserError(
            f"--hidden_sizes: --model={model} needs at least one hidden layer, e.g. "
            "--hidden_sizes=64,32"
        )
    if model == "cnn" and not experiment.channels:
        raise UserError(
            "--channels: --model=cnn needs at least one convolution, e.g. "
            "--channels=32,64"
        )
    # Padding is (kernel_size - 1) // 2 on each side, which keeps height and width only
    # if the kernel is odd.
    if model == "cnn" and experiment.kernel_size % 2 == 0:
        raise UserError(f"--kernel_size: must be odd, got {experiment.kernel_size}")
    if model == "resnet" and experiment.resnet_depth not in RESNET_DEPTHS:
        raise UserError(
            f"--resnet_depth: {experiment.resnet_depth} is not one of "
            f"{', '.join(map(str, RESNET_DEPTHS))}"
        )
    if model in TRANSFORMERS and experiment.width % experiment.num_heads:
        raise UserError(
            f"--width: {experiment.width} is not divisible by "
            f"--num_heads={experiment.num_heads}"
        )
    if not experiment.use_bias and facts.family not in UNBIASED:
        users = ", ".join(name for name in MODELS if MODELS[name].family in UNBIASED)
        raise UserError(
            f"--nouse_bias: is for --model={users}; leave it out for {model}"
        )
    if experiment.normalization != "none" and not facts.activated:
        users = " and ".join(name for name in MODELS if MODELS[name].activated)
        raise UserError(
            f"--normalization: is for --model={users}; leave it out for {model}"
        )
    if experiment.residual and model != "mlp":
        raise UserError(f"--residual: is for --model=mlp; leave it out for {model}")


def _dropout(experiment: Experiment) -> None:
    model = experiment.model
    layers = len(experiment.hidden_sizes)
    rates = len(experiment.dropout_rates)
    if model in TRANSFORMERS and rates > 1:
        raise UserError(f"--dropout_rates: --model={model} takes one rate, got {rates}")
    if model in TRANSFORMERS or is_own(model):
        return
    if rates not in (0, layers):
        raise UserError(
            f"--dropout_rates: {rates} rates for {layers} hidden layers; give one for "
            "each, or none"
        )


def _objective(experiment: Experiment) -> None:
    if experiment.weight_decay and experiment.optimizer != "adamw":
        raise UserError(
            f"--weight_decay: is decoupled and belongs to --optimizer=adamw; with "
            f"{experiment.optimizer} use --l2"
        )
    if experiment.label_smoothing and experiment.loss != "cross_entropy":
        raise UserError(
            f"--label_smoothing: belongs to --loss=cross_entropy, got {experiment.loss}"
        )
    if experiment.patience and not experiment.validation_fraction:
        raise UserError(
            "--patience: early stopping needs a validation split; set "
            "--validation_fraction, e.g. to 0.1"
        )
    # Only process 0 reads the losses of the epochs done from metrics.csv; the others
    # would not stop with it.
    several = experiment.coordinator_address or experiment.distributed
    if experiment.patience and experiment.resume and several:
        raise UserError(
            "--patience: a run of several processes that may stop early cannot be "
            "resumed; go on in one"
        )


def _frozen(experiment: Experiment) -> None:
    if not experiment.freeze:
        return
    try:
        re.compile(experiment.freeze)
    except re.error as error:
        raise UserError(
            f"--freeze: {experiment.freeze!r} is no regular expression: {error}"
        ) from None
    if is_own(experiment.model):
        raise UserError(
            "--freeze: is for networks of the catalogue; in one of your own, stop the "
            "gradient in both classes"
        )
    if experiment.diagnose:
        raise UserError(
            "--freeze: --diagnose looks at the gradients of all parameters; leave out "
            "one of them"
        )


def _schedule(experiment: Experiment) -> None:
    if experiment.min_learning_rate > experiment.learning_rate:
        raise UserError(
            f"--min_learning_rate: {experiment.min_learning_rate:g} is above "
            f"--learning_rate={experiment.learning_rate:g}"
        )
    # What else depends on the number of steps is checked in schedules.py.
    warms_up = "warmup" in experiment.schedule or experiment.schedule == "one_cycle"
    if experiment.warmup_steps and not warms_up:
        raise UserError(
            f"--warmup_steps: --schedule={experiment.schedule} has no warm-up"
        )


def _data(experiment: Experiment) -> None:
    if experiment.num_folds == 1:
        raise UserError("--num_folds: cross-validation needs at least 2 folds, got 1")
    if experiment.fold >= max(experiment.num_folds, 1):
        raise UserError(
            f"--fold: {experiment.fold} asked for, --num_folds={experiment.num_folds}; "
            "folds count from 0"
        )
    if experiment.dataset in ("csv", "npz") and not experiment.data_path:
        raise UserError(
            f"--data_path: --dataset={experiment.dataset} needs the file to read"
        )
    delimiter = experiment.delimiter
    is_mark = len(delimiter) == 1 and not (delimiter.isalnum() or delimiter in '"\r\n')
    if delimiter not in ("", "tab") and not is_mark:
        raise UserError(
            f"--delimiter: takes one character or tab, got {delimiter!r}; leave it out "
            "to find out"
        )
    if delimiter and delimiter == experiment.decimal:
        raise UserError(f"--delimiter: {delimiter!r} is --decimal too")


def _generated(experiment: Experiment) -> None:
    # Given for other data sets, these flags are refused with the other idle ones.
    dataset, rank = experiment.dataset, len(experiment.sample_shape)
    if dataset == "blobs" and rank not in (1, 2, 3):
        raise UserError(
            f"--sample_shape: --dataset=blobs needs 1 to 3 sizes, e.g. 32,32,3; got "
            f"{rank}"
        )
    if dataset in ("blobs", "markov") and experiment.num_classes < 2:
        raise UserError(
            f"--num_classes: --dataset={dataset} needs at least 2, e.g. 10; got "
            f"{experiment.num_classes}"
        )


def _batch(experiment: Experiment) -> None:
    # Devices share a batch equally, and microbatches have equal sizes. --num_devices=0
    # stands for all devices, whose number is not known here.
    factors = {
        "--num_devices": max(experiment.num_devices, 1),
        "--accumulation_steps": experiment.accumulation_steps,
    }
    if experiment.batch_size % (
        factors["--num_devices"] * factors["--accumulation_steps"]
    ):
        named = " times ".join(
            f"{flag}={count}" for flag, count in factors.items() if count > 1
        )
        raise UserError(
            f"--batch_size: {experiment.batch_size} is not divisible by {named}; "
            "change one of them"
        )


def _run(experiment: Experiment) -> None:
    if experiment.min_loss_scale > 2.0**experiment.initial_scale_power:
        raise UserError(
            f"--min_loss_scale: {experiment.min_loss_scale:g} is above the scale to "
            "start with, 2 to the "
            f"--initial_scale_power={experiment.initial_scale_power}"
        )
    if experiment.resume and experiment.overwrite:
        raise UserError(
            "--resume: continues a run, --overwrite replaces it; give one of them"
        )


def _hosts(experiment: Experiment) -> None:
    address = experiment.coordinator_address
    processes = experiment.num_processes
    port = address.rpartition(":")[2]
    is_port = re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < PORTS_BELOW
    if address and not is_port:
        raise UserError(f"--coordinator_address: {address!r} is not HOST:PORT")
    if bool(address) != bool(processes):
        raise UserError(
            "--coordinator_address, --num_processes: give both, and each process its "
            "--process_id"
        )
    if experiment.process_id >= max(processes, 1):
        raise UserError(
            f"--process_id: {experiment.process_id} is not below "
            f"--num_processes={processes}"
        )
    if experiment.record != "off" and (address or experiment.distributed):
        raise UserError(
            "--record: one process can be recorded, not several; leave out "
            "--coordinator_address and --distributed"
        )
