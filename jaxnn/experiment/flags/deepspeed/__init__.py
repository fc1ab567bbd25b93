"""Experiment <-> ds_config.json: `writing` and `reading` (MISMATCHES D1 to D17)."""
