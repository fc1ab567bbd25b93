"""The judge judged: known differences planted in real runs, and what it catches,
locates and explains of them."""
