"""What DeepSpeed 0.19.8 refuses: removed keys, and blocks in which it knows every key.

Those blocks are pydantic models (`DeepSpeedConfigModel`, extra="forbid"); elsewhere
DeepSpeed reads the keys it knows and ignores the rest.
"""

from typing import Any

from jaxnn.experiment.flags.deepspeed.entries import WORDS, DsConfigFile, parts
from jaxnn.experiment.flags.deepspeed.showing import show
from jaxnn.experiment.flags.deepspeed.suggesting import suggestion

# _REMOVED_TOP_LEVEL_CONFIG_KEYS and _REMOVED_ZERO_CONFIG_KEYS (runtime/config.py).
REMOVED = (
    "nebula",
    "compression_training",
    "amp",
    "quantize_training",
    "sparse_gradients",
    "eigenvalue",
    "sparse_attention",
    "elasticity",
    "graph_harvesting",
    "curriculum_learning",
    "progressive_layer_drop",
    "zero_optimization.mics_shard_size",
    "zero_optimization.mics_hierarchical_params_gather",
    "zero_optimization.zeropp_loco_param",
)

# Block -> its keys, by the kind of their values. "?": null is allowed.
STRICT: dict[str, dict[str, str]] = {
    "fp16": {
        "bool": "enabled auto_cast consecutive_hysteresis "
        "fp16_master_weights_and_grads",
        "int": "initial_scale_power loss_scale_window hysteresis min_loss_scale",
        "from 0": "loss_scale",
    },
    "bf16": {
        "bool": "enabled immediate_grad_update check_grad_overflow "
        "bf16_master_weights_and_grads bf16_optimizer_states",
    },
    "zero_optimization": {
        "stage": "stage",
        "bool": "contiguous_gradients reduce_scatter use_multi_rank_bucket_allreduce "
        "allgather_partitions compute_grad_norm load_from_fp32_weights "
        "elastic_checkpoint gather_16bit_weights_on_model_save "
        "stage3_gather_16bit_weights_on_model_save use_all_reduce_for_fetch_params "
        "stage3_use_all_reduce_for_fetch_params allgather_sequential "
        "stage3_allgather_sequential stage3_gather_fp16_weights_on_model_save "
        "ignore_unused_parameters legacy_stage1 round_robin_gradients "
        "parameter_alignment zero_quantized_weights "
        "zero_quantized_nontrainable_weights zero_quantized_gradients "
        "memory_efficient_linear pipeline_loading_checkpoint override_module_apply "
        "log_trace_cache_warnings enable_sanity_checks "
        "save_muon_momentum_buffer_in_memory",
        "bool?": "overlap_comm cpu_offload_param cpu_offload_use_pin_memory "
        "cpu_offload",
        "int": "module_granularity_threshold stage3_module_granularity_threshold",
        "int above 0": "reduce_bucket_size",
        "int from 0": "allgather_bucket_size sub_group_size prefetch_bucket_size "
        "stage3_prefetch_bucket_size param_persistence_threshold "
        "stage3_param_persistence_threshold model_persistence_threshold "
        "stage3_model_persistence_threshold max_live_parameters "
        "stage3_max_live_parameters max_reuse_distance stage3_max_reuse_distance "
        "zero_hpz_partition_size",
        "block?": "offload_param offload_optimizer zenflow",
        "block": "leaf_module",
    },
    "zero_optimization.offload_param": {
        "device": "device",
        "str?": "nvme_path",
        "int from 0": "buffer_count buffer_size max_in_cpu",
        "bool": "pin_memory",
    },
    "zero_optimization.offload_optimizer": {
        "device": "device",
        "str?": "nvme_path",
        "int from 0": "buffer_count",
        "bool": "pin_memory pipeline_read pipeline_write fast_init super_offload",
        "share": "ratio cpuadam_cores_perc",
    },
    "zero_optimization.leaf_module": {"any": "classes names name_suffixes"},
    "compile": {
        "bool": "deepcompile autoep_non_moe free_activation offload_activation "
        "offload_activation_pin_memory offload_opt_states double_buffer "
        "symmetric_memory debug_log offload_parameters sync_before_reduce "
        "sync_after_reduce sync_before_allgather sync_after_allgather "
        "keep_int_input_tensors keep_all_input_tensors",
        "int": "free_activation_threshold",
        "any?": "passes",
    },
    "comms_logger": {"bool": "enabled prof_all verbose debug", "any": "prof_ops"},
    "tensorboard": {"bool": "enabled", "str": "output_path job_name"},
    "csv_monitor": {"bool": "enabled", "str": "output_path job_name"},
    "wandb": {"bool": "enabled", "str": "project", "str?": "group team"},
    "comet": {
        "bool": "enabled",
        "int": "samples_log_interval",
        "bool?": "online",
        "str?": "project workspace api_key experiment_name experiment_key mode",
    },
    "hybrid_engine": {
        "bool": "enabled release_inference_cache pin_parameters enable_cuda_graph",
        "int": "inference_tp_size tp_gather_partition_size",
        "int above 0": "max_out_tokens",
    },
    "tensor_parallel": {
        "bool": "tp_overlap_comm keep_module_on_host replace_with_kernel_inject "
        "kernel_inject",
        "bool?": "vocab_parallel_lm_head",
        "int": "autotp_size",
        "any": "dtype vocab_parallel_ce_backend tensor_parallel tp",
        "any?": "injection_policy_tuple partition_config preset_model",
    },
    "timers.throughput": {"bool": "enabled synchronized"},
}
KINDS = {
    f"{block}.{name}": kind
    for block, kinds in STRICT.items()
    for kind, names in kinds.items()
    for name in names.split()
}

# Blocks that must be objects: DeepSpeed looks for keys in them.
OBJECTS = (
    *STRICT,
    "optimizer",
    "optimizer.params",
    "scheduler",
    "scheduler.params",
    "pipeline",
    "checkpoint",
    "data_types",
    "flops_profiler",
    "activation_checkpointing",
    "torch_autocast",
    "data_efficiency",
    "timers",
)
# Those that may be null, or false, which switches nothing on.
NULLABLE = (
    "bf16",
    "optimizer.params",
    "scheduler.params",
    "zero_optimization.offload_param",
    "zero_optimization.offload_optimizer",
)
# Other keys for which DeepSpeed 0.19.8 has no use for null.
NOT_NULL = ("gradient_clipping", "wall_clock_breakdown")
# Other keys that are no blocks.
PLAIN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer.type",
    "scheduler.type",
    "communication_data_type",
    "seq_parallel_communication_data_type",
    "wall_clock_breakdown",
)
SCALARS = frozenset(PLAIN) | frozenset(
    key for key, kind in KINDS.items() if not kind.startswith(("any", "block"))
)
FORMATS = ("fp16", "bf16", "fp32")


def check(source: DsConfigFile) -> None:
    """Raises UserError on the first key or value that DeepSpeed itself refuses."""
    for key in (*source.values, *source.auto, *source.nulls):
        _check_removed(source, key)
        _check_object(source, key)
        block = ".".join(parts(key)[:-1])
        if block in SCALARS:
            raise source.error(block, "must be a plain value, got an object")
        if block in STRICT and key not in KINDS and key not in STRICT:
            names = [name for name in KINDS if name.startswith(f"{block}.")]
            raise source.error(
                key, f"unknown key, which DeepSpeed refuses{suggestion(key, names)}"
            )
    for key, value in source.values.items():
        _check_value(source, key, value)
    _check_formats(source)
    for key in source.nulls:
        if not KINDS.get(key, "?").endswith("?") or key in NOT_NULL:
            raise source.error(key, "DeepSpeed refuses null here; leave it out")
    if "wall_clock_breakdown" in source.auto:
        raise source.error("wall_clock_breakdown", 'DeepSpeed refuses "auto" here')
    _check_offload(source)


def _check_removed(source: DsConfigFile, key: str) -> None:
    names = parts(key)
    for name in (names[0], ".".join(names[:2])):
        if name in REMOVED:
            raise source.error(
                name,
                "DeepSpeed 0.19.8 has removed it and refuses the key; leave it out",
            )


def _check_object(source: DsConfigFile, key: str) -> None:
    if key not in OBJECTS or (key in source.nulls and key in NULLABLE):
        return
    value = source.values.get(key, None if key in source.nulls else "auto")
    # A boolean is DeepSpeed's old form of the ZeRO block.
    is_old_zero = key == "zero_optimization" and isinstance(value, bool)
    if value != {} and not is_old_zero:
        raise source.error(key, f"must be an object, got {show(value)}")


def _check_value(source: DsConfigFile, key: str, value: Any) -> None:
    kind = KINDS.get(key, "any").removesuffix("?")
    if key == "wall_clock_breakdown":
        source.boolean(key)
    if kind == "bool" and not _is_boolean(value):
        raise source.wrong(key, "true or false")
    if kind.startswith("int"):
        _check_whole(source, key, value, kind)
    if kind == "str" and not isinstance(value, str):
        raise source.wrong(key, "a string")
    if kind == "device" and value not in ("none", "cpu", "nvme"):
        raise source.wrong(key, '"none", "cpu" or "nvme"')
    if kind == "block" and value != {}:
        raise source.wrong(key, "an object")
    if kind in ("share", "from 0"):
        _check_number(source, key, value, kind)


def _check_formats(source: DsConfigFile) -> None:
    for key in ("communication_data_type", "seq_parallel_communication_data_type"):
        value = source.values.get(key, "auto" if key in source.auto else None)
        if value is not None and str(value).lower() not in FORMATS:
            known = ", ".join(FORMATS)
            raise source.error(key, f"DeepSpeed knows {known}, got {show(value)}")


def _check_whole(source: DsConfigFile, key: str, value: Any, kind: str) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise source.wrong(key, "a whole number") from None
    if not number.is_integer():
        raise source.wrong(key, "a whole number")
    least = {"int above 0": 1, "int from 0": 0}.get(kind)
    if least is not None and number < least:
        raise source.error(
            key, f"must be at least {least}, got {show(value)}; DeepSpeed refuses it"
        )


def _check_number(source: DsConfigFile, key: str, value: Any, kind: str) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise source.wrong(key, "a number") from None
    if not 0 <= number <= (1 if kind == "share" else float("1e308")):
        bounds = "between 0 and 1" if kind == "share" else "a finite number from 0"
        raise source.wrong(key, bounds)


def _check_offload(source: DsConfigFile) -> None:
    for old, new in (
        ("cpu_offload", "offload_optimizer"),
        ("cpu_offload_param", "offload_param"),
    ):
        is_new = source.has_block(f"zero_optimization.{new}")
        if f"zero_optimization.{old}" in source.values and is_new:
            raise source.error(
                f"zero_optimization.{old}",
                f"DeepSpeed refuses it beside its new name, {new}; keep one of them",
            )


def refuse_for_stage(source: DsConfigFile, stage: int) -> None:
    """Raises UserError on what DeepSpeed does not have at a ZeRO stage."""
    norm = "zero_optimization.compute_grad_norm"
    if source.boolean(norm) is False and stage not in (1, 2):
        raise source.error(norm, f"DeepSpeed refuses false at ZeRO stage {stage}")
    ratio = "zero_optimization.offload_optimizer.ratio"
    if (source.number(ratio) or 1) < 1 and stage != 3:
        raise source.error(
            ratio, f"DeepSpeed refuses less than 1 at ZeRO stage {stage}"
        )


def _is_boolean(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in WORDS
    return isinstance(value, bool) or value in (0, 1)
