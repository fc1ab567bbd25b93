"""Experiment <-> ds_config.json, both ways: `writing` and `reading` (MISMATCHES D1-D17)."""

from jaxnn.experiment.deepspeed.writing import ds_config as ds_config
from jaxnn.experiment.deepspeed.writing import file_config as file_config
