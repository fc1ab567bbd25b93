"""Which fault is planted in which experiment, and which tensors it moves."""

import pathlib
from typing import NamedTuple

STEPS, FIRST, BATCH = 6, 2, 128
COMMON = (
    "--precision=fp32",
    f"--max_steps={STEPS}",
    "--record=full",
    "--noplots",
    "--initial_scale_power=8",
)
FP16, BF16 = "--precision=fp16", "--precision=bf16"
SKIPS = (FP16, "--initial_scale_power=20", "--hysteresis=1")

DIGITS = (
    "--dataset=digits",
    "--preprocess=min_max",
    "--loss=cross_entropy",
    "--test_fraction=0.05",
    "--batch_size=16",
    "--epochs=1",
)
EXPERIMENTS = {
    "mlp": (
        "--dataset=breast_cancer",
        "--preprocess=standardize",
        "--model=mlp",
        "--hidden_sizes=8,8",
        "--dropout_rates=0.3,0.2",
        "--loss=binary_cross_entropy",
        f"--batch_size={BATCH}",
        "--epochs=2",
        "--learning_rate=0.01",
        "--schedule=cosine",
    ),
    "line": (
        "--num_samples=64",
        "--batch_size=16",
        "--epochs=2",
        "--optimizer=sgd",
        "--learning_rate=0.1",
    ),
    "cnn": (
        *DIGITS,
        "--model=cnn",
        "--channels=2,3",
        "--hidden_sizes=8",
        "--normalization=batch",
        "--activation=gelu",
    ),
    "resnet": (*DIGITS, "--model=resnet"),
    "lstm": (
        "--dataset=sine",
        "--model=lstm",
        "--hidden_sizes=4",
        "--sequence_length=8",
        "--num_samples=100",
        "--initializer=torch_default",
        "--batch_size=16",
        "--epochs=2",
    ),
    "transformer": (
        "--dataset=text",
        "--model=transformer",
        "--width=8",
        "--num_heads=2",
        "--num_layers=1",
        "--sequence_length=8",
        "--loss=cross_entropy",
        "--test_fraction=0.01",
        "--batch_size=16",
        "--epochs=1",
    ),
}
"""The batches of "mlp" are 128, 128, 128 and 71 samples. Under SKIPS its step 0
overflows, and 1 and 2 do not."""

UPDATED, RATE = {"updated"}, {"learning_rate", "updated"}
MOMENTS = {"updated_moments"} | UPDATED
GRADS = {"grads", "grad_norm"} | MOMENTS
LOSS = {"loss"} | GRADS
FORWARD = {"activations"} | LOSS
IMAGES = {"updated_batch_stats"} | FORWARD


class Case(NamedTuple):
    """A fault in an experiment; which kinds of tensors it moves in the first step that
    it moves."""

    fault: str
    experiment: str
    flags: tuple[str, ...] = ()
    kinds: frozenset[str] | set[str] = frozenset()
    first: int = FIRST

    def __str__(self):
        return "-".join(
            (
                self.fault,
                self.experiment,
                *(flag.removeprefix("--") for flag in self.flags),
            )
        )

    @property
    def clean(self) -> "Case":
        return Case("", self.experiment, self.flags)

    @property
    def flag_values(self) -> tuple[str, ...]:
        return *COMMON, *EXPERIMENTS[self.experiment], *self.flags


def cases(
    experiment: str,
    kinds: set[str],
    *faults: str,
    flags: tuple[str, ...] = (),
    first: int = FIRST,
) -> list[Case]:
    return [Case(fault, experiment, flags, kinds, first) for fault in faults]


CASES = [
    *cases("mlp", RATE, "learning_rate_early", "learning_rate_late"),
    *cases("mlp", RATE, "schedule_counts_skipped", flags=SKIPS),
    *cases("mlp", {"optimizer_step"}, "skipped_steps_counted", flags=SKIPS),
    *cases("mlp", {"params"} | UPDATED, "masters_not_rounded", flags=(FP16,), first=0),
    *cases("mlp", {"params"} | UPDATED, "masters_not_rounded", flags=(BF16,), first=0),
    *cases("mlp", {"params"} | FORWARD, "weights_reloaded"),
    *cases("mlp", {"params"} | FORWARD, "weights_reloaded", flags=(FP16,)),
    *cases("mlp", {"moments"} | MOMENTS, "moments_reset"),
    *cases("mlp", {"batch"} | FORWARD, "not_shuffled", first=0),
    *cases("mlp", {"batch"} | FORWARD, "same_order_every_epoch", first=4),
    *cases(
        "line",
        {"loss_scale"} | UPDATED,
        "scale_grows_early",
        flags=(FP16, "--loss_scale_window=3"),
        first=3,
    ),
    *cases("mlp", MOMENTS, "unscaled_twice", flags=(FP16,)),
    *cases("mlp", LOSS, "loss_summed"),
    *cases("mlp", LOSS, "loss_summed", flags=(FP16,)),
    *cases("line", LOSS - {"updated_moments"}, "half_factor"),
    *cases("mlp", LOSS, "padding_counted", first=3),
    *cases(
        "mlp",
        GRADS,
        "accumulation_not_averaged",
        "last_part_only",
        flags=("--accumulation_steps=2",),
    ),
    *cases("mlp", GRADS, "gradients_not_zeroed"),
    *cases("mlp", GRADS, "gradients_not_zeroed", flags=(FP16,)),
    *cases("mlp", GRADS, "gradients_not_zeroed", flags=(BF16,)),
    *cases("mlp", GRADS, "gradients_not_zeroed", flags=("--accumulation_steps=2",)),
    *cases("line", FORWARD - {"updated_moments"}, "stale_parameters"),
    *cases("mlp", FORWARD, "stale_parameters", flags=(FP16,)),
    *cases("mlp", FORWARD, "stale_parameters", flags=("--accumulation_steps=2",)),
    *cases("mlp", FORWARD, "dropout_not_divided", "dropout_mask_reused"),
    *cases("mlp", FORWARD, "computed_in_bf16"),
    *cases("mlp", LOSS, "probabilities_as_logits"),
    *cases("transformer", LOSS, "probabilities_as_logits"),
    *cases(
        "cnn",
        IMAGES,
        "gelu_tanh",
        "batch_norm_by_running",
        "batch_norm_epsilon",
        "flatten_order",
        "kernel_flipped",
    ),
    *cases(
        "cnn",
        {"updated_batch_stats"},
        "batch_norm_momentum_flipped",
        "batch_norm_biased_variance",
    ),
    *cases("resnet", IMAGES, "padding_asymmetric"),
    *cases("mlp", FORWARD, "kernel_transposed"),
    *cases(
        "lstm", FORWARD, "lstm_gate_order", "lstm_forget_bias", "one_recurrent_bias"
    ),
    *cases("lstm", FORWARD, "lstm_gate_order", flags=(FP16,)),
    *cases(
        "lstm",
        FORWARD,
        "gru_update_gate_flipped",
        "one_recurrent_bias",
        flags=("--model=gru",),
    ),
    *cases("lstm", FORWARD, "one_recurrent_bias", flags=("--model=rnn",)),
    *cases(
        "transformer",
        FORWARD,
        "gelu_tanh",
        "layer_norm_epsilon",
        "kernel_transposed",
        "causal_mask_off_by_one",
        "causal_mask_missing",
        "attention_unscaled",
        "embedding_scaled",
        "positions_missing",
    ),
    *cases(
        "transformer",
        FORWARD,
        "causal_mask_missing",
        "positions_missing",
        flags=(FP16,),
    ),
    *cases(
        "mlp",
        UPDATED,
        "eps_inside_root",
        "bias_correction_missing",
        "bias_correction_late",
        flags=("--adam_eps=0.001",),
    ),
    *cases(
        "mlp",
        UPDATED,
        "eps_inside_root",
        flags=("--optimizer=rmsprop", "--rmsprop_eps=0.001", "--l2=0.1"),
    ),
    *cases(
        "mlp",
        UPDATED,
        "eps_inside_root",
        flags=("--optimizer=adagrad", "--adagrad_eps=0.001", "--l2=0.1"),
    ),
    *cases(
        "mlp",
        UPDATED,
        "eps_inside_root",
        "decay_not_times_rate",
        flags=("--optimizer=adamw", "--weight_decay=0.1", "--adam_eps=0.001"),
    ),
    *cases(
        "mlp", UPDATED, "bias_correction_late", flags=("--nofused_adam", "--l2=0.1")
    ),
    *cases("mlp", MOMENTS, "rate_inside_velocity", flags=("--optimizer=momentum",)),
    *cases(
        "mlp",
        MOMENTS,
        "rate_outside_velocity",
        flags=("--optimizer=sutskever_momentum", "--l1=0.001"),
    ),
    *cases(
        "line", UPDATED, "clip_by_value", "clip_by_tensor", flags=("--clip_norm=0.01",)
    ),
    *cases("line", UPDATED, "clip_normalizes", flags=("--clip_norm=100",)),
    *cases("mlp", MOMENTS, "clip_without_eps", flags=("--clip_norm=0.01",)),
    *cases(
        "line",
        UPDATED,
        "clip_by_value",
        "clip_before_unscale",
        flags=(FP16, "--clip_norm=1"),
    ),
    *cases(
        "mlp",
        MOMENTS,
        "clip_before_unscale",
        flags=(FP16, "--initial_scale_power=16", "--clip_norm=0.5"),
    ),
    *cases("mlp", UPDATED, "half_precision_masters", flags=(FP16,)),
    *cases("mlp", UPDATED, "half_precision_masters", flags=(BF16,)),
]


def jobs_of(folder: pathlib.Path) -> dict[pathlib.Path, Case]:
    """Folder -> what is trained into it: the clean runs before and after all faults."""
    clean = {case.clean: None for case in CASES}
    plain = [case for case in clean if not case.flags]
    names = {f"before-{case}": case for case in clean} | {
        str(case): case for case in CASES
    }
    return {
        folder / name: case
        for name, case in (names | {f"after-{case}": case for case in plain}).items()
    }
