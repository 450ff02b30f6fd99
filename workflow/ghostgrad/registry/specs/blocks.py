"""How the repeats of an experiment at initialization are divided into runs."""

BLOCK = 1024
"""Repeats in one run at most. Run b computes the repeats from b * BLOCK on."""
