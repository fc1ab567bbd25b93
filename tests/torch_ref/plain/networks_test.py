"""Plain networks are the twins of DeepSpeed's, in torch's own layers."""

import pytest
import torch

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref import models
from torch_ref.dropout import mask_source
from torch_ref.plain import networks

ROWS = Signature((7,), 3)
IMAGES = Signature((9, 8, 3), 4)
STEPS = Signature((6, 5), 2)
TEXT = Signature((6,), 11, num_tokens=11, per_step=True)
MLP = Experiment(model="mlp", hidden_sizes=(6, 5))
CNN = Experiment(model="cnn", channels=(4, 6), hidden_sizes=(5,))
GRU = Experiment(model="gru", hidden_sizes=(4, 4))
TRANSFORMER = Experiment(model="transformer", width=8, num_heads=2)
CASES = {
    "linear": (Experiment(), ROWS),
    "mlp": (MLP, ROWS),
    "mlp, batch": (MLP.replace(normalization="batch"), ROWS),
    "mlp, layer": (MLP.replace(normalization="layer"), IMAGES),
    "mlp, residual": (MLP.replace(hidden_sizes=(7, 7, 5), residual=True), ROWS),
    "cnn": (CNN, IMAGES),
    "cnn, batch": (CNN.replace(normalization="batch", pool="average"), IMAGES),
    "cnn, layer": (CNN.replace(normalization="layer"), IMAGES),
    "cnn, softmax": (CNN.replace(activation="softmax"), IMAGES),
    "cnn, many poolings": (CNN.replace(channels=(2, 2, 2, 2, 2)), IMAGES),
    "resnet20": (Experiment(model="resnet"), IMAGES),
    "resnet18": (Experiment(model="resnet", resnet_depth=18), IMAGES),
    "rnn": (Experiment(model="rnn", hidden_sizes=(6, 5)), STEPS),
    "lstm": (Experiment(model="lstm", hidden_sizes=(6, 6)), STEPS),
    "gru, text": (Experiment(model="gru", hidden_sizes=(6,)), TEXT),
    "transformer": (TRANSFORMER, TEXT),
    "encoder": (TRANSFORMER.replace(model="transformer_encoder"), STEPS),
    "encoder of images": (TRANSFORMER.replace(model="transformer_encoder"), IMAGES),
    **{
        name: (MLP.replace(activation=name), ROWS)
        for name in Experiment.__dataclass_fields__["activation"].metadata["choices"]
    },
}


def inputs(signature: Signature) -> torch.Tensor:
    torch.manual_seed(1)
    if signature.num_tokens:
        return torch.randint(signature.num_tokens, (5, *signature.input_shape))
    return torch.randn(5, *signature.input_shape)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_the_twins(case, training):
    experiment, signature = CASES[case]
    twin = models.build(experiment, signature).train(training)
    plain = networks.build(experiment, signature).train(training)
    plain.load_state_dict(twin.state_dict())
    x = inputs(signature)
    masks = mask_source(0, 0, 0) if training else None
    # Batch statistics of few values amplify what kernels round.
    close = dict(rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(plain(x), twin(x, masks), **close)
    # Running statistics have moved alike.
    torch.testing.assert_close(
        {k: v for k, v in plain.state_dict().items() if "num_batches" not in k},
        {k: v for k, v in twin.state_dict().items() if "num_batches" not in k},
        **close,
    )


@pytest.mark.parametrize(
    ("experiment", "signature", "count"),
    [
        (MLP.replace(dropout_rates=(0.5, 0.0)), ROWS, 1),
        (CNN.replace(dropout_rates=(0.5,)), IMAGES, 1),
        (
            Experiment(model="gru", hidden_sizes=(4, 4), dropout_rates=(0.1, 0.2)),
            STEPS,
            2,
        ),
        (TRANSFORMER.replace(dropout_rates=(0.1,)), TEXT, 3),
    ],
)
def test_dropout_is_torchs(experiment, signature, count):
    plain = networks.build(experiment, signature)
    layers = [m for m in plain.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(layers) == count
    x = inputs(signature)
    assert not torch.equal(plain.train()(x), plain(x))
    assert torch.equal(plain.eval()(x), plain(x))


def test_ones_own_network():
    own = Experiment(model="launch/own/net.py:Net", hidden_sizes=(6,))
    plain = networks.build(own, Signature((13,), 3))
    assert plain(torch.randn(2, 13)).shape == (2, 3)
