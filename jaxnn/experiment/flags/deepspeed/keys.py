"""The keys of a ds_config: translated to flags, ignored, or limited to one value.

The lists are those of DeepSpeed 0.19.8. A key that is in none of them is an error, so
that a typo or a new feature cannot change the training unnoticed.
"""

import difflib
from collections.abc import Sequence
from typing import Any

from jaxnn.experiment.flags.deepspeed.draft import DsConfigFile, show

# Keys that jaxnn reads.
TRANSLATED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer.type",
    "scheduler.type",
    "zero_optimization",
    "zero_optimization.stage",
    "zero_allow_untested_optimizer",
    "fp16.enabled",
    "fp16.loss_scale",
    "fp16.initial_scale_power",
    "fp16.loss_scale_window",
    "fp16.hysteresis",
    "fp16.consecutive_hysteresis",
    "fp16.min_loss_scale",
    "bf16.enabled",
)

# Blocks that jaxnn looks into; other blocks are refused or ignored as a whole.
BLOCKS = (
    "optimizer",
    "optimizer.params",
    "scheduler",
    "scheduler.params",
    "zero_optimization",
    "fp16",
    "bf16",
    "data_types",
    "tensor_parallel",
    "amp",
    "torch_autocast",
    "data_efficiency",
    "curriculum_learning",
    "progressive_layer_drop",
    "eigenvalue",
    "elasticity",
    "hybrid_engine",
    "expert_parallel",
    "quantize_training",
)

# Blocks whose keys depend on the type of the optimizer or scheduler; `check_params`
# checks them.
CHECKED_BY_TYPE = ("optimizer.params", "scheduler.params")

# Key -> the only value with which DeepSpeed computes what jaxnn does.
REQUIRED: dict[str, Any] = {
    "managed_gradient_accumulation": True,
    "gradient_allreduce_op": "mean",
    "dataloader_drop_last": False,
    "sequence_parallel_size": 1,
    "sparse_gradients": False,
    "fp16.auto_cast": False,
    "fp16.fp16_master_weights_and_grads": False,
    "bf16.bf16_master_weights_and_grads": False,
    "bf16.bf16_optimizer_states": False,
    "zero_optimization.zero_quantized_weights": False,
    "zero_optimization.zero_quantized_nontrainable_weights": False,
    "zero_optimization.zero_quantized_gradients": False,
    "tensor_parallel.autotp_size": 0,
    "amp.enabled": False,
    "torch_autocast.enabled": False,
    "data_efficiency.enabled": False,
    "curriculum_learning.enabled": False,
    "progressive_layer_drop.enabled": False,
    "eigenvalue.enabled": False,
    "elasticity.enabled": False,
    "hybrid_engine.enabled": False,
    "expert_parallel.enabled": False,
    "quantize_training.enabled": False,
}

# Keys and blocks that change the mathematics unless they are false or empty.
REFUSED = (
    "compression_training",
    "sparse_attention",
    "weight_quantization",
    "zero_optimization.zenflow",
    "zero_optimization.zeropp_loco_param",
    "data_types.param_dtype",
    "data_types.buffer_dtype",
    "data_types.keep_in_fp32_modules",
)

# Keys and blocks about memory, communication, logs and files: they do not change the
# mathematics.
IGNORED = (
    "steps_per_print",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "disable_python_gc",
    "log_level",
    "vocabulary_size",
    "disable_allgather",
    "allgather_size",
    "communication_data_type",
    "seq_parallel_communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "zero_force_ds_cpu_optimizer",
    "use_data_before_expert_parallelism",
    "graph_harvesting",
    "activation_checkpointing",
    "aio",
    "autotuning",
    "checkpoint",
    "comms_logger",
    "compile",
    "csv_monitor",
    "comet",
    "datastates",
    "flops_profiler",
    "nebula",
    "pipeline",
    "tensorboard",
    "timers",
    "wandb",
    "optimizer.legacy_fusion",
    "data_types.grad_accum_dtype",
    "bf16.immediate_grad_update",
    "bf16.check_grad_overflow",
    "tensor_parallel",
    "amp",
    "torch_autocast",
    "data_efficiency",
    "curriculum_learning",
    "progressive_layer_drop",
    "eigenvalue",
    "elasticity",
    "hybrid_engine",
    "expert_parallel",
    "quantize_training",
    *(
        f"zero_optimization.{name}"
        for name in (
            "allgather_bucket_size",
            "allgather_partitions",
            "compute_grad_norm",
            "contiguous_gradients",
            "cpu_offload",
            "cpu_offload_param",
            "cpu_offload_use_pin_memory",
            "elastic_checkpoint",
            "enable_sanity_checks",
            "gather_16bit_weights_on_model_save",
            "ignore_unused_parameters",
            "leaf_module",
            "load_from_fp32_weights",
            "log_trace_cache_warnings",
            "max_live_parameters",
            "max_reuse_distance",
            "memory_efficient_linear",
            "mics_hierarchical_params_gather",
            "mics_shard_size",
            "model_persistence_threshold",
            "module_granularity_threshold",
            "offload_optimizer",
            "offload_param",
            "overlap_comm",
            "override_module_apply",
            "param_persistence_threshold",
            "parameter_alignment",
            "pipeline_loading_checkpoint",
            "prefetch_bucket_size",
            "reduce_bucket_size",
            "reduce_scatter",
            "round_robin_gradients",
            "save_muon_momentum_buffer_in_memory",
            "stage3_allgather_sequential",
            "stage3_gather_16bit_weights_on_model_save",
            "stage3_gather_fp16_weights_on_model_save",
            "stage3_max_live_parameters",
            "stage3_max_reuse_distance",
            "stage3_model_persistence_threshold",
            "stage3_module_granularity_threshold",
            "stage3_param_persistence_threshold",
            "stage3_prefetch_bucket_size",
            "stage3_use_all_reduce_for_fetch_params",
            "sub_group_size",
            "use_all_reduce_for_fetch_params",
            "use_multi_rank_bucket_allreduce",
            "zero_hpz_partition_size",
        )
    ),
)

KNOWN = (*TRANSLATED, *BLOCKS, *REQUIRED, *REFUSED, *IGNORED)


def check(source: DsConfigFile) -> list[str]:
    """Checks every key of a file and returns those that are ignored.

    Raises:
      UserError: a key is unknown, or asks for something that jaxnn does not compute.
    """
    for key in (*source.values, *source.auto):
        is_known = (
            key in TRANSLATED
            or key in REQUIRED
            or key in BLOCKS
            or covering(key, (*CHECKED_BY_TYPE, *REFUSED, *IGNORED))
        )
        if not is_known:
            raise source.error(key, f"unknown key{_suggestion(key, KNOWN)}")
    for key, value in source.values.items():
        _check_value(source, key, value)

    ignored = [
        covering(key, IGNORED)
        for key in source.values
        if key not in REQUIRED and key not in BLOCKS
    ]
    # A block is reported once, however many keys it has.
    return list(dict.fromkeys(filter(None, ignored)))


def _check_value(source: DsConfigFile, key: str, value: Any) -> None:
    refused = covering(key, REFUSED)
    # Empty or false, the feature is off.
    if refused and value not in (False, [], {}):
        raise source.error(
            refused, "is not supported, and would change what is computed"
        )
    if key in REQUIRED and value != REQUIRED[key]:
        raise source.error(
            key,
            f"{show(value)} is not supported, and would change what is computed; only "
            f"{show(REQUIRED[key])} is",
        )
    # A block that is an object is flattened to the keys in it, unless it is empty. A
    # boolean is DeepSpeed's old form of the ZeRO block.
    is_old_zero = key == "zero_optimization" and isinstance(value, bool)
    if key in BLOCKS and value != {} and not is_old_zero:
        raise source.error(key, f"must be an object, got {show(value)}")


def check_params(
    source: DsConfigFile,
    block: str,
    translated: tuple[str, ...],
    required: dict[str, Any],
    ignored: tuple[str, ...],
) -> None:
    """Checks the keys of a block whose names depend on its type.

    Args:
      source: the file.
      block: "optimizer.params" or "scheduler.params".
      translated: names that become flags.
      required: name -> the only supported value.
      ignored: names that do not change the result.

    Raises:
      UserError: a name is unknown, or a required one has another value.
    """
    known = [f"{block}.{name}" for name in (*translated, *required, *ignored)]
    for key in (*source.values, *source.auto):
        if covering(key, (block,)) and key not in (*known, block):
            raise source.error(key, f"unknown key{_suggestion(key, known)}")
    for name, only in required.items():
        value = source.values.get(f"{block}.{name}", only)
        if value != only:
            raise source.error(
                f"{block}.{name}",
                f"{show(value)} is not supported; only {show(only)} is",
            )


def covering(key: str, names: Sequence[str]) -> str:
    """Returns the name that is the key or a block around it, or "" if there is none."""
    return next(
        (name for name in names if key == name or key.startswith(f"{name}.")), ""
    )


def _suggestion(key: str, known: Sequence[str]) -> str:
    """Returns "; did you mean ...?" with a similar key, or "" if there is none."""
    close = difflib.get_close_matches(key, known, 1, 0.75)
    if not close:
        # The right name in the wrong block: compare last parts alone. Of equal ones the
        # first key wins, hence the reversed order.
        last = {name.rpartition(".")[2]: name for name in reversed(known)}
        name = key.rpartition(".")[2]
        close = [
            last[match] for match in difflib.get_close_matches(name, last, 1, 0.75)
        ]
    return f"; did you mean {close[0]}?" if close else ""
