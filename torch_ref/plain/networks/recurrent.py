"""Elman RNN, LSTM and GRU: torch's own layers and a dense head."""

from torch import Tensor, nn

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref.models.rnn import CELLS


class Recurrent(nn.Module):
    """Recurrent layers with dropout after each, and a dense head.

    Args:
      experiment: cell, sizes and rates.
      signature: shapes of the sequences and outputs.
    """

    def __init__(self, experiment: Experiment, signature: Signature):
        super().__init__()
        sizes = experiment.hidden_sizes
        self.per_step = signature.per_step
        self.embedding = nn.Identity()
        if signature.num_tokens:
            self.embedding = nn.Embedding(signature.num_tokens, sizes[0])
        first = sizes[0] if signature.num_tokens else signature.input_shape[-1]
        widths = (first, *sizes)
        rates = experiment.dropout_rates or (0.0,) * len(sizes)
        self.dropouts = [nn.Dropout(r) if r else nn.Identity() for r in rates]
        for number, size in enumerate(sizes):
            layer = CELLS[experiment.model](widths[number], size, batch_first=True)
            self.add_module(f"layer_{number}", layer)
            self.add_module(f"dropout_{number}", self.dropouts[number])
        self.output = nn.Linear(sizes[-1], signature.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, steps] tokens or [batch, steps, features] -> outputs.

        They are [batch, steps, num_outputs], or [batch, num_outputs] after the last
        step.
        """
        x = self.embedding(x)
        for number, dropout in enumerate(self.dropouts):
            x = dropout(getattr(self, f"layer_{number}")(x)[0])
        return self.output(x if self.per_step else x[:, -1])
