"""The optimizer block: DeepSpeed's own optimizers and torch's, each with its defaults.

Follows DeepSpeedEngine._configure_basic_optimizer (runtime/engine.py).
"""

from collections.abc import Callable
from typing import Any

from jaxnn.experiment.flags.deepspeed import keys
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting
from jaxnn.experiment.flags.deepspeed.showing import show

PARAMS = "optimizer.params"

# DeepSpeed lowers the case of the names of its own optimizers (runtime/config.py) and
# looks up all others in torch.optim as they are.
ANY_CASE = ("adam", "adamw", "adagrad")

# Others that DeepSpeed 0.19.8 or torch.optim has.
UNSUPPORTED = (
    *("lamb", "lion", "muon", "muadam", "muadamw", "musgd"),
    *("adadelta", "adamax", "asgd", "lbfgs", "nadam", "radam", "rprop", "sparseadam"),
    "adafactor",
)

# Parameters that change how an update is computed, but not its result.
SPEED_ONLY = ("foreach", "fused", "capturable", "differentiable", "set_grad_none")

# Parameters of torch's optimizers -> the only value that jaxnn supports.
REQUIRED = {"amsgrad": False, "maximize": False, "decoupled_weight_decay": False}

# Optimizers that are not among ZERO_SUPPORTED_OPTIMIZERS (runtime/zero/utils.py).
ZERO_REFUSES = ("sgd", "momentum", "nesterov", "rmsprop")


def read(draft: Draft) -> None:
    """Sets the optimizer and its hyperparameters; without the block the flags decide.

    Raises:
      UserError: jaxnn does not have the optimizer, or not this variant of it.
    """
    source = draft.source
    kind = source.text("optimizer.type")
    if kind is None:
        if source.has_block("optimizer"):
            draft.ignored.append("optimizer (it has no type)")
        draft.note(
            "optimizer", f"not in {source.name}; --optimizer and its flags decide"
        )
        return

    name = kind.lower() if kind.lower() in ANY_CASE else kind
    if name not in OPTIMIZERS:
        whose = (
            "" if kind.lower() in UNSUPPORTED else "unknown to DeepSpeed 0.19.8, and "
        )
        raise source.error(
            "optimizer.type",
            f"{show(kind)} is {whose}not supported; known: Adam, AdamW, SGD, Adagrad, "
            "RMSprop",
        )
    if source.has_block(f"{PARAMS}.max_grad_norm"):
        raise source.error(
            f"{PARAMS}.max_grad_norm",
            "DeepSpeed refuses it here; use gradient_clipping",
        )
    OPTIMIZERS[name](draft, name)
    _warn_of_zero(draft)


def _adam(draft: Draft, name: str) -> None:
    source = draft.source
    keys.check_params(
        source,
        PARAMS,
        ("lr", "betas", "eps", "weight_decay", "adam_w_mode", "torch_adam"),
        {**REQUIRED, "fp32_optimizer_states": True},
        (*SPEED_ONLY, "bias_correction"),
    )
    _refuse_uncorrected(draft)

    # "Adam" is AdamW unless adam_w_mode is false (MISMATCHES D6).
    w_mode = f"{PARAMS}.adam_w_mode"
    decoupled = name == "adamw" or source.boolean(w_mode) is not False

    def is_fused(key: str) -> bool | None:
        torch_adam = source.boolean(key)
        return None if torch_adam is None else not torch_adam

    draft.take("fused_adam", f"{PARAMS}.torch_adam", is_fused, True)
    _learning_rate(draft, 1e-3)

    # torch.optim.AdamW decays by 0.01 by default, FusedAdam by 0 (MISMATCHES D17).
    is_torchs = source.boolean(f"{PARAMS}.torch_adam") and decoupled
    _decay(
        draft,
        "weight_decay" if decoupled else "l2",
        0.01 if is_torchs else 0.0,
        "torch's AdamW decays unless told otherwise" if is_torchs else "",
    )
    _betas(draft)
    draft.take("adam_eps", f"{PARAMS}.eps", source.number, 1e-8)

    chosen = _without_decay(draft) if decoupled else "adam"
    draft.settings["optimizer"] = Setting(chosen, "optimizer.type")
    if chosen == "adamw" and name == "adam" and w_mode not in source.values:
        draft.note(
            "optimizer.type",
            "DeepSpeed's Adam is AdamW unless adam_w_mode is false: --optimizer=adamw",
        )


def _refuse_uncorrected(draft: Draft) -> None:
    key = f"{PARAMS}.bias_correction"
    if draft.source.values.get(key, True) not in (True, 1):
        raise draft.source.error(
            key,
            "false is not supported: DeepSpeed's Adam then divides no moment by "
            "1 - beta^t, so that its first update is (1 - beta1) / sqrt(1 - beta2) "
            "times jaxnn's, 3.16 by default; write true",
        )


def _without_decay(draft: Draft) -> str:
    """Returns "adam" for an AdamW without decay if the user gave it, else "adamw"."""
    # Without decay the two are equal, so --optimizer=adam is no contradiction.
    decay = draft.settings.get("weight_decay")
    if draft.given.get("optimizer") != "adam" or decay is None or decay.value:
        return "adamw"
    del draft.settings["weight_decay"]
    return "adam"


def _sgd(draft: Draft, name: str) -> None:
    source = draft.source
    keys.check_params(
        source,
        PARAMS,
        ("lr", "momentum", "weight_decay", "nesterov"),
        {**REQUIRED, "dampening": 0},
        SPEED_ONLY,
    )
    momentum = source.number(f"{PARAMS}.momentum")
    nesterov = source.boolean(f"{PARAMS}.nesterov")
    if nesterov and not momentum:
        raise source.error(
            f"{PARAMS}.nesterov", "needs a momentum; torch refuses it without"
        )

    chosen = "momentum" if momentum else "sgd"
    if nesterov:
        chosen = "nesterov"
    draft.settings["optimizer"] = Setting(chosen, "optimizer.type")
    if momentum:
        draft.take("momentum", f"{PARAMS}.momentum", source.number, 0.0)
    elif momentum is None:
        draft.note(
            f"{PARAMS}.momentum",
            f"not in {source.name}; torch's SGD has none by default: --optimizer=sgd",
        )
    _learning_rate(draft, 1e-3)
    _decay(draft, "l2", 0.0)


def _adagrad(draft: Draft, name: str) -> None:
    source = draft.source
    keys.check_params(
        source,
        PARAMS,
        ("lr", "eps", "weight_decay", "initial_accumulator_value"),
        {**REQUIRED, "lr_decay": 0},
        SPEED_ONLY,
    )
    draft.settings["optimizer"] = Setting("adagrad", "optimizer.type")
    draft.take("adagrad_eps", f"{PARAMS}.eps", source.number, 1e-10)
    draft.take(
        "adagrad_initial", f"{PARAMS}.initial_accumulator_value", source.number, 0.0
    )
    _learning_rate(draft, 1e-2)
    _decay(draft, "l2", 0.0)


def _rmsprop(draft: Draft, name: str) -> None:
    source = draft.source
    keys.check_params(
        source,
        PARAMS,
        ("lr", "alpha", "eps", "weight_decay"),
        {**REQUIRED, "momentum": 0, "centered": False},
        SPEED_ONLY,
    )
    draft.settings["optimizer"] = Setting("rmsprop", "optimizer.type")
    draft.take("rmsprop_decay", f"{PARAMS}.alpha", source.number, 0.99)
    draft.take("rmsprop_eps", f"{PARAMS}.eps", source.number, 1e-8)
    _learning_rate(draft, 1e-2)
    _decay(draft, "l2", 0.0)


def _learning_rate(draft: Draft, default: float) -> None:
    draft.take("learning_rate", f"{PARAMS}.lr", draft.source.number, default)


def _decay(draft: Draft, flag: str, default: float, why: str = "") -> None:
    draft.take(flag, f"{PARAMS}.weight_decay", draft.source.number, default, why)


def _betas(draft: Draft) -> None:
    key = f"{PARAMS}.betas"
    betas = draft.source.pair(key) or (0.9, 0.999)
    for flag, value in zip(("adam_b1", "adam_b2"), betas):
        draft.settings[flag] = Setting(value, key, draft.source.states(key))


def _warn_of_zero(draft: Draft) -> None:
    stage = draft.settings.get("zero_stage")
    is_refused = draft.settings["optimizer"].value in ZERO_REFUSES
    allowed = draft.source.boolean("zero_allow_untested_optimizer")
    if stage and stage.value and is_refused and not allowed:
        draft.note(
            "zero_allow_untested_optimizer",
            "DeepSpeed itself refuses this optimizer under ZeRO unless it is true",
        )


OPTIMIZERS: dict[str, Callable[[Draft, str], Any]] = {
    "adam": _adam,
    "adamw": _adam,
    "SGD": _sgd,
    "adagrad": _adagrad,
    "RMSprop": _rmsprop,
}
