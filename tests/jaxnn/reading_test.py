"""Tests of jaxnn/reading.py, by readers whose logits tell what they remember."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import reading
from jaxnn.reading import Reader

VOCABULARY = 100


def remember(memory, token, position):
    """Keeps the tokens; the logits make the next one of the first that is kept and of
    how many are."""
    memory = memory.at[position].set(token)
    return 50 * jax.nn.one_hot(memory[0] + position, VOCABULARY), memory


def add(memory, token, position):
    """Keeps the sum of all tokens; the next one is its last digit."""
    memory = memory + token
    return 50 * jax.nn.one_hot(memory % 10, VOCABULARY), memory


def greedy(key, logits):
    return jnp.argmax(logits).astype(jnp.int32)


def continued(read, memory, context, tokens, length, choose=greedy):
    reader = Reader(read, memory, context)
    keys = jax.random.split(jax.random.key(0), length)
    return reading.continue_text(
        reader, jnp.array(tokens, jnp.int32), keys, choose
    ).tolist()


class TestContinueText:
    @pytest.mark.parametrize("context", [1, 2, 5, 6])
    @pytest.mark.parametrize("given", [1, 5])
    def test_a_full_memory_goes_on_from_its_later_half(self, context, given):
        text = list(range(1, given + 1))[-context:]
        window = list(text)
        expected = []
        for _ in range(17):
            expected.append(window[0] + len(window) - 1)
            if len(window) == context:
                window = window[context - context // 2 :]
            window.append(expected[-1])
        memory = jnp.zeros(context, jnp.int32)
        assert continued(remember, memory, context, text, 17) == expected

    def test_without_a_context_nothing_is_forgotten(self):
        text = [1, 2]
        for _ in range(20):
            text.append(sum(text) % 10)
        assert continued(add, jnp.int32(0), None, [1, 2], 20) == text[2:]

    def test_each_token_has_its_key(self):
        def choose(key, logits):
            return jax.random.randint(key, (), 0, VOCABULARY, jnp.int32)

        keys = jax.random.split(jax.random.key(0), 9)
        expected = jax.vmap(lambda key: choose(key, None))(keys)
        memory = jnp.zeros(4, jnp.int32)
        drawn = continued(remember, memory, 4, [3, 1, 2], 9, choose)
        np.testing.assert_array_equal(drawn, expected)
