"""What a run shows and leaves: log, metrics, scores, plots."""
