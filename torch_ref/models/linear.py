"""One dense layer: linear and logistic regression, the perceptron.

Twin of jaxnn/models/linear.py.
"""

from torch import Tensor as Array
from torch import nn

from torch_ref.dropout import MaskSource


class Linear(nn.Module):
    """y = x W + b.

    Args:
      num_inputs: width of x.
      num_outputs: width of y.
      use_bias: False for y = x W.
    """

    def __init__(self, num_inputs: int, num_outputs: int, use_bias: bool = True):
        super().__init__()
        self.output = nn.Linear(num_inputs, num_outputs, use_bias)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened."""
        del masks
        return self.output(x.flatten(1))
