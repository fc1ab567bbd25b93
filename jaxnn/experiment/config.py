"""Every experiment flag, and the frozen `Experiment` that they become.

The dataclass is the single definition: each field carries its help text and checks, and
`define_flags` turns it into an absl flag of the same name. `main` builds one `Experiment`
and hands it down; nothing else reads flags.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from absl import flags


class UserError(Exception):
    """Bad input: one line that names the flag, file or tensor and says what to do."""


PRECISIONS = ("fp64", "fp32", "bf16", "fp16")


def option(default: Any, help: str, *, choices: Sequence[str] = (), minimum: float | None = None,
           above: float | None = None, below: float | None = None, run_only: bool = False) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
      default: value without the flag; its type (bool, int, float, str, tuple) is the flag's.
      help: what it does, with units.
      choices: the allowed strings; empty means any.
      minimum: smallest allowed value, inclusive.
      above: lower bound, exclusive.
      below: upper bound, exclusive.
      run_only: True for what belongs to one run and not to the experiment;
        such flags are left out of `experiment.flags`.
    """
    metadata = dict(help=help, choices=tuple(choices), minimum=minimum, above=above, below=below,
                    run_only=run_only)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment. Without any flag it is the linear regression y = 2x + 1."""

    name: str = option("linear_regression", "Name of the experiment; the default workdir carries it.")

    # Data.
    dataset: str = option("linear", "Data set to train on.", choices=("linear", "breast_cancer", "digits"))
    num_samples: int = option(10_000, "Training samples to draw, for generated data sets.", minimum=1)
    test_fraction: float = option(0.2, "Share of the samples held out for testing.", above=0, below=1)
    split_seed: int = option(42, "Seed of the train/test split and of generated data.", minimum=0)
    preprocess: str = option("none", "Input scaling, fitted on the training split alone.",
                             choices=("none", "standardize"))

    # Model.
    model: str = option("linear", "Network to train.", choices=("linear", "mlp"))
    hidden_sizes: tuple[int, ...] = option((), "Units of each hidden layer, comma-separated.", minimum=1)
    activation: str = option("relu", "Activation of the hidden layers.",
                             choices=("identity", "relu", "sigmoid", "tanh"))
    dropout_rates: tuple[float, ...] = option(
        (), "Probability of dropping a unit after each hidden layer, comma-separated; empty: no dropout.",
        minimum=0, below=1)
    initializer: str = option("lecun_normal", "Initial kernels; biases start at zero but for torch_default.",
                              choices=("lecun_normal", "he_normal", "glorot_uniform", "torch_default", "zeros"))

    # Objective.
    loss: str = option("mse", "Loss, averaged over the batch; the cross-entropies take logits.",
                       choices=("mse", "binary_cross_entropy", "cross_entropy"))
    optimizer: str = option("adam", "Optimizer.", choices=("sgd", "adam"))
    learning_rate: float = option(1e-3, "Peak step size, per optimizer step.", above=0)
    schedule: str = option("constant", "Learning rate over the run.", choices=("constant", "cosine"))
    adam_b1: float = option(0.9, "Adam's decay of the first moment, per step.", minimum=0, below=1)
    adam_b2: float = option(0.999, "Adam's decay of the second moment, per step.", minimum=0, below=1)
    adam_eps: float = option(1e-8, "Adam's eps, added to the root of the second moment.", above=0)

    # Run.
    epochs: int = option(30, "Passes over the training data.", minimum=1)
    max_steps: int = option(0, "Stop after that many optimizer steps; 0: no limit.", minimum=0)
    batch_size: int = option(32, "Samples per step, over all devices. A last, smaller batch is kept.", minimum=1)
    seed: int = option(0, "Seed of the initial parameters, the batch order and the dropout masks.", minimum=0)
    precision: str = option(
        "", "Number format of the forward and backward pass; master parameters stay fp32 (fp64 under fp64). "
        "Left out: fp32 in jaxnn.train, fp16 in torch_ref.train and parity.run.", choices=("", *PRECISIONS))
    num_devices: int = option(0, "Devices to train on; 0: one on a CPU, all of them elsewhere.", minimum=0)

    # FP16, as in DeepSpeed's fp16 block.
    initial_scale_power: int = option(16, "FP16: the loss scale starts at 2 to this power.", minimum=0,
                                      below=128)
    loss_scale_window: int = option(1000, "FP16: clean steps before the loss scale doubles.", minimum=1)
    hysteresis: int = option(2, "FP16: overflows before the loss scale halves.", minimum=1)
    min_loss_scale: float = option(1.0, "FP16: smallest loss scale; an overflow there ends the run.", above=0)

    # DeepSpeed.
    zero_stage: int = option(1, "DeepSpeed: ZeRO stage; 1 and 2 can be read so far.", minimum=1, below=3)
    fused_adam: bool = option(True, "Adam as DeepSpeed's FusedAdam (compiled at first use), whose betas are float32; "
                              "--nofused_adam: as torch's, in double.")
    fp16_kernels: str = option(
        "any", "DeepSpeed on a CPU without FP16 instructions: any runs torch's software FP16 with a warning, "
        "native refuses.", choices=("any", "native"))

    # Files.
    workdir: str = option("", "Folder of this run's files; empty: a fresh one under runs/.", run_only=True)
    overwrite: bool = option(False, "Replace the run that the workdir holds.", run_only=True)
    resume: bool = option(False, "Continue the run that the workdir holds, from its last checkpoint.", run_only=True)
    checkpoint_every: int = option(0, "Epochs between checkpoints; 0: none.", minimum=0)
    plots: bool = option(True, "Draw the workdir's plots at the end.")
    init_params: str = option("", "A params.safetensors to start from instead of fresh parameters.", run_only=True)
    record: str = option("off", "Trace to write under the workdir: losses, + parameters and moments, or + gradients.",
                         choices=("off", "losses", "params", "full"), run_only=True)
    record_steps: int = option(50, "Steps to record, from the first.", minimum=1, run_only=True)

    def replace(self, **changes) -> "Experiment":
        """A copy with some fields changed; not checked again."""
        return dataclasses.replace(self, **changes)


def define_flags(values: flags.FlagValues) -> None:
    """Defines one absl flag per field of `Experiment` on `values`."""
    for field in dataclasses.fields(Experiment):
        define = _DEFINERS[type(field.default)]
        default = list(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        text = field.metadata["help"]
        if any(field.metadata["choices"]):
            text += f" One of: {', '.join(filter(None, field.metadata['choices']))}."
        define(field.name, default, text, flag_values=values)


_DEFINERS = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float,
             str: flags.DEFINE_string, tuple: flags.DEFINE_list}


def from_flags(values: flags.FlagValues, default_precision: str) -> Experiment:
    """The checked `Experiment` of parsed flags.

    Args:
      values: parsed flags, as `define_flags` defined them.
      default_precision: what an empty `--precision` means to this program.

    Raises:
      UserError: a value out of range, unknown, or at odds with another flag.
    """
    fields = dataclasses.fields(Experiment)
    experiment = Experiment(**{field.name: _convert(field, values[field.name].value) for field in fields})
    experiment = experiment.replace(precision=experiment.precision or default_precision)
    check(experiment)
    return experiment


def check(experiment: Experiment) -> None:
    """Raises UserError on the first flag that is out of range or at odds with another."""
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            _check_value(field, item)
    _check_together(experiment)


def to_flagfile(experiment: Experiment) -> str:
    """The text of a flagfile that runs the experiment again, without what belongs to one run."""
    lines = []
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        if not field.metadata["run_only"]:
            lines.append(f"--{field.name}={str(value).lower() if isinstance(value, bool) else value}\n")
    return "".join(lines)


def _convert(field: dataclasses.Field, value: Any) -> Any:
    if not isinstance(field.default, tuple):
        return value
    element = {"hidden_sizes": int, "dropout_rates": float}[field.name]
    try:
        return tuple(element(item) for item in value if item)
    except ValueError:
        kind = {int: "whole numbers", float: "numbers"}[element]
        raise UserError(f"--{field.name}: takes {kind} separated by commas, got {','.join(value)!r}") from None


def _check_value(field: dataclasses.Field, value: Any) -> None:
    rules, flag = field.metadata, f"--{field.name}"
    if any(rules["choices"]) and value not in rules["choices"]:
        raise UserError(f"{flag}: unknown value {value!r}; known: {', '.join(filter(None, rules['choices']))}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag}: must be a finite number, got {value}")
    if rules["minimum"] is not None and value < rules["minimum"]:
        raise UserError(f"{flag}: must be at least {rules['minimum']}, got {value}")
    if rules["above"] is not None and value <= rules["above"]:
        raise UserError(f"{flag}: must be greater than {rules['above']}, got {value}")
    if rules["below"] is not None and value >= rules["below"]:
        raise UserError(f"{flag}: must be less than {rules['below']}, got {value}")


def _check_together(experiment: Experiment) -> None:
    layers, rates = len(experiment.hidden_sizes), len(experiment.dropout_rates)
    if experiment.model == "linear" and layers:
        raise UserError(f"--hidden_sizes: --model=linear has no hidden layers, got {layers}; use --model=mlp")
    if experiment.model == "mlp" and not layers:
        raise UserError("--hidden_sizes: --model=mlp needs at least one hidden layer, e.g. --hidden_sizes=64,32")
    if rates not in (0, layers):
        raise UserError(f"--dropout_rates: {rates} rates for {layers} hidden layers; give one for each, or none")
    if experiment.num_devices and experiment.batch_size % experiment.num_devices:
        raise UserError(f"--batch_size: {experiment.batch_size} is not divisible by "
                        f"--num_devices={experiment.num_devices}; change one of them")
    if not 1e-37 < experiment.learning_rate < 1e37:
        raise UserError(f"--learning_rate: {experiment.learning_rate:g} is outside float32's range, 1e-37 to 1e37")
    if experiment.min_loss_scale > 2.0**experiment.initial_scale_power:
        raise UserError(f"--min_loss_scale: {experiment.min_loss_scale:g} is above the scale to start with, "
                        f"2 to the --initial_scale_power={experiment.initial_scale_power}")
    if experiment.resume and experiment.overwrite:
        raise UserError("--resume: continues a run, --overwrite replaces it; give one of them")
    if experiment.resume and experiment.record != "off":
        raise UserError("--record: a trace begins at step 0; it cannot go with --resume")
    if experiment.seed >= 2**31 or experiment.split_seed >= 2**31:
        raise UserError("--seed, --split_seed: must be less than 2147483648")
