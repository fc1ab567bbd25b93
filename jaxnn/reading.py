"""Continues a text token by token, without computing again what it has computed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Reader(NamedTuple):
    """A language model that remembers what it has read.

    Attributes:
      read: (memory, token, position) -> (logits [characters], memory); `position`
        tokens were read before, and what the memory holds beyond them does not count. A
        pytree of the network's parameters, so that they are arguments of a compiled
        program: as constants in it they would make it another one after each training,
        and no cache would know it.
      memory: pytree of arrays, before the first token.
      context: tokens that the memory has room for; None for any number.
    """

    read: Callable
    memory: Any
    context: int | None


class Reading(NamedTuple):
    """Where a reader is in its text.

    Attributes:
      text: [tokens] int32, given and drawn ones, then room for the rest.
      known: () int32, tokens that are given or drawn.
      place: () int32, index of the token to read next.
      position: () int32, tokens in the memory.
      memory: of the reader.
    """

    text: Array
    known: Array
    place: Array
    position: Array
    memory: Any


def continue_text(
    reader: Reader, tokens: Array, keys: Array, choose: Callable[[Array, Array], Array]
) -> Array:
    """Draws the tokens that follow some others.

    When its memory is full, the reader goes back by half a context and reads on from
    position 0, so that a token is drawn by the last context // 2 + 1 to `context`
    tokens. To drop one token only would move each of the others to another position,
    and change all that is kept of them.

    Args:
      reader: language model.
      tokens: [n] int32 that it continues; one at least, at most the context.
      keys: [length] PRNG keys, one for each token to draw.
      choose: (key, logits [characters]) -> () int32.

    Returns:
      [length] int32.
    """
    given, length = len(tokens), len(keys)

    def step(now: Reading) -> Reading:
        logits, memory = reader.read(now.memory, now.text[now.place], now.position)
        # Given tokens, and those that are read again, have their successor already.
        is_new = now.place + 1 == now.known
        drawn = choose(keys[now.place + 1 - given], logits)
        next_token = jnp.where(is_new, drawn, now.text[now.place + 1])
        place, position = _onward(now, reader.context)
        text = now.text.at[now.place + 1].set(next_token)
        known = now.known + is_new.astype(jnp.int32)
        return Reading(text, known, place, position, memory)

    text = jnp.concatenate([tokens, jnp.zeros(length, jnp.int32)])
    none = jnp.int32(0)
    # One copy of the network in one loop, as compiling it takes longer than running it.
    start = Reading(text, jnp.int32(given), none, none, reader.memory)
    end = lax.while_loop(lambda now: now.known < given + length, step, start)
    return end.text[given:]


def _onward(now: Reading, context: int | None) -> tuple[Array, Array]:
    """Returns place and position of the next token."""
    place, position = now.place + 1, now.position + 1
    if context is None:
        return place, position
    is_full = position == context
    back = jnp.int32(context // 2)
    return jnp.where(is_full, place - back, place), jnp.where(is_full, 0, position)
