"""GPT-2 of Hugging Face: norms first, fused projection, tied head."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import linen as nn

from tests.parity.own.ports import faults, layers, weights

LAYERS, WIDTH, HEADS, VOCAB, POSITIONS = 2, 32, 4, 64, 32


def torch_model(seed: int, dropout: float = 0.0) -> torch.nn.Module:
    config = transformers.GPT2Config(
        n_layer=LAYERS,
        n_embd=WIDTH,
        n_head=HEADS,
        vocab_size=VOCAB,
        n_positions=POSITIONS,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    return weights.randomized(seed, lambda: transformers.GPT2LMHeadModel(config))


def batch(step: int) -> dict[str, torch.Tensor]:
    """Returns ids and labels, [3, 12] each; the first labels of a row are ignored."""
    ids = weights.tokens(step, VOCAB)
    labels = ids.clone()
    labels[0, :4] = layers.IGNORED
    return {"input_ids": ids, "labels": labels}


def training_loss(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], step: int
) -> torch.Tensor:
    return module(**inputs).loss


def gelu_new(x: jax.Array) -> jax.Array:
    """Returns the tanh form, every operation rounded to the dtype of `x`."""
    inner = (2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + jnp.tanh(inner))


class Attention(nn.Module):
    """Causal attention over [batch, time, WIDTH]."""

    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts = jnp.split(nn.Dense(3 * WIDTH, name="c_attn")(x), 3, axis=-1)
        query, key, value = (p.reshape(*p.shape[:2], HEADS, -1) for p in parts)
        mixed = layers.attention(query, key, value, layers.causal(x.shape[1]))
        projected = nn.Dense(WIDTH, name="c_proj")(mixed)
        return nn.Dropout(self.dropout, deterministic=False, name="resid_dropout")(
            projected
        )


class FeedForward(nn.Module):
    """Two layers over [batch, time, WIDTH]."""

    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = gelu_new(nn.Dense(4 * WIDTH, name="c_fc")(x))
        projected = nn.Dense(WIDTH, name="c_proj")(hidden)
        return nn.Dropout(self.dropout, deterministic=False, name="dropout")(projected)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a shortcut."""

    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = (
            Attention(self.dropout, name="attn")(layers.LayerNorm(1e-5, name="ln_1")(x))
            + x
        )
        return x + FeedForward(self.dropout, name="mlp")(
            layers.LayerNorm(1e-5, name="ln_2")(x)
        )


class GPT2(nn.Module):
    """Logits, [batch, time, VOCAB], of ids, [batch, time].

    Attributes:
      dropout: of embeddings and of what is added to the residual stream.
    """

    dropout: float = 0.0

    @nn.compact
    def __call__(self, input_ids: jax.Array) -> jax.Array:
        wte = nn.Embed(VOCAB, WIDTH, name="wte")
        wpe = nn.Embed(POSITIONS, WIDTH, name="wpe")
        x = wte(input_ids) + wpe(jnp.arange(input_ids.shape[1])[None])
        x = nn.Dropout(self.dropout, deterministic=False, name="drop")(x)
        for number in range(LAYERS):
            x = Block(self.dropout, name=f"h_{number}")(x)
        return wte.attend(layers.LayerNorm(1e-5, name="ln_f")(x))


model = GPT2()


def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of every position's next label, in float32."""
    return layers.cross_entropy(layers.wide(outputs[:, :-1]), labels[:, 1:])


def convert(state: dict[str, np.ndarray]) -> dict:
    """Returns the port's parameters; kernels are [in, out] on both sides."""
    tree = {
        "wte": {"embedding": state["transformer.wte.weight"]},
        "wpe": {"embedding": state["transformer.wpe.weight"]},
        "ln_f": norm(state, "transformer.ln_f"),
    }
    for number in range(LAYERS):
        tree[f"h_{number}"] = _block(state, f"transformer.h.{number}")
    return tree


def norm(state: dict[str, np.ndarray], name: str) -> dict:
    """Returns scale and bias of torch's LayerNorm `name`."""
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


def _block(state: dict[str, np.ndarray], name: str) -> dict:
    return {
        "ln_1": norm(state, f"{name}.ln_1"),
        "attn": {
            part: _dense(state, f"{name}.attn.{part}") for part in ("c_attn", "c_proj")
        },
        "ln_2": norm(state, f"{name}.ln_2"),
        "mlp": {
            part: _dense(state, f"{name}.mlp.{part}") for part in ("c_fc", "c_proj")
        },
    }


def _dense(state: dict[str, np.ndarray], name: str) -> dict:
    return {"kernel": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


FAULTS = {
    "norm_epsilon": faults.Fault(
        "transformer.h.0.ln_1",
        "LayerNorm adds 1e-6 to the variance instead of 1e-5",
        faults.attribute(torch.nn.LayerNorm, eps=1e-6),
    ),
    "erf_gelu": faults.Fault(
        "transformer.h.0.mlp.act",
        "GELU in its erf form instead of tanh",
        faults.output(r"transformer\.h\.\d+\.mlp\.act", faults.erf_gelu),
    ),
    "attention_scale": faults.Fault(
        "transformer.h.0.attn",
        "scores are divided by the head's size instead of its root",
        faults.attribute(r"transformer\.h\.\d+\.attn", scaling=HEADS / WIDTH),
    ),
    "positions_from_one": faults.Fault(
        "transformer.wpe",
        "positions count from one",
        faults.arguments(r"transformer\.wpe", lambda ids: ids + 1),
    ),
    "soft_cap": faults.Fault(
        "lm_head",
        "logits are capped softly at 30",
        faults.output("lm_head", faults.soft_cap),
    ),
    "detached_head": faults.Fault(
        "transformer.wte",
        "the tied head passes no gradient to the embedding",
        faults.detached("lm_head"),
        shows_in="gradients",
    ),
    "unshifted_labels": faults.Fault(
        "",
        "every position predicts its own token",
        faults.attribute("", loss_function=faults.unshifted_loss),
    ),
}
