"""The same network in flax, for `python -m parity.own TRACE launch/own/port.py`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Autoencoder(nn.Module):
    """Outputs [batch, 12] of x, [batch, 12]."""

    @nn.compact
    def __call__(self, x, refined):
        """`refined` comes from the recording, by its name."""
        kernel = self.param("encoder", nn.initializers.lecun_normal(), (12, 8))
        norm = nn.LayerNorm(epsilon=1e-5, name="norm")
        refine = nn.Dense(8, name="refine")
        h = jnp.tanh(x @ kernel)
        h = h + jnp.where(refined, jnp.tanh(refine(norm(h))), 0)
        shift = self.param("shift", nn.initializers.zeros, (12,))
        return h @ kernel.T + shift


def loss(outputs, x):
    """Returns the mean squared error, in float32 at least."""
    wide = jnp.promote_types(outputs.dtype, jnp.float32)
    return jnp.mean((outputs.astype(wide) - x.astype(wide)) ** 2)


def convert(state):
    """Returns the parameters above, of torch's state_dict."""
    return {
        "encoder": state["encoder.weight"].T,
        "norm": {"scale": state["norm.weight"], "bias": state["norm.bias"]},
        "refine": {"kernel": state["refine.weight"].T, "bias": state["refine.bias"]},
        "shift": state["shift"],
    }


def is_matrix(params):
    """Returns what decays."""
    return jax.tree.map(lambda leaf: leaf.ndim == 2, params)


# DeepSpeed's FusedAdam holds its betas in float32.
BETA_1, BETA_2 = (float(np.float32(beta)) for beta in (0.9, 0.999))
model = Autoencoder()
optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(0.01, BETA_1, BETA_2, weight_decay=0.1, mask=is_matrix),
)
