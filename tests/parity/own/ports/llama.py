"""Llama of Hugging Face: grouped heads, rotary positions, RMS norms, SwiGLU."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import linen as nn
from transformers.models.llama import modeling_llama

from tests.parity.own.ports import faults, layers, weights

LAYERS, WIDTH, HIDDEN, HEADS, GROUPS, VOCAB, POSITIONS = 2, 32, 48, 4, 2, 64, 32
HEAD = WIDTH // HEADS
EPSILON = 1e-6
BASE = 10000.0  # longest wavelength of positions, in radians


def torch_model(seed: int, tied: bool = False) -> torch.nn.Module:
    config = transformers.LlamaConfig(
        num_hidden_layers=LAYERS,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=EPSILON,
        tie_word_embeddings=tied,
        attn_implementation="eager",
        use_cache=False,
    )
    return weights.randomized(seed, lambda: transformers.LlamaForCausalLM(config))


def batch(step: int) -> dict[str, torch.Tensor]:
    """Returns ids and labels, [3, 12] each."""
    ids = weights.tokens(step, VOCAB)
    return {"input_ids": ids, "labels": ids.clone()}


def training_loss(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], step: int
) -> torch.Tensor:
    return module(**inputs).loss


class RMSNorm(nn.Module):
    """Divides the last axis by its root mean square; rounds, then scales.

    Attributes:
      epsilon: added to the mean square.
    """

    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        square = jnp.square(wide := layers.wide(x)).mean(-1, keepdims=True)
        normal = (wide * jax.lax.rsqrt(square + self.epsilon)).astype(x.dtype)
        return scale.reshape((1,) * (x.ndim - 1) + (-1,)) * normal


def turns(length: int, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Returns cosines and sines of positions, [1, length, 1, HEAD] in `dtype`.

    The frequencies are a float32 buffer in torch, which a cast of the whole module to
    half precision rounds as well.
    """
    powers = np.arange(0, HEAD, 2, dtype=np.float32) / np.float32(HEAD)
    frequencies = layers.wide(jnp.asarray(1 / np.float32(BASE) ** powers, dtype))
    positions = jnp.arange(length).astype(frequencies.dtype)
    angles = jnp.outer(positions, jnp.tile(frequencies, 2))[None, :, None]
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turns pairs (i, i + HEAD / 2) of the last axis.

    Args:
      x: [batch, time, heads, HEAD].
      cos: [1, time, 1, HEAD].
      sin: as `cos`.
    """
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


class Attention(nn.Module):
    """Causal attention over [batch, time, WIDTH]; HEADS / GROUPS share keys."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        query, key, value = (
            linear(count * HEAD, f"{part}_proj")(x).reshape(*x.shape[:2], count, HEAD)
            for part, count in (("q", HEADS), ("k", GROUPS), ("v", GROUPS))
        )
        cos, sin = turns(x.shape[1], x.dtype)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        key, value = (jnp.repeat(p, HEADS // GROUPS, axis=2) for p in (key, value))
        mixed = layers.attention(query, key, value, layers.causal(x.shape[1]))
        return linear(WIDTH, "o_proj")(mixed)


class FeedForward(nn.Module):
    """Gated layer over [batch, time, WIDTH]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = layers.silu(linear(HIDDEN, "gate_proj")(x))
        return linear(WIDTH, "down_proj")(gate * linear(HIDDEN, "up_proj")(x))


def linear(width: int, name: str) -> nn.Dense:
    """Returns a layer without bias."""
    return nn.Dense(width, use_bias=False, name=name)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a shortcut."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + Attention(name="self_attn")(RMSNorm(name="input_layernorm")(x))
        return x + FeedForward(name="mlp")(RMSNorm(name="post_attention_layernorm")(x))


class Llama(nn.Module):
    """Logits, [batch, time, VOCAB], of ids, [batch, time].

    Attributes:
      tied: whether the head is the embedding.
    """

    tied: bool = False

    @nn.compact
    def __call__(self, input_ids: jax.Array) -> jax.Array:
        embedding = nn.Embed(VOCAB, WIDTH, name="embed_tokens")
        x = embedding(input_ids)
        for number in range(LAYERS):
            x = Block(name=f"layers_{number}")(x)
        x = RMSNorm(name="norm")(x)
        return embedding.attend(x) if self.tied else linear(VOCAB, "lm_head")(x)


model = Llama()


def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of every position's next label, in float32."""
    return layers.cross_entropy(layers.wide(outputs[:, :-1]), labels[:, 1:])


def convert(state: dict[str, np.ndarray]) -> dict:
    """Returns the parameters of the port whose head is its own."""
    return {**convert_body(state), "lm_head": {"kernel": state["lm_head.weight"].T}}


def convert_body(state: dict[str, np.ndarray]) -> dict:
    """Returns the parameters of all but the head."""
    tree = {
        "embed_tokens": {"embedding": state["model.embed_tokens.weight"]},
        "norm": {"scale": state["model.norm.weight"]},
    }
    for number in range(LAYERS):
        tree[f"layers_{number}"] = _block(state, f"model.layers.{number}")
    return tree


def _block(state: dict[str, np.ndarray], name: str) -> dict:
    parts = {"self_attn": "qkvo", "mlp": ("gate", "up", "down")}
    norms = ("input_layernorm", "post_attention_layernorm")
    return {
        **{norm: {"scale": state[f"{name}.{norm}.weight"]} for norm in norms},
        **{
            layer: {
                f"{part}_proj": {
                    "kernel": state[f"{name}.{layer}.{part}_proj.weight"].T
                }
                for part in names
            }
            for layer, names in parts.items()
        },
    }


def interleaved(q, k, cos, sin):
    """Rotates neighbours (2i, 2i + 1) instead of halves; all in torch."""
    cos, sin = (
        t[..., : HEAD // 2].repeat_interleave(2, -1).unsqueeze(1) for t in (cos, sin)
    )
    return tuple(
        t * cos + torch.stack([-t[..., 1::2], t[..., ::2]], -1).flatten(-2) * sin
        for t in (q, k)
    )


FAULTS = {
    "norm_epsilon": faults.Fault(
        "model.layers.0.input_layernorm",
        "RMSNorm adds 1e-5 to the mean square instead of 1e-6",
        faults.attribute(modeling_llama.LlamaRMSNorm, variance_epsilon=1e-5),
    ),
    "interleaved_rotation": faults.Fault(
        "model.layers.0.self_attn",
        "rotary positions pair neighbours instead of halves",
        faults.function(modeling_llama, "apply_rotary_pos_emb", interleaved),
    ),
    "tiled_groups": faults.Fault(
        "model.layers.0.self_attn",
        "heads take the groups' keys in turn instead of side by side",
        faults.function(
            modeling_llama, "repeat_kv", lambda keys, times: keys.repeat(1, times, 1, 1)
        ),
    ),
    "attention_scale": faults.Fault(
        "model.layers.0.self_attn",
        "scores are divided by the head's size instead of its root",
        faults.attribute(r".*self_attn", scaling=1 / HEAD),
    ),
    "rounded_embedding_scale": faults.Fault(
        "model.embed_tokens",
        "embeddings are multiplied by the width's root, rounded to bf16",
        faults.output(
            r"model\.embed_tokens",
            lambda ids, rows: rows * float(torch.tensor(WIDTH**0.5).bfloat16()),
        ),
    ),
    "gelu_gate": faults.Fault(
        "model.layers.0.mlp.act_fn",
        "the gate is GELU instead of SiLU",
        faults.output(r".*mlp\.act_fn", faults.tanh_gelu),
    ),
    "soft_cap": faults.Fault(
        "lm_head",
        "logits are capped softly at 30",
        faults.output("lm_head", faults.soft_cap),
    ),
}
