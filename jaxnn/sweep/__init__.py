"""Many networks at once: one experiment with some of its flags varied."""
