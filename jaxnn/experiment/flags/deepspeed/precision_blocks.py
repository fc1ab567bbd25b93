"""The fp16 and bf16 blocks, clipping and the ZeRO stage."""

from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting


def read(draft: Draft) -> None:
    """Sets the precision, the loss scaler, --clip_norm and --zero_stage."""
    source = draft.source
    _format(draft)
    draft.take("static_loss_scale", "fp16.loss_scale", source.number, 0.0)
    draft.take("initial_scale_power", "fp16.initial_scale_power", source.whole, 16)
    draft.take("loss_scale_window", "fp16.loss_scale_window", source.whole, 1000)
    draft.take("hysteresis", "fp16.hysteresis", source.whole, 2)
    draft.take(
        "consecutive_hysteresis", "fp16.consecutive_hysteresis", source.boolean, False
    )
    draft.take("min_loss_scale", "fp16.min_loss_scale", source.whole, 1)
    draft.take(
        "clip_norm",
        "gradient_clipping",
        source.number,
        1.0,
        "0 in the file switches clipping off",
    )
    if isinstance(source.values.get("zero_optimization"), bool):
        draft.settings["zero_stage"] = Setting(
            int(source.values["zero_optimization"]), "zero_optimization"
        )
    elif "zero_optimization" not in source.auto:
        draft.take("zero_stage", "zero_optimization.stage", source.whole, 0, "no ZeRO")


def _format(draft: Draft) -> None:
    source = draft.source
    enabled = {name: source.boolean(f"{name}.enabled") for name in ("fp16", "bf16")}
    on = [name for name, value in enabled.items() if value]
    if len(on) > 1:
        raise source.error("bf16.enabled", "so is fp16.enabled; enable one of them")
    said = on or [name for name, value in enabled.items() if value is not None]
    if not on and any(
        f"{name}.enabled" in source.auto or name in source.auto for name in enabled
    ):
        return
    key = f"{said[0]}.enabled" if said else "fp16.enabled"
    draft.settings["precision"] = Setting(
        on[0] if on else "fp32", key, bool(said), "neither fp16 nor bf16 is enabled"
    )
