"""The optimizer block: DeepSpeed's own and torch's, with the defaults of each
(engine._configure_basic_optimizer)."""

from collections.abc import Callable
from typing import Any

from jaxnn.experiment.flags.deepspeed import keys
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting

ANY_CASE = ("adam", "adamw", "adagrad")
PARAMS = "optimizer.params"
SPEED_ONLY = ("foreach", "fused", "capturable", "differentiable", "set_grad_none")
REQUIRED = {"amsgrad": False, "maximize": False, "decoupled_weight_decay": False}
ZERO_REFUSES = ("sgd", "momentum", "nesterov", "rmsprop")


def read(draft: Draft) -> None:
    """Sets the optimizer and its hyperparameters; without a block the flags decide.

    Raises:
      UserError: an optimizer or a variant of it that jaxnn does not have.
    """
    source = draft.source
    kind = source.text("optimizer.type")
    if kind is None:
        source.refuse_without_type("optimizer")
        draft.note(
            "optimizer", f"not in {source.name}; --optimizer and its flags decide"
        )
        return
    name = kind.lower() if kind.lower() in ANY_CASE else kind
    if name not in OPTIMIZERS:
        raise source.error(
            "optimizer.type",
            f"{source.show(kind)} is not supported; known: Adam, AdamW, SGD, Adagrad, "
            "RMSprop",
        )
    if f"{PARAMS}.max_grad_norm" in source.values:
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
        {**REQUIRED, "bias_correction": True, "fp32_optimizer_states": True},
        SPEED_ONLY,
    )
    decoupled = name == "adamw" or source.boolean(f"{PARAMS}.adam_w_mode") is not False
    draft.take(
        "fused_adam",
        f"{PARAMS}.torch_adam",
        lambda key: _negated(source.boolean(key)),
        True,
    )
    is_torchs = source.boolean(f"{PARAMS}.torch_adam") and decoupled
    _learning_rate(draft, 1e-3)
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
    if (
        chosen == "adamw"
        and name == "adam"
        and f"{PARAMS}.adam_w_mode" not in source.values
    ):
        draft.note(
            "optimizer.type",
            "DeepSpeed's Adam is AdamW unless adam_w_mode is false: --optimizer=adamw",
        )


def _without_decay(draft: Draft) -> str:
    """Adamw, or adam if the user says so and nothing decays: the same thing then."""
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
    momentum, nesterov = (
        source.number(f"{PARAMS}.momentum"),
        source.boolean(f"{PARAMS}.nesterov"),
    )
    if nesterov and not momentum:
        raise source.error(
            f"{PARAMS}.nesterov", "needs a momentum; torch refuses it without"
        )
    chosen = "nesterov" if nesterov else "momentum" if momentum else "sgd"
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
    if key not in draft.source.auto:
        betas = draft.source.pair(key)
        for flag, value in zip(("adam_b1", "adam_b2"), betas or (0.9, 0.999)):
            draft.settings[flag] = Setting(value, key, betas is not None)


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def _warn_of_zero(draft: Draft) -> None:
    source, stage = draft.source, draft.settings.get("zero_stage")
    allowed = source.boolean("zero_allow_untested_optimizer")
    if (
        stage
        and stage.value
        and draft.settings["optimizer"].value in ZERO_REFUSES
        and not allowed
    ):
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
