"""ghostgrad rebuilds the tables, figures and claims of four papers on exploding gradients. Start at registry.py."""

__version__ = "0.1.0"
