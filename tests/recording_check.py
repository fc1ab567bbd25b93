"""What recordings of either stack are checked by: the first layer's outputs, computed
here from what was recorded."""

import ml_dtypes
import numpy as np

from jaxnn.experiment.files.batch_summary import batch_summary

FORMATS = {
    "fp64": np.float64,
    "fp32": np.float32,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
}


def unit_of(precision):
    """Half an ulp of 1."""
    return float(ml_dtypes.finfo(FORMATS[precision]).eps) / 2


def assert_first_layers(experiment, data, trace, unit):
    """Every recorded activation is of the batch's real rows, in order and of its
    format; `hidden_0` is x W + b.

    Rounding of the 30 products and sums of an entry, and of what is stored, is at most
    32 units of their sizes.
    """
    compute = FORMATS[experiment.precision]
    for number in range(len(trace)):
        step = trace.read(number)
        _assert_given(data, step)
        x, kernel, bias = (
            np.asarray(array).astype(compute).astype(np.float64)
            for array in (
                data.train_inputs[step["batch/ids"]],
                step["params/hidden_0/kernel"],
                step["params/hidden_0/bias"],
            )
        )
        error = np.abs(step["activations/hidden_0"] - (x @ kernel + bias))
        assert (error <= 32 * unit * (np.abs(x) @ np.abs(kernel) + np.abs(bias))).all()
        for layer in trace.meta["order"]["activations"]:
            rows = step[f"activations/{layer}"]
            assert len(rows) == len(step["batch/ids"])
            assert rows.dtype == (
                np.float64 if experiment.precision == "fp64" else np.float32
            )
            np.testing.assert_array_equal(rows, rows.astype(compute).astype(rows.dtype))
    assert len(step["batch/ids"]) < experiment.batch_size, "no step had padding"


def _assert_given(data, step):
    """The recorded digests are of the batch's real rows, in order."""
    ids = step["batch/ids"]
    wanted = batch_summary(data.train_inputs[ids], data.train_targets[ids])
    assert wanted.keys() <= step.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(step[name], array, name)
