"""Benchmarks, run by hand: `python -m tests.benchmarks.speed`, `python -m
tests.benchmarks.cold_start`.

Other work on the machine moves every timing, so competitors take turns and medians are
compared; the ratios mean something, the seconds only beside each other.
"""
