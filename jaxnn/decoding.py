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
    """Draws text character by character.

    Args:
      forward: tokens [1, context] int32 -> logits [1, context, characters]; position t
        sees no later one.
      characters: the vocabulary, by token.
      context: positions of the model; the last so many characters are what it sees.
      prompt: where the text begins; "" begins at a line break, or at the first
        character.
      length: characters to draw.
      temperature: what the logits are divided by; 0 takes the likeliest character.
      top_k: draw among the k likeliest; 0: among all.
      seed: of the draws.

    Raises:
      UserError: a character of the prompt that the model has never seen.
    """
    tokens = encode(prompt, characters)[-context:]
    draw = jax.jit(_make_draw(forward, length, temperature, top_k))
    window = np.zeros(context, np.int32)
    window[: len(tokens)] = tokens
    drawn = draw(window, len(tokens), jax.random.key(seed))
    return "".join(characters[token] for token in np.asarray(drawn))


def encode(prompt: str, characters: Sequence[str]) -> list[int]:
    """Tokens of a prompt; those of a line break or the first character if it is empty."""
    known = {character: token for token, character in enumerate(characters)}
    unknown = [character for character in prompt if character not in known]
    if unknown:
        raise UserError(
            f"--prompt: the model has never seen {unknown[0]!r}; leave it out"
        )
    return [known[character] for character in prompt] or [known.get("\n", 0)]


def _make_draw(
    forward: Callable, length: int, temperature: float, top_k: int
) -> Callable:
    def draw(window: jax.Array, filled: jax.Array, key: jax.Array) -> jax.Array:
        def body(carry, key):
            window, filled = carry
            logits = forward(window[None])[0, filled - 1].astype(jnp.float32)
            token = _choose(key, logits, temperature, top_k)
            is_full = filled == window.shape[0]
            window = jnp.where(is_full, jnp.roll(window, -1), window)
            filled = jnp.where(is_full, filled, filled + 1)
            return (window.at[filled - 1].set(token), filled), token

        return lax.scan(body, (window, filled), jax.random.split(key, length))[1]

    return draw


def _choose(
    key: jax.Array, logits: jax.Array, temperature: float, top_k: int
) -> jax.Array:
    if temperature == 0:
        return jnp.argmax(logits).astype(jnp.int32)
    if top_k:
        least = lax.top_k(logits, min(top_k, logits.shape[0]))[0][-1]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.random.categorical(key, logits / temperature).astype(jnp.int32)
