"""The keys of a ds_config: translated to flags, passed on, ignored, or limited to one
value.

The lists are those of DeepSpeed 0.19.8. What it refuses itself is in `strict`; a key
that is in neither it ignores, and so does jaxnn, with a warning.
"""

from collections.abc import Iterable
from typing import Any

from jaxnn.experiment.flags.deepspeed.entries import DsConfigFile, parts
from jaxnn.experiment.flags.deepspeed.showing import shortened, show
from jaxnn.experiment.flags.deepspeed.strict import OBJECTS, STRICT
from jaxnn.experiment.flags.deepspeed.suggesting import nearest, suggestion

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
    "fp16.auto_cast",
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
    "torch_autocast",
    "data_efficiency",
    "hybrid_engine",
    "expert_parallel",
)

# Blocks whose keys depend on the type of the optimizer or scheduler; `check_params`
# checks them.
CHECKED_BY_TYPE = ("optimizer.params", "scheduler.params")

ANOTHER = "jaxnn computes nothing of the kind"
# Key -> the only value with which DeepSpeed computes what jaxnn does, and what another
# would do.
REQUIRED: dict[str, tuple[Any, str]] = {
    "managed_gradient_accumulation": (
        True,
        "the training script would then divide the gradients itself",
    ),
    "gradient_allreduce_op": ("mean", "gradients would be summed over the ranks"),
    "dataloader_drop_last": (False, "the last batch of an epoch would be left out"),
    "sequence_parallel_size": (1, "ranks would share a sequence"),
    "fp16.fp16_master_weights_and_grads": (
        False,
        "DeepSpeed keeps master weights, gradients and Adam's moments in fp16 then, "
        "with its CPU Adam; jaxnn's are float32",
    ),
    "bf16.bf16_master_weights_and_grads": (
        False,
        "DeepSpeed keeps master weights and gradients in bf16 then; jaxnn's are "
        "float32",
    ),
    "bf16.bf16_optimizer_states": (
        False,
        "DeepSpeed keeps the moments in bf16 then; jaxnn's are float32",
    ),
    "zero_optimization.zero_quantized_weights": (False, "weights would be rounded"),
    "zero_optimization.zero_quantized_nontrainable_weights": (
        False,
        "frozen weights would be rounded",
    ),
    "zero_optimization.zero_quantized_gradients": (
        False,
        "gradients would be rounded",
    ),
    "zero_optimization.legacy_stage1": (False, "DeepSpeed no longer has it"),
    "tensor_parallel.autotp_size": (0, "ranks would share each layer"),
    "torch_autocast.enabled": (
        False,
        "torch chooses the format of each operation then, with a loss scaler of its "
        "own in fp16; use the fp16 or the bf16 block",
    ),
    "data_efficiency.enabled": (False, "DeepSpeed would choose the batches"),
    "hybrid_engine.enabled": (False, ANOTHER),
    "expert_parallel.enabled": (False, ANOTHER),
}

# Keys and blocks that change the mathematics unless they are false or empty.
REFUSED = (
    "weight_quantization",
    "zero_optimization.zenflow",
    "data_types.param_dtype",
    "data_types.buffer_dtype",
    "data_types.keep_in_fp32_modules",
)

# Keys and blocks about memory and communication: the same mathematics, so that JAX has
# no use for them; but faults of DeepSpeed may live there. torch_ref passes them on.
PASSED = (
    "bf16.immediate_grad_update",
    "bf16.check_grad_overflow",
    "communication_data_type",
    "data_types.grad_accum_dtype",
    "disable_allgather",
    "prescale_gradients",
    "gradient_predivide_factor",
    *(
        f"zero_optimization.{name}"
        for name in (
            "allgather_bucket_size",
            "allgather_partitions",
            "allgather_sequential",
            "compute_grad_norm",
            "contiguous_gradients",
            "cpu_offload",
            "cpu_offload_param",
            "cpu_offload_use_pin_memory",
            "elastic_checkpoint",
            "enable_sanity_checks",
            "gather_16bit_weights_on_model_save",
            "ignore_unused_parameters",
            "load_from_fp32_weights",
            "log_trace_cache_warnings",
            "max_live_parameters",
            "max_reuse_distance",
            "memory_efficient_linear",
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

# Keys and blocks about logs, files, speed, and what only a user's own script or model
# has: nobody here needs them.
IGNORED = (
    "steps_per_print",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "disable_python_gc",
    "log_level",
    "vocabulary_size",
    "allgather_size",
    "seq_parallel_communication_data_type",
    "zero_force_ds_cpu_optimizer",
    "use_data_before_expert_parallelism",
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
    "pipeline",
    "tensorboard",
    "timers",
    "wandb",
    "optimizer.legacy_fusion",
    "tensor_parallel",
    "torch_autocast",
    "data_efficiency",
    "hybrid_engine",
    "expert_parallel",
    "zero_optimization.leaf_module",
    "zero_optimization.save_muon_momentum_buffer_in_memory",
)

KNOWN = (*TRANSLATED, *BLOCKS, *REQUIRED, *REFUSED, *PASSED, *IGNORED)
# The same for `covering`, which looks names up.
COVERED = frozenset((*CHECKED_BY_TYPE, *REFUSED, *PASSED, *IGNORED))
EXACT = frozenset((*TRANSLATED, *REQUIRED, *BLOCKS))
LOOKED_INTO = frozenset((*OBJECTS, *BLOCKS))
_REFUSED, _PASSED, _IGNORED = map(frozenset, (REFUSED, PASSED, IGNORED))

# Keys that real files put elsewhere -> where DeepSpeed reads them.
MOVED = {
    "max_grad_norm": "gradient_clipping",
    "grad_clip": "gradient_clipping",
    "clip_grad": "gradient_clipping",
    "lr_scheduler": "scheduler",
    "lr": "optimizer.params.lr",
    "learning_rate": "optimizer.params.lr",
    "eps": "optimizer.params.eps",
    "betas": "optimizer.params.betas",
    "weight_decay": "optimizer.params.weight_decay",
    "batch_size": "train_batch_size",
    "micro_batch_size": "train_micro_batch_size_per_gpu",
    "comms_config": "comms_logger",
}
# Where such a key belongs -> what does not happen.
MISSED = {
    "gradient_clipping": "it clips nothing",
    "scheduler": "it makes no schedule",
    "optimizer": "it does not reach the optimizer",
}
LISTED = 8
"""Keys that a warning names; more are counted."""


def check(source: DsConfigFile) -> tuple[dict[str, Any], list[str], list[str]]:
    """Checks every key of a file that DeepSpeed accepts.

    Returns:
      Keys to pass on to DeepSpeed with their values, known keys that nobody here needs,
      and keys that DeepSpeed ignores, with what that means.

    Raises:
      UserError: a key asks for something that jaxnn does not compute.
    """
    unknown: dict[str, None] = {}
    for key in (*source.values, *source.auto, *source.nulls):
        if key not in EXACT and not covering(key, COVERED) and key not in OBJECTS:
            unknown[_outermost(key)] = None
    passed, ignored = {}, {}
    for key, value in source.values.items():
        _check_value(source, key, value)
        if key in REQUIRED or key in BLOCKS:
            continue
        if covering(key, _PASSED):
            passed[key] = value
        # A block is reported once, however many keys it has.
        elif name := covering(key, _IGNORED):
            ignored[name] = None
    return passed, list(ignored), _explained(list(unknown))


def _check_value(source: DsConfigFile, key: str, value: Any) -> None:
    refused = covering(key, _REFUSED)
    # Empty or false, the feature is off.
    if refused and value not in (False, [], {}):
        raise source.error(
            refused, "is not supported, and would change what is computed"
        )
    if key not in REQUIRED:
        return
    only, why = REQUIRED[key]
    if isinstance(only, bool) and key.partition(".")[0] in STRICT:
        value = source.boolean(key)
    if isinstance(value, str):
        value = value.lower()
    if value != only:
        raise source.error(
            key,
            f"{show(value)} is not supported, and would change what is computed: "
            f"{why}; only {show(only)} is",
        )


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
    for key in (*source.values, *source.auto, *source.nulls):
        if key.startswith(f"{block}.") and key not in known:
            raise source.error(
                key, f"unknown key, which DeepSpeed refuses{suggestion(key, known)}"
            )
    for name, only in required.items():
        value = source.values.get(f"{block}.{name}", only)
        if value != only:
            raise source.error(
                f"{block}.{name}",
                f"{show(value)} is not supported; only {show(only)} is",
            )


def blocks(passed: Iterable[str]) -> list[str]:
    """Returns keys that are passed on, each block of them once."""
    return list(dict.fromkeys(covering(key, _PASSED) for key in passed))


def covering(key: str, names: frozenset[str]) -> str:
    """Returns the name that is the key or a block around it, or "" if there is none."""
    while key and key not in names:
        key = key.rpartition(".")[0]
    return key


def _outermost(key: str) -> str:
    """Returns the outermost part of an unknown key that is unknown itself."""
    names = parts(key)
    return ".".join(names[: 2 if names[0] in LOOKED_INTO else 1])


def _explained(unknown: list[str]) -> list[str]:
    """Returns each key with what DeepSpeed does not do, and where it belongs."""
    listed = [_one(key) for key in unknown[:LISTED]]
    if len(unknown) > LISTED:
        listed.append(f"and {len(unknown) - LISTED} more")
    return listed


def _one(key: str) -> str:
    shown = shortened(key)
    last = key.rpartition(".")[2]
    # "_comment" is like "comet".
    is_remark = last.startswith(("_", "/", "#"))
    belongs = MOVED.get(last) or ("" if is_remark else nearest(shown, KNOWN))
    if not belongs:
        return shown
    missed = MISSED.get(belongs.partition(".")[0], "it changes nothing")
    return f"{shown} ({missed}; it belongs in {belongs})"
