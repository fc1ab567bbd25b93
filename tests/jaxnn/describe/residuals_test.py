"""What autodiff keeps, by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxnn.describe import residuals


def kept(objective, *arguments) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of each array kept."""
    values = residuals.kept(
        lambda function, *rest: jax.make_jaxpr(function)(*rest),
        lambda params, *rest: (objective(params, *rest), None),
        *arguments,
    )
    return sorted((value.aval.shape, str(value.aval.dtype)) for value in values)


W, X, HALF = (
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (
        ((4, 3), jnp.float32),
        ((5, 4), jnp.float32),
        ((5, 4), jnp.float16),
    )
)


class TestKept:
    @pytest.mark.parametrize(
        ("objective", "expected"),
        [
            (lambda w, x: jnp.sum(x @ w), []),  # the input alone
            (
                lambda w, x: jnp.sum(x.reshape(20)[:, None] * w.reshape(12)[None]),
                [],
            ),  # views of input and parameter
            (lambda w, x: jnp.sum(jnp.sin(x @ w)), [((5, 3), "float32")]),  # the cosine
            (
                lambda w, x: jnp.sum(jnp.exp(x @ w)),
                [((5, 3), "float32")],
            ),  # its own output
            (lambda w, x: jnp.sum(jax.nn.relu(x @ w)), [((5, 3), "bool")]),  # the sign
            (
                lambda w, x: jnp.sum(jnp.sin(x @ w)) + jnp.sum(jnp.sin(x @ w)),
                [((5, 3), "float32")],
            ),  # twice alike: once
            (
                lambda w, x: jnp.sum(jnp.exp(x @ w)) + jnp.sum(jnp.sin(x @ w)),
                2 * [((5, 3), "float32")],
            ),
        ],
    )
    def test_by_hand(self, objective, expected):
        assert kept(objective, W, X) == expected

    def test_transposed_alike_is_not_alike(self):
        square = jax.ShapeDtypeStruct((3, 3), jnp.float32)
        assert (
            len(
                kept(
                    lambda w: jnp.sum(jnp.sin(w + w) * 2) + jnp.sum(jnp.sin(w + w.T)),
                    square,
                )
            )
            == 2
        )

    def test_what_is_widened_keeps_its_format(self):
        def objective(w, x):
            outputs = jnp.exp(x @ w.astype(jnp.float16))
            return jnp.sum(jnp.square(outputs.astype(jnp.float32) @ jnp.ones((3, 3))))

        assert ((5, 3), "float16") in kept(objective, W, HALF)

    def test_a_checkpoint_keeps_its_inputs_alone(self):
        def layer(x):
            return jnp.sin(jnp.exp(x))

        assert (
            len(kept(lambda w, x: jnp.sum(layer(x @ w)), W, X)) == 2
        )  # exp(y) and cos(exp(y))
        assert (
            len(kept(lambda w, x: jnp.sum(jax.checkpoint(layer)(x @ w)), W, X)) == 1
        )  # y
