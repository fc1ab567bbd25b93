"""Draws text from a language model, character by character."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.experiment.errors import UserError
from jaxnn.reading import Reader, continue_text


def generate(
    network: Callable | Reader,
    characters: Sequence[str],
    context: int,
    prompt: str,
    length: int,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
) -> str:
    """Returns the characters that a language model continues a prompt with.

    A forward pass sees the last `context` characters each time. A reader computes as
    much for a character as there is new: as long as the text is no longer than the
    context they draw the same. After that a reader with a context sees half of it to
    all of it, and one without (a recurrent network) everything since the prompt's last
    `context` characters.

    Args:
      network: reader, or forward pass: tokens [1, context] int32 -> logits [1, context,
        characters]; position t sees no later one.
      characters: the vocabulary, by token.
      context: positions of the model; of the prompt it sees that many, the last ones.
      prompt: where the text begins; "" begins at a line break, or at the first
        character of a vocabulary without one.
      length: characters to draw.
      temperature: divisor of the logits; 0 takes the likeliest character.
      top_k: number of likeliest characters to draw among; 0 for all.
      seed: seed of the draws.

    Raises:
      UserError: the prompt has a character that is not in the vocabulary.
    """
    tokens = encode(prompt, characters)[-context:]
    choose = functools.partial(_choose, temperature=temperature, top_k=top_k)
    prompted = np.array(tokens, np.int32)
    if isinstance(network, Reader):
        drawn = _read(network, prompted, length, seed, choose)
    else:
        drawn = _see(network, context, prompted, length, seed, choose)
    return "".join(characters[int(token)] for token in np.asarray(drawn))


def encode(prompt: str, characters: Sequence[str]) -> list[int]:
    """Returns the tokens of a prompt, one at least.

    Raises:
      UserError: the prompt has a character that is not in the vocabulary.
    """
    known = {character: token for token, character in enumerate(characters)}
    unknown = [character for character in prompt if character not in known]
    if unknown:
        raise UserError(
            f"--prompt: the model has never seen {unknown[0]!r}; leave it out"
        )
    # An empty prompt begins at a line break.
    return [known[character] for character in prompt] or [known.get("\n", 0)]


def _read(
    reader: Reader,
    tokens: np.ndarray,
    length: int,
    seed: int,
    choose: Callable,
) -> jax.Array:
    """Draws [length] tokens after others, with a reader."""

    def draw(read: Callable, memory: Any, tokens: jax.Array, seed: jax.Array):
        keys = jax.random.split(jax.random.key(seed), length)
        bound = Reader(read, memory, reader.context)
        return continue_text(bound, tokens, keys, choose)

    return jax.jit(draw)(reader.read, reader.memory, tokens, seed)


def _see(
    forward: Callable,
    context: int,
    tokens: np.ndarray,
    length: int,
    seed: int,
    choose: Callable,
) -> jax.Array:
    """Draws [length] tokens after others, with a forward pass for each."""

    def draw(window: jax.Array, filled: jax.Array, seed: jax.Array) -> jax.Array:
        def body(carry, key):
            window, filled = carry
            logits = forward(window[None])[0, filled - 1]
            token = choose(key, logits)
            # A full window drops its first token. Shapes are static in a scan, so both
            # cases are computed.
            is_full = filled == window.shape[0]
            window = jnp.where(is_full, jnp.roll(window, -1), window)
            filled = jnp.where(is_full, filled, filled + 1)
            return (window.at[filled - 1].set(token), filled), token

        keys = jax.random.split(jax.random.key(seed), length)
        _, tokens = lax.scan(body, (window, filled), keys)
        return tokens

    # Filled from the left. What follows the last token is never seen, as the model is
    # causal.
    window = np.zeros(context, np.int32)
    window[: len(tokens)] = tokens
    return jax.jit(draw)(window, len(tokens), seed)


def _choose(
    key: jax.Array, logits: jax.Array, temperature: float, top_k: int
) -> jax.Array:
    """Draws one token: [characters] -> () int32."""
    logits = logits.astype(jnp.float32)
    if temperature == 0:
        return jnp.argmax(logits).astype(jnp.int32)
    if top_k:
        largest, _ = lax.top_k(logits, min(top_k, logits.shape[0]))
        logits = jnp.where(logits < largest[-1], -jnp.inf, logits)
    return jax.random.categorical(key, logits / temperature).astype(jnp.int32)
