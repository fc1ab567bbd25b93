"""A DeepSpeed training script of one's own; two lines were added to record it."""

import argparse

import deepspeed
import torch
from torch import nn

from parity import own  # added

flags = argparse.ArgumentParser()
flags.add_argument("--trace", default="runs/own")
flags.add_argument("--stage", type=int, default=1)
flags.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
flags.add_argument("--accumulation", type=int, default=1)
flags.add_argument("--loss_scale_window", type=int, default=1000)  # of fp16
flags.add_argument("--local_rank")
FLAGS = flags.parse_args()


class Autoencoder(nn.Module):
    """x -> W^T h + c of h = tanh(W x), refined in every other step; W is tied."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(12, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.refine = nn.Linear(8, 8)
        self.shift = nn.Parameter(torch.zeros(12))

    def forward(self, x, refined):
        """[batch, 12] -> the same."""
        h = torch.tanh(self.encoder(x))
        if refined:
            h = h + torch.tanh(self.refine(self.norm(h)))
        return nn.functional.linear(h, self.encoder.weight.T) + self.shift


torch.manual_seed(0)
model = Autoencoder()
matrices, vectors = ([p for p in model.parameters() if p.ndim == n] for n in (2, 1))
groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors}]
scaler = {"loss_scale_window": FLAGS.loss_scale_window}
config = {
    "train_micro_batch_size_per_gpu": 8,
    "gradient_accumulation_steps": FLAGS.accumulation,
    "optimizer": {"type": "AdamW", "params": {"lr": 0.01}},
    "zero_optimization": {"stage": FLAGS.stage},
    "gradient_clipping": 1.0,
    FLAGS.precision: {"enabled": True} | (scaler if FLAGS.precision == "fp16" else {}),
}
engine, *_ = deepspeed.initialize(model=model, model_parameters=groups, config=config)
dtype = next(model.parameters()).dtype
with own.record(engine, FLAGS.trace, steps=8):  # added
    for _ in range(8 * FLAGS.accumulation):
        x = torch.randn(8, 12, dtype=dtype)
        refined = engine.global_steps % 2 == 0
        loss = nn.functional.mse_loss(engine(x, refined).float(), x.float())
        engine.backward(loss)
        engine.step()
