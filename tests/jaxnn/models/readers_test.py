"""Our language models read token by token what they would see at once."""

import jax
import numpy as np
import pytest

from jaxnn import decoding, models, train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.models import readers

CONTEXT = 8
CHARACTERS = "\nabcdef"
SIGNATURE = Signature((CONTEXT,), len(CHARACTERS), len(CHARACTERS), per_step=True)
MODELS = ["transformer", "rnn", "lstm", "gru"]
ROUNDING = {"fp32": 2e-6, "bf16": 0.05, "fp16": 0.005}
LENGTH = 21


def language_model(name, precision="fp32"):
    """(Forward pass of parameters and tokens, parameters, reader)."""
    experiment = Experiment(
        model=name,
        hidden_sizes=(12, 9),
        num_layers=2,
        width=12,
        num_heads=3,
        precision=precision,
        loss="cross_entropy",
    )
    model = models.build(experiment, SIGNATURE)
    start = train_step.initial_variables(model, 3, SIGNATURE)["params"]
    # Larger than at the start, so that all tokens matter.
    params = jax.tree.map(lambda x: 3 * np.asarray(x), start)

    def forward(tokens):
        return train_step.forward(experiment, model, params, {}, tokens)

    return jax.jit(forward), readers.build(experiment, model, params)


def seen(tokens, drawn, context):
    """What a reader sees when it draws each token."""
    window = list(tokens)
    for token in drawn:
        yield list(window)
        if len(window) == context:
            window = window[context - context // 2 :]
        window.append(token)


@pytest.mark.parametrize("name", MODELS)
class TestBuild:
    @pytest.mark.parametrize("precision", ROUNDING)
    def test_logits_are_the_forward_passes(self, name, precision):
        forward, reader = language_model(name, precision)
        tokens = np.random.default_rng(0).integers(0, len(CHARACTERS), CONTEXT)
        expected = forward(tokens.astype(np.int32)[None])[0]
        read = jax.jit(lambda read, *args: read(*args))
        memory = reader.memory
        for position, token in enumerate(tokens):
            logits, memory = read(
                reader.read, memory, np.int32(token), np.int32(position)
            )
            assert logits.dtype == expected.dtype
            np.testing.assert_allclose(
                logits.astype(np.float32),
                expected[position].astype(np.float32),
                rtol=0,
                atol=ROUNDING[precision] * float(abs(expected).max()),
            )

    @pytest.mark.parametrize("prompt", ["b", "cabdafeb", "cabdafebcabfe"])
    @pytest.mark.parametrize("temperature", [0.0, 0.9])
    def test_draws_what_forward_passes_would(self, name, prompt, temperature):
        """Prompts shorter than the context, as long, and longer."""
        forward, reader = language_model(name)
        text = decoding.generate(
            reader, CHARACTERS, CONTEXT, prompt, LENGTH, temperature, seed=4
        )
        drawn = [CHARACTERS.index(character) for character in text]
        prompted = [CHARACTERS.index(character) for character in prompt][-CONTEXT:]
        keys = jax.random.split(jax.random.key(4), LENGTH)
        room = reader.context or CONTEXT + LENGTH
        for key, token, window in zip(
            keys, drawn, seen(prompted, drawn, reader.context)
        ):
            padded = np.zeros((1, room), np.int32)
            padded[0, : len(window)] = window
            logits = forward(padded)[0, len(window) - 1]
            assert decoding._choose(key, logits, temperature, 0) == token

    def test_up_to_the_context_the_text_is_the_forward_passes(self, name):
        forward, reader = language_model(name)
        texts = [
            decoding.generate(
                network, CHARACTERS, CONTEXT, "ab", CONTEXT - 1, 0.7, 3, seed=1
            )
            for network in (forward, reader)
        ]
        assert texts[0] == texts[1]

    def test_parameters_are_arguments_of_the_program(self, name):
        _, reader = language_model(name)
        assert len(jax.tree.leaves(reader.read)) > 5


def test_another_network_is_none():
    experiment = Experiment(model="transformer_encoder", precision="fp32")
    for name in ("mlp", "transformer_encoder"):
        model = models.build(experiment.replace(model=name), Signature((4, 4), 3))
        assert readers.build(experiment, model, {}) is None
