"""Benchmarks of parts, run by hand: `python -m tests.benchmarks.streaming`. How fast
whole experiments train is `python -m parity.speed`.

Other work on the machine moves every timing, so competitors take turns and medians are
compared; the ratios mean something, the seconds only beside each other.
"""
