"""Mutation testing of the judge: plants known differences in real runs.

Counts what the judge catches, locates and explains of them.
"""
