"""Faults of the disk, injected below every library: see `run` and `faults.c`."""
