"""Data: sources, expectations, split, long tail."""
