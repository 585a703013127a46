"""Tools to experiment with: sweeps, tuning, the benchmark, comparisons."""
