"""Judges a recording, step by step."""
