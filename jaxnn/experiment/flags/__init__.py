"""The command line: what an experiment is, and how it is read."""
