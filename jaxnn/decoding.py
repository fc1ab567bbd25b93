"""Draws text from a language model, character by character."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.experiment.errors import UserError


def generate(
    forward: Callable,
    characters: Sequence[str],
    context: int,
    prompt: str,
    length: int,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
) -> str:
    """Returns the characters that a language model continues a prompt with.

    Args:
      forward: tokens [1, context] int32 -> logits [1, context, characters]; position t
        sees no later one.
      characters: the vocabulary, by token.
      context: positions of the model; it sees that many of the last characters.
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
    draw = jax.jit(_make_draw(forward, length, temperature, top_k))
    # Filled from the left. What follows the last token is never seen, as the model is
    # causal.
    window = np.zeros(context, np.int32)
    window[: len(tokens)] = tokens
    drawn = draw(window, len(tokens), jax.random.key(seed))
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


def _make_draw(
    forward: Callable, length: int, temperature: float, top_k: int
) -> Callable:
    """Returns draw(window, filled, key) -> tokens [length]."""

    def draw(window: jax.Array, filled: jax.Array, key: jax.Array) -> jax.Array:
        def body(carry, key):
            window, filled = carry
            logits = forward(window[None])[0, filled - 1].astype(jnp.float32)
            token = _choose(key, logits, temperature, top_k)
            # A full window drops its first token. Shapes are static in a scan, so both
            # cases are computed.
            is_full = filled == window.shape[0]
            window = jnp.where(is_full, jnp.roll(window, -1), window)
            filled = jnp.where(is_full, filled, filled + 1)
            return (window.at[filled - 1].set(token), filled), token

        keys = jax.random.split(key, length)
        _, tokens = lax.scan(body, (window, filled), keys)
        return tokens

    return draw


def _choose(
    key: jax.Array, logits: jax.Array, temperature: float, top_k: int
) -> jax.Array:
    """Draws one token: [characters] -> () int32."""
    if temperature == 0:
        return jnp.argmax(logits).astype(jnp.int32)
    if top_k:
        largest, _ = lax.top_k(logits, min(top_k, logits.shape[0]))
        logits = jnp.where(logits < largest[-1], -jnp.inf, logits)
    return jax.random.categorical(key, logits / temperature).astype(jnp.int32)
