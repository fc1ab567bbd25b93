"""Tests of jaxnn/experiment/flags/deepspeed/optimizer.py against DeepSpeed's engine."""

import json

import pytest
import torch

from jaxnn.experiment.errors import UserError
from tests.jaxnn.experiment.flags.deepspeed.entries import SILENT, block
from tests.jaxnn.experiment.flags.deepspeed.writing_test import hyperparameters
from torch_ref.optimizers import OPTIMIZERS


class TestOptimizer:
    @pytest.mark.parametrize(
        "entries",
        [
            block("Adam"),
            block("adam", weight_decay=0.1),
            block("ADAM", adam_w_mode=False, weight_decay=0.1),
            block("Adam", torch_adam=True),
            block("Adam", torch_adam=True, adam_w_mode=False),
            block(
                "Adam",
                lr=0.01,
                betas=[0.8, 0.99],
                eps=1e-6,
                bias_correction=True,
                amsgrad=False,
            ),
            block("AdamW"),
            block("AdamW", adam_w_mode=False, weight_decay=0.1),
            block("AdamW", torch_adam=True),
            block("AdamW", torch_adam=True, weight_decay=0.2),
            {**SILENT, "optimizer": {"type": "AdamW"}},
            block("SGD"),
            block("SGD", lr=0.1, momentum=0.9),
            block("SGD", momentum=0.9, nesterov=True, weight_decay=0.1),
            block("SGD", momentum=0, dampening=0),
            block("RMSprop"),
            block("RMSprop", alpha=0.9, eps=1e-6, weight_decay=0.1),
            block("Adagrad"),
            block(
                "adagrad",
                lr=0.1,
                initial_accumulator_value=0.1,
                eps=1e-7,
                weight_decay=0.1,
            ),
        ],
        ids=lambda entries: json.dumps(entries["optimizer"]),
    )
    def test_is_what_deepspeed_builds(self, read, build_optimizer, entries):
        experiment, _ = read(entries)
        params = [torch.nn.Parameter(torch.ones(2, 2))]
        ours = OPTIMIZERS[experiment.optimizer](experiment, params)
        built = build_optimizer(entries, params)
        assert type(ours) is type(built)
        assert hyperparameters(ours) == hyperparameters(built)

    @pytest.mark.parametrize(
        ("entries", "note"),
        [
            (SILENT, "optimizer: not in theirs.json; --optimizer and its flags decide"),
            (
                block("AdamW", torch_adam=True),
                "optimizer.params.weight_decay: not in theirs.json; DeepSpeed's "
                "default: --weight_decay=0.01; torch's AdamW decays unless told "
                "otherwise",
            ),
            (
                block("RMSprop"),
                "optimizer.params.lr: not in theirs.json; DeepSpeed's default: "
                "--learning_rate=0.01",
            ),
            (
                block("SGD"),
                "optimizer.params.momentum: not in theirs.json; torch's SGD has none "
                "by default: --optimizer=sgd",
            ),
            (
                {**block("SGD", momentum=0.9), "zero_optimization": {"stage": 1}},
                "zero_allow_untested_optimizer: DeepSpeed "
                "itself refuses this optimizer under ZeRO unless it is true",
            ),
        ],
    )
    def test_notes(self, read, entries, note):
        assert f"note: --ds_config: {note}" in read(entries)[1]

    def test_adam_flag_contradicts_decay_that_is_decoupled(self, read):
        with pytest.raises(
            UserError,
            match=r"optimizer\.type means --optimizer=adamw, "
            r"the flag says --optimizer=adam",
        ):
            read(block("Adam", weight_decay=0.1), "--optimizer=adam")
