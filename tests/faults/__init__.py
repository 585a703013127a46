"""Faults of the disk, injected below every library: see `run` and `faults.c`."""

import subprocess
from pathlib import Path


def compiled(folder: Path, compiler: str = "cc") -> Path:
    """faults.c as a library to preload."""
    library, source = folder / "faults.so", Path(__file__).parent / "faults.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library
