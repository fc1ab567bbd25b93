"""A port of tests/parity/own_checkpoint/job.py's network; a case adds its optimizer."""

import jax
import optax  # noqa: F401  what the cases' optimizers are made of


def convert(state):
    """Returns a bare tree: a tied weight twice, a buffer, a frozen matrix."""
    return {
        "first": {"kernel": state["first.weight"].T, "bias": state["first.bias"]},
        "norm": {"scale": state["norm.weight"], "bias": state["norm.bias"]},
        "fixed": {"kernel": state["fixed.weight"].T, "bias": state["fixed.bias"]},
        "last": [state["last.weight"].T, state["tied.weight"]],
        "offset": state["offset"],
    }


def is_matrix(params):
    return jax.tree.map(lambda leaf: leaf.ndim == 2, params)


def is_trained(params):
    mask = jax.tree.map(lambda _: True, params)
    mask["fixed"]["kernel"] = False
    return mask
