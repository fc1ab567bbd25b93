"""Flags of an experiment: definition, parsing, checks and ds_config files."""
