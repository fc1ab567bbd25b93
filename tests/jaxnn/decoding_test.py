"""Tests of jaxnn/decoding.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import decoding
from jaxnn.experiment.errors import UserError

CHARACTERS = ("\n", "a", "b", "c")
CONTEXT = 5


def successor(tokens):
    """Logits that make the next character of the cycle a, b, c all but certain; a line
    break is followed by a."""
    return 50 * jnp.eye(4)[jnp.where(tokens == 3, 1, tokens + 1)]


def last_seen(tokens):
    """Logits for the token that stands at the first position."""
    return jnp.broadcast_to(50 * jnp.eye(4)[tokens[:, :1]], (*tokens.shape, 4))


class TestGenerate:
    @pytest.mark.parametrize("temperature", [0, 0.5])
    @pytest.mark.parametrize(
        ("prompt", "text"),
        [("a", "bcabcabc"), ("", "abcabcab"), ("abcabcabca", "bcabcabc")],
    )
    def test_goes_on_from_the_prompt_beyond_the_context(
        self, prompt, text, temperature
    ):
        assert (
            decoding.generate(successor, CHARACTERS, CONTEXT, prompt, 8, temperature)
            == text
        )

    def test_the_window_holds_the_last_characters(self):
        """The model repeats its first position: at first "b", and once the window is
        full what moved there."""
        assert (
            decoding.generate(last_seen, CHARACTERS, CONTEXT, "bcaac", 7, 0)
            == "bcaacbc"
        )

    def test_seed_decides(self):
        def flat(tokens):
            return jnp.zeros((*tokens.shape, 4))

        texts = [
            decoding.generate(flat, CHARACTERS, CONTEXT, "a", 40, 1.0, seed=seed)
            for seed in (0, 0, 1)
        ]
        assert texts[0] == texts[1] != texts[2]
        assert set(texts[0]) == set(CHARACTERS)

    def test_top_k_draws_among_the_likeliest(self):
        def slope(tokens):
            return jnp.broadcast_to(jnp.arange(4.0) / 10, (*tokens.shape, 4))

        assert set(
            decoding.generate(slope, CHARACTERS, CONTEXT, "a", 60, 1.0, top_k=2)
        ) == {"b", "c"}

    def test_temperature_sharpens(self):
        def slope(tokens):
            return jnp.broadcast_to(jnp.arange(4.0), (*tokens.shape, 4))

        shares = [
            decoding.generate(slope, CHARACTERS, CONTEXT, "a", 300, t).count("c") / 300
            for t in (0.25, 1.0, 4.0)
        ]
        expected = [
            np.exp(3 / t) / np.exp(np.arange(4) / t).sum() for t in (0.25, 1.0, 4.0)
        ]
        # Four standard deviations of a share over 300 draws.
        np.testing.assert_allclose(shares, expected, rtol=0, atol=4 * 0.5 / 300**0.5)


class TestEncode:
    def test_unknown_character_is_named(self):
        with pytest.raises(
            UserError, match=r"^--prompt: the model has never seen 'z'; leave it out$"
        ):
            decoding.encode("az", CHARACTERS)

    def test_empty_prompt_is_a_line_break_or_the_first_character(self):
        assert decoding.encode("", CHARACTERS) == [0]
        assert decoding.encode("", ("x", "y")) == [0]
