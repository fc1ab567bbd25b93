"""BERT of Hugging Face for masked words: norms last, a padding mask, a tied decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import linen as nn

from tests.parity.own.ports import faults, layers, weights

LAYERS, WIDTH, HIDDEN, HEADS, VOCAB, POSITIONS = 2, 32, 64, 4, 64, 32
EPSILON = 1e-12
PADDING = 0  # token whose lookup gets no gradient


def torch_model(seed: int) -> torch.nn.Module:
    config = transformers.BertConfig(
        num_hidden_layers=LAYERS,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_attention_heads=HEADS,
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    return weights.randomized(seed, lambda: transformers.BertForMaskedLM(config))


def batch(step: int) -> dict[str, torch.Tensor]:
    """Returns ids, mask, types and labels, [3, 12] each; two rows end in padding."""
    ids = weights.tokens(step, VOCAB)
    ids[2, 3] = PADDING  # in the midst of a text, where it is not masked
    mask = torch.ones_like(ids)
    mask[0, 7:] = mask[1, 10:] = 0
    labels = ids.clone()
    labels[:, ::2] = labels[mask == 0] = layers.IGNORED
    return {
        "input_ids": torch.where(mask == 1, ids, PADDING),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(12) > 5).long().expand(3, 12).contiguous(),
        "labels": labels,
    }


def training_loss(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], step: int
) -> torch.Tensor:
    return module(**inputs).loss


class Attention(nn.Module):
    """Attention over [batch, time, WIDTH], one projection for all three parts."""

    @nn.compact
    def __call__(self, x: jax.Array, allowed: jax.Array) -> jax.Array:
        parts = jnp.split(nn.Dense(3 * WIDTH, name="qkv")(x), 3, axis=-1)
        query, key, value = (p.reshape(*p.shape[:2], HEADS, -1) for p in parts)
        mixed = layers.attention(query, key, value, allowed)
        return nn.Dense(WIDTH, name="out")(mixed)


class Block(nn.Module):
    """Attention and feed-forward, each normalized after its shortcut."""

    @nn.compact
    def __call__(self, x: jax.Array, allowed: jax.Array) -> jax.Array:
        mixed = Attention(name="attention")(x, allowed)
        x = layers.LayerNorm(EPSILON, name="attention_norm")(mixed + x)
        hidden = layers.erf_gelu(nn.Dense(HIDDEN, name="up")(x))
        down = nn.Dense(WIDTH, name="down")(hidden)
        return layers.LayerNorm(EPSILON, name="norm")(down + x)


class Head(nn.Module):
    """What the decoder reads, [batch, time, WIDTH]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        transformed = layers.erf_gelu(nn.Dense(WIDTH, name="transform")(x))
        return layers.LayerNorm(EPSILON, name="norm")(transformed)


class Bert(nn.Module):
    """Logits, [batch, time, VOCAB], of ids, mask and types, [batch, time] each."""

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array, token_type_ids: jax.Array
    ) -> jax.Array:
        words = nn.Embed(VOCAB, WIDTH, name="words")
        types = nn.Embed(2, WIDTH, name="types")
        positions = nn.Embed(POSITIONS, WIDTH, name="positions")
        x = lookup(words, input_ids) + types(token_type_ids)
        x = x + positions(jnp.arange(input_ids.shape[1])[None])
        x = layers.LayerNorm(EPSILON, name="embedding_norm")(x)
        for number in range(LAYERS):
            allowed = attention_mask[:, None, None, :] == 1
            x = Block(name=f"layer_{number}")(x, allowed)
        bias = self.param("decoder_bias", nn.initializers.zeros, (VOCAB,))
        return words.attend(Head(name="head")(x)) + bias.reshape(1, 1, -1)


def lookup(words: nn.Embed, ids: jax.Array) -> jax.Array:
    """Returns rows of ids; as in torch, padding passes no gradient to its row."""
    rows = words(ids)
    return jnp.where((ids == PADDING)[..., None], jax.lax.stop_gradient(rows), rows)


model = Bert()


def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of labels, in the logits' dtype."""
    return layers.cross_entropy(outputs, labels)


def convert(state: dict[str, np.ndarray]) -> dict:
    """Returns the port's parameters; three projections become one."""
    embeddings, head = "bert.embeddings", "cls.predictions"
    tree = {
        "words": {"embedding": state[f"{embeddings}.word_embeddings.weight"]},
        "types": {"embedding": state[f"{embeddings}.token_type_embeddings.weight"]},
        "positions": {"embedding": state[f"{embeddings}.position_embeddings.weight"]},
        "embedding_norm": _norm(state, f"{embeddings}.LayerNorm"),
        "head": {
            "transform": _dense(state, f"{head}.transform.dense"),
            "norm": _norm(state, f"{head}.transform.LayerNorm"),
        },
        "decoder_bias": state[f"{head}.bias"],
    }
    for number in range(LAYERS):
        tree[f"layer_{number}"] = _block(state, f"bert.encoder.layer.{number}")
    return tree


def _block(state: dict[str, np.ndarray], name: str) -> dict:
    return {
        "attention": {
            "qkv": _joined(state, f"{name}.attention.self"),
            "out": _dense(state, f"{name}.attention.output.dense"),
        },
        "attention_norm": _norm(state, f"{name}.attention.output.LayerNorm"),
        "up": _dense(state, f"{name}.intermediate.dense"),
        "down": _dense(state, f"{name}.output.dense"),
        "norm": _norm(state, f"{name}.output.LayerNorm"),
    }


def _joined(state: dict[str, np.ndarray], name: str) -> dict:
    parts = [_dense(state, f"{name}.{part}") for part in ("query", "key", "value")]
    return {
        leaf: np.concatenate([part[leaf] for part in parts], axis=-1)
        for leaf in ("kernel", "bias")
    }


def _dense(state: dict[str, np.ndarray], name: str) -> dict:
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def _norm(state: dict[str, np.ndarray], name: str) -> dict:
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


FAULTS = {
    "norm_epsilon": faults.Fault(
        "bert.embeddings.LayerNorm",
        "LayerNorm adds 1e-5 to the variance instead of 1e-12",
        faults.attribute(torch.nn.LayerNorm, eps=1e-5),
    ),
    "tanh_gelu": faults.Fault(
        "bert.encoder.layer.0.intermediate.intermediate_act_fn",
        "GELU in its tanh form instead of erf",
        faults.output(r".*(intermediate|transform)_act_fn", faults.tanh_gelu),
    ),
    "attention_scale": faults.Fault(
        "bert.encoder.layer.0.attention",
        "scores are not divided by the root of the head's size",
        faults.attribute(r".*attention\.self", scaling=1.0),
    ),
    "padding_seen": faults.Fault(
        "bert.encoder.layer.0.attention",
        "attention sees padding",
        faults.attribute("bert", _create_attention_masks=lambda **masks: (None, None)),
    ),
    "decoder_bias": faults.Fault(
        "cls.predictions.decoder",
        "the decoder has no bias",
        faults.attribute(r"cls\.predictions\.decoder", bias=None),
    ),
    "detached_decoder": faults.Fault(
        "bert.embeddings.word_embeddings",
        "the tied decoder passes no gradient to the embedding",
        faults.detached(r"cls\.predictions\.decoder"),
        shows_in="gradients",
    ),
    "padding_learns": faults.Fault(
        "bert.embeddings.word_embeddings",
        "the padding's lookup passes a gradient to its row",
        faults.attribute(r"bert\.embeddings\.word_embeddings", padding_idx=None),
        shows_in="gradients",
    ),
}
