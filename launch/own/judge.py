"""Judges the trace of train_deepspeed.py by the same step written in JAX.

    python launch/own/judge.py TRACE_FOLDER

The two functions compute in whatever format they are given, so that the judge can
measure their rounding.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.experiment.files.trace import Reader
from parity import own

DATA = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
NAME_MAP = {
    "encoder.weight": "encoder",
    "refine.weight": "refine/kernel",
    "refine.bias": "refine/bias",
}
DECAYED, RATE, DECAY = ("encoder", "refine/kernel"), 0.01, 0.1


def reconstruct(params, x, refined):
    """tanh(x W^T), refined or not, times W: the weights are tied. Kernels are as torch
    has them, [out, in]."""
    h = jnp.tanh(x @ params["encoder"].T)
    h = (
        h + jnp.tanh(h @ params["refine/kernel"].T + params["refine/bias"][None])
        if refined
        else h
    )
    return h @ params["encoder"] + params["shift"][None]


def gradients(params, step, dtype):
    """Loss and gradients of a recorded step."""
    x = jnp.asarray(DATA[step["batch/ids"]].astype(PRECISION), dtype)
    refined = int(step["optimizer_step"]) % 2 == 0
    wide = jnp.float64 if dtype == np.float64 else jnp.float32
    scale = jnp.asarray(step["loss_scale"], wide)

    def scaled_loss(params):
        loss = jnp.mean(
            (reconstruct(params, x, refined).astype(wide) - x.astype(wide)) ** 2
        )
        return loss * scale, loss

    (_, loss), grads = jax.value_and_grad(scaled_loss, has_aux=True)(
        {k: jnp.asarray(v) for k, v in params.items()}
    )
    return {
        "loss": loss,
        **{f"grads/{name}": grad.astype(wide) / scale for name, grad in grads.items()},
    }


def update(params, grads, moments, step, dtype):
    """AdamW on two groups: biases do not decay."""
    t, outputs = int(step["optimizer_step"]) + 1, {}
    for name, w in params.items():
        g = jnp.asarray(grads[name])
        m = 0.9 * moments[f"first/{name}"] + (1 - 0.9) * g
        v = 0.999 * moments[f"second/{name}"] + (1 - 0.999) * g * g
        direction = (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        kept = w * (1 - RATE * DECAY) if name in DECAYED else w
        outputs |= {
            f"updated/{name}": kept - RATE * direction,
            f"updated_moments/first/{name}": m,
            f"updated_moments/second/{name}": v,
        }
    return outputs


if __name__ == "__main__":
    trace = Reader(pathlib.Path(sys.argv[1]))
    PRECISION = {"fp16": np.float16, "fp32": np.float32}[trace.meta["precision"]]
    verdict = own.judge_step(trace, gradients, update, NAME_MAP).as_json()
    print(
        json.dumps(
            {key: verdict[key] for key in ("verdict", "max_z", "first_divergence")},
            indent=2,
        )
    )
    sys.exit(verdict["verdict"] != "parity")
