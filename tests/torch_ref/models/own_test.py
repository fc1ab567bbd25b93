"""A network of one's own in both stacks."""

import jax
import numpy as np
import pytest
import torch

import jaxnn.dropout
import jaxnn.models
import torch_ref.dropout
import torch_ref.models
from jaxnn import train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import flatten
from tests import own_nets
from torch_ref import params_io

ROWS = 8
CASES = {
    "usual names": (own_nets.PAIR, Signature((4, 4, 2), 3)),
    "renamed": (own_nets.RENAMED, Signature((5,), 2)),
}


@pytest.fixture(params=CASES)
def networks(request, tmp_path):
    """(JAX's network, its variables, torch's network with them, inputs), float64."""
    text, signature = CASES[request.param]
    experiment = own_nets.experiment(tmp_path, text)
    random = np.random.default_rng(0)
    ours = jaxnn.models.build(experiment, signature)
    fresh = train_step.initial_variables(ours, 0, signature)
    variables = jax.tree.map(
        lambda x: np.abs(np.float64(x) + random.normal(0, 0.3, x.shape)), fresh
    )
    theirs = torch_ref.models.build(experiment, signature).double()
    params_io.load(theirs, flatten(variables["params"]), "the test")
    params_io.load_stats(theirs, flatten(variables["batch_stats"]), "the test")
    return ours, variables, theirs, random.normal(size=(ROWS, *signature.input_shape))


class TestBuild:
    def test_both_stacks_compute_the_same_in_training(self, networks):
        ours, variables, theirs, inputs = networks
        random = np.random.default_rng(1)
        # flax's layers rely on JAX's usual promotion.
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            masks = jaxnn.dropout.mask_source(0, 3, 0)
            stats = variables["batch_stats"]

            def run(params):
                outputs, _ = ours.apply(
                    {"params": params, "batch_stats": stats},
                    inputs,
                    masks,
                    mutable=["batch_stats"],
                )
                return outputs

            outputs, pull = jax.vjp(run, variables["params"])
            weights = random.normal(size=outputs.shape)
            (wanted,) = pull(weights)
        found = theirs(torch.from_numpy(inputs), torch_ref.dropout.mask_source(0, 3, 0))
        found.backward(torch.from_numpy(weights))
        assert np.allclose(found.detach(), outputs, rtol=0, atol=1e-12)
        grads = {name: p.grad for name, p in theirs.named_parameters()}
        flat = params_io.to_flax(theirs, grads)
        assert flat.keys() == flatten(wanted).keys()
        for name, array in flatten(wanted).items():
            assert np.allclose(flat[name], array, rtol=0, atol=1e-12), name

    def test_both_stacks_compute_the_same_after_it(self, networks):
        ours, variables, theirs, inputs = networks
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            wanted = ours.apply(variables, inputs)
        with torch.no_grad():
            found = theirs.eval()(torch.from_numpy(inputs))
        assert np.allclose(found, wanted, rtol=0, atol=1e-12)

    def test_parameters_and_statistics_come_back_to_the_bit(self, networks):
        _, variables, theirs, _ = networks
        params = dict(theirs.named_parameters())
        for back, given in (
            (params_io.to_flax(theirs, params), variables["params"]),
            (params_io.stats_to_flax(theirs), variables["batch_stats"]),
        ):
            assert back.keys() == flatten(given).keys()
            for name, array in flatten(given).items():
                assert np.array_equal(back[name], array), name

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("class Net: pass", "has no class TorchNet; it has Net$"),
            ("class TorchNet: pass", "TorchNet is no torch.nn.Module"),
            (
                "from torch import nn\n\nclass TorchNet(nn.Flatten): pass",
                r"TorchNet takes start_dim|TorchNet of .*net.py returns \(1, 32\) for",
            ),
            (
                "from torch import nn\nclass TorchNet(nn.Module):\n"
                "  def forward(self, x): return x @ x[:, :, :3]",
                "net.py, line 3: RuntimeError: ",
            ),
            (
                "from torch import nn\nclass TorchNet(nn.Sequential):\n"
                "  def __init__(self): super().__init__(nn.AlphaDropout(0.1))",
                "nn.AlphaDropout has no twin in flax",
            ),
        ],
    )
    def test_refuses_what_is_no_network_of_the_data(self, tmp_path, text, message):
        experiment = own_nets.experiment(tmp_path, text)
        with pytest.raises(UserError, match=message) as caught:
            torch_ref.models.build(experiment, Signature((4, 4, 2), 3))
        assert "\n" not in str(caught.value)
