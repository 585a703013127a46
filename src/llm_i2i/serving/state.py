"""Which version of an arm counts: STORE/state.json, written by the follower and read by the workers.

It also tells why a newer version was refused, and is replaced whole.
"""

from pathlib import Path
from typing import Any

from llm_i2i.files import read_json, write_json

DAMAGED = "damaged"  # in the store: a worker could not load the version that counts


def read_state(store: Path) -> dict[str, Any]:
    """What counts: version, source and its stamp, refused; empty before the first version."""
    path = store / "state.json"
    state: dict[str, Any] = read_json(path) if path.exists() else {}
    return state


def write_state(store: Path, **changes: str) -> None:
    """Change what counts, at once for every reader."""
    state = read_state(store) | changes
    write_json(state, store / "state.json")
