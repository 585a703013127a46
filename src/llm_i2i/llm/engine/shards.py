"""Finished parts of long work, kept on disk so that a killed run continues where it stopped."""

import hashlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llm_i2i.files import staged, write_text, writing

log = logging.getLogger(__name__)
_FINGERPRINT = "fingerprint.txt"
Arrays = dict[str, npt.NDArray[Any]]


def fingerprint(parts: Iterable[str | npt.NDArray[Any]]) -> str:
    """SHA-256 of texts and arrays in their order.

    Args:
        parts: Everything that the results depend on.
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(f"{len(raw)}:".encode())
        digest.update(raw)
    return digest.hexdigest()


class Shards:
    """Numbered results of one piece of work.

    A shard is written whole or not at all. Shards of other work (another fingerprint) are deleted.
    """

    def __init__(self, folder: Path, work: str) -> None:
        """Open `folder` for the work whose fingerprint is `work`."""
        self.folder = folder
        mark = folder / _FINGERPRINT
        if folder.exists() and not (mark.is_file() and mark.read_text(encoding="utf-8") == work):
            log.info("shards in %s are of other work and are discarded", folder)
            shutil.rmtree(folder)
        if not folder.exists():
            write_text(work, mark)
        self.found = len(list(folder.glob("*.npz")))
        if self.found:
            log.info("%s: continuing after %d finished shards", folder, self.found)

    def load(self, number: int) -> Arrays | None:
        """A finished shard, or None where there is none that can be read."""
        path = self._path(number)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception:  # noqa: BLE001  # a torn archive raises almost anything
            log.warning("shard %s is unreadable and is made again", path)
            return None

    def save(self, number: int, arrays: Arrays) -> None:
        """Write a finished shard."""
        path = self._path(number)
        with staged(path) as partial, writing(path, kinds=Exception), partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a bool keyword for a name

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"
