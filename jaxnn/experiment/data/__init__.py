"""From a data set's name to its samples: arrays, split, scaled, in batches."""
