"""The least that JAX can do for an experiment: one jitted `lax.scan` an epoch, optax,
and nothing of jaxnn's training.

What a careful person writes by hand for these three networks. The padded last batch,
the dropout and the evaluation are those of the product, so that both compute the same
things.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment


def make_run(
    experiment: Experiment, data: Dataset
) -> Callable[[], list[tuple[float, float, float]]]:
    """Returns run() -> (training loss, test loss, test metric) of every epoch; the
    epoch is compiled here."""
    optimizer = optax.adam(experiment.learning_rate)
    arrays = (
        flat(data.train_inputs),
        data.train_targets,
        flat(data.test_inputs),
        data.test_targets,
    )
    params = initial_params(
        [arrays[0].shape[1], *experiment.hidden_sizes, data.num_outputs],
        experiment.seed,
    )
    start = jax.tree.map(np.asarray, (params, optimizer.init(params), jnp.int32(0)))
    epoch = (
        make_epoch(experiment, data.task, optimizer)
        .lower(start, epoch_rows(len(data.train_inputs), experiment, 0), arrays)
        .compile()
    )

    def run() -> list[tuple[float, float, float]]:
        state, on_device, history = jax.device_put(start), jax.device_put(arrays), []
        for number in range(experiment.epochs):
            state, losses = epoch(
                state, epoch_rows(len(data.train_inputs), experiment, number), on_device
            )
            history.append(tuple(np.asarray(losses).tolist()))
        return history

    return run


def flat(inputs: np.ndarray) -> np.ndarray:
    """Examples as rows."""
    return inputs.reshape(len(inputs), -1)


def initial_params(sizes: list[int], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """[(kernel, bias)] of each layer, LeCun normal and zero."""
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.standard_normal((fan_in, fan_out)) / fan_in**0.5).astype(np.float32),
            np.zeros(fan_out, np.float32),
        )
        for fan_in, fan_out in itertools.pairwise(sizes)
    ]


def epoch_rows(samples: int, experiment: Experiment, epoch: int) -> np.ndarray:
    """[steps, batch] shuffled row numbers, -1 where the last batch has no more."""
    size = experiment.batch_size
    rows = np.full(-(-samples // size) * size, -1, np.int32)
    rows[:samples] = np.random.default_rng([experiment.seed, epoch]).permutation(
        samples
    )
    return rows.reshape(-1, size)


def make_epoch(
    experiment: Experiment, task: str, optimizer: optax.GradientTransformation
) -> Callable:
    """Returns the jitted epoch(state, rows, arrays) -> (state, [training loss, test
    loss, test metric])."""

    def epoch(state: Any, rows: jax.Array, arrays: tuple) -> tuple[Any, jax.Array]:
        train_inputs, train_targets, test_inputs, test_targets = arrays

        def step(state: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
            params, moments, number = state
            key = jax.random.fold_in(jax.random.key(experiment.seed), number)
            batch = train_inputs[rows], train_targets[rows], rows >= 0
            loss, grads = jax.value_and_grad(batch_loss)(params, *batch, key)
            updates, moments = optimizer.update(grads, moments)
            return (optax.apply_updates(params, updates), moments, number + 1), loss

        def batch_loss(
            params: Any,
            inputs: jax.Array,
            targets: jax.Array,
            valid: jax.Array,
            key: jax.Array,
        ):
            outputs = network(params, inputs, experiment.dropout_rates, key)
            return jnp.mean(LOSSES[task](outputs, targets), where=valid)

        state, losses = lax.scan(step, state, rows)
        outputs = network(state[0], test_inputs, (), None)
        tests = [
            jnp.mean(function(outputs, test_targets))
            for function in (LOSSES[task], METRICS[task])
        ]
        return state, jnp.stack([losses.mean(), *tests])

    return jax.jit(epoch, donate_argnums=0)


def network(
    params: Any, x: jax.Array, dropout_rates: tuple[float, ...], key: jax.Array | None
) -> jax.Array:
    """A perceptron with ReLU; without hidden layers, linear regression."""
    for layer, (kernel, bias) in enumerate(params[:-1]):
        x = jax.nn.relu(x @ kernel + bias)
        if dropout_rates:
            keep = 1 - dropout_rates[layer]
            x = jnp.where(
                jax.random.bernoulli(jax.random.fold_in(key, layer), keep, x.shape),
                x / keep,
                0,
            )
    return x @ params[-1][0] + params[-1][1]


LOSSES = {
    "regression": lambda y, t: jnp.square(y - t)[:, 0],
    "binary": lambda y, t: optax.sigmoid_binary_cross_entropy(y, t)[:, 0],
    "multiclass": optax.softmax_cross_entropy_with_integer_labels,
}
METRICS = {
    "regression": lambda y, t: jnp.abs(y - t)[:, 0],
    "binary": lambda y, t: ((y >= 0) == (t > 0.5))[:, 0],
    "multiclass": lambda y, t: y.argmax(axis=-1) == t,
}
