"""Experiment <-> ds_config.json, both ways: `writing` and `reading` (MISMATCHES
D1-D17)."""
