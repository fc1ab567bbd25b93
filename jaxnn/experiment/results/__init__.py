"""Results of a run: log, metrics, scores, baselines and plots."""
