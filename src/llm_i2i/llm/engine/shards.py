"""Finished parts of long work, on disk: a killed run continues where it stopped, and several processes share the work.

What a shard holds does not depend on which process makes it, nor on what the others do.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from llm_i2i.files import staged, writing

log = logging.getLogger(__name__)
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


class Part(NamedTuple):
    """The share of one of `of` processes: every `of`-th shard, from the `number`-th on, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        """As the command line takes it, such as `3/16`."""
        return f"{self.number}/{self.of}"


class PartDone(Exception):  # noqa: N818 - no error: the stage ends here in a process that makes a part only
    """The shards of this process's part are finished; the process that merges goes on."""


# Starts other processes for the other parts, and ends them. Gives the part that is left for this process, and a
# function to call now and then: it raises if one of them has died.
Helpers = Callable[[], AbstractContextManager[tuple[Part, Callable[[], None]]]]


def _alone() -> AbstractContextManager[tuple[Part, Callable[[], None]]]:
    return nullcontext((Part(1, 1), lambda: None))


@dataclass(frozen=True)
class Shards:
    """Where the numbered results of one piece of work lie, and who makes them.

    A shard is written whole or not at all. Those of other work lie in other folders: processes that start at once, or
    on machines of other kinds, do not take them for their own and do not delete them. The caller deletes `folder`.

    Attributes:
        folder: One folder of shards per work, named by its fingerprint.
        part: Make these only, then raise `PartDone`; None = make all and give the results.
        helpers: Other processes for work that is not yet done.
    """

    folder: Path
    part: Part | None = None
    helpers: Helpers = _alone

    def results(self, work: str, count: int, make: Callable[[int], Arrays]) -> tuple[list[Arrays], int]:
        """Every shard's arrays, in order; and how many were there before.

        Args:
            work: From `fingerprint`.
            count: Shards in all.
            make: Computes one; called only for those that are missing or cannot be read.

        Raises:
            PartDone: `part` is finished.
        """
        own = range(self.part.number - 1, count, self.part.of) if self.part else range(count)
        made = {number: arrays for number in own if (arrays := _load(self._path(work, number))) is not None}
        found = len(made)
        if found:
            log.info("%s: continuing after %d of %d shards", self.folder, found, len(own))

        def ensure(number: int) -> None:
            """Make a shard that nobody has made by now."""
            if number not in made:
                path = self._path(work, number)
                arrays = _load(path)
                if arrays is None:
                    arrays = make(number)
                    _save(arrays, path)
                made[number] = arrays

        if self.part:
            for number in _progress(own):
                ensure(number)
            raise PartDone
        if found < count:
            with self.helpers() as (mine, check):
                # After its own part this process takes from the end of the others', which are busy at the beginning:
                # nobody waits for one that started late, and at most the shard that each is at is made twice.
                order = [*range(mine.number - 1, count, mine.of), *reversed(range(count))]
                for number in _progress(dict.fromkeys(order)):
                    check()
                    ensure(number)
        return [made[number] for number in range(count)], found

    def _path(self, work: str, number: int) -> Path:
        """A thousand shards a folder: whoever writes a file looks through its folder."""
        return self.folder / work[:16] / f"{number // 1000:04d}" / f"{number % 1000:03d}.npz"


def _progress(numbers: Iterable[int]) -> Iterable[int]:
    return tqdm(numbers, unit="shard", disable=None)


def _load(path: Path) -> Arrays | None:
    """A finished shard, or None where there is none that can be read."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception:  # noqa: BLE001  # a torn archive raises almost anything
        log.warning("shard %s is unreadable and is made again", path)
        return None


def _save(arrays: Arrays, path: Path) -> None:
    with staged(path) as partial, writing(path, kinds=Exception), partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a bool keyword for a name
