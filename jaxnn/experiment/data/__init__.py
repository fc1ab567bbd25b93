"""Data sets: from a name to arrays that are split, scaled and cut into batches."""
