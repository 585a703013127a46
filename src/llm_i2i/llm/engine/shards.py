"""Finished parts of long work, on disk: a killed run continues where it stopped, and several processes share the work.

What a shard holds does not depend on which process makes it, nor on what the others do. Between two runs the results of
each prompt can be kept as well: the next run then computes what is new (`python -m pipelines update`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers
from tqdm import tqdm

from llm_i2i.arrays import IntArray
from llm_i2i.files import staged, writing

log = logging.getLogger(__name__)
Arrays = dict[str, npt.NDArray[Any]]
_KEYS, _SIZES = "keys", "sizes"  # arrays of the kept results that are no results


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


def code_sha256() -> str:
    """SHA-256 of all that computes results besides their inputs: this package's LLM code, its libraries and the CPU."""
    folder = Path(__file__).parents[1]
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".yaml"))
    libraries = f"{torch.__version__} {transformers.__version__} {torch.backends.cpu.get_cpu_capability()}"
    return fingerprint([libraries, *(path.read_text(encoding="utf-8") for path in files)])


class Wanted(NamedTuple):
    """What results are asked for, in an order of the caller's.

    Attributes:
        keys: For each, the `fingerprint` of everything its results depend on; read only where results are kept.
        sizes: int64 (n,): rows of each one's results.
        batches: Groups such places in the list, int64 (n,), into those that are computed together. Where results are
            kept, no result may depend on what else is in its batch.
    """

    keys: Callable[[], list[str]]
    sizes: IntArray
    batches: Callable[[IntArray], list[IntArray]]


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
        kept: File with the results of the last run, by key, and afterwards of this one; None = nothing is kept.
    """

    folder: Path
    part: Part | None = None
    helpers: Helpers = _alone
    kept: Path | None = None

    def of_each(self, work: str, wanted: Wanted, make: Callable[[IntArray], Arrays]) -> tuple[Arrays, dict[str, int]]:
        """The results of all that is asked for, taken over from the last run or made.

        Args:
            work: From `fingerprint`.
            wanted: What for.
            make: Computes a batch: arrays whose rows are its members', one after the other.

        Returns:
            Arrays whose rows are all members', in the order asked; as runtime facts what was there before.

        Raises:
            PartDone: `part` is finished.
        """
        keys = wanted.keys() if self.kept else []
        before = _load(self.kept) if self.kept else None
        known = {key: place for place, key in enumerate(before[_KEYS].tolist())} if before else {}
        places = np.array([known.get(key.encode(), -1) for key in keys] or [-1] * len(wanted.sizes), dtype=np.int64)
        missing = np.flatnonzero(places < 0)
        batches = wanted.batches(missing)
        work = fingerprint([work, missing]) if self.kept else work  # the batches depend on what is missing
        made, found = self.results(work, len(batches), lambda number: make(batches[number]))
        facts = {"resumed_shards": found}
        parts = [(_rows(wanted.sizes, batch), shard) for batch, shard in zip(batches, made, strict=True)]
        if before and (taken := np.flatnonzero(places >= 0)).size:
            facts["taken_over"] = len(taken)
            log.info("%s: %d of %d results are the last run's", self.kept, len(taken), len(keys))
            rows, names = _rows(before[_SIZES], places[taken]), before.keys() - {_KEYS, _SIZES}
            parts.append((_rows(wanted.sizes, taken), {name: before[name][rows] for name in names}))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        results = {name: np.concatenate([shard[name] for _, shard in parts])[order] for name in parts[0][1]}
        if self.kept:
            _save({_KEYS: np.array(keys, dtype="S64"), _SIZES: wanted.sizes, **results}, self.kept)
        return results, facts

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


def alike(
    places: IntArray, shapes: Sequence[tuple[int, ...]], size: Callable[[tuple[int, ...]], int]
) -> list[IntArray]:
    """Group places into batches of one shape each, at most `size` of it.

    Filled up to that size, a batch has tensors of the same shape whatever is in it. Each row of a matrix product is
    then computed alike: not one bit of a result depends on what it shares its batch with.

    Args:
        places: int64 (n,).
        shapes: What decides the shape of each place's tensors, such as its number of tokens.
        size: Members of a batch of a shape.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place in places.tolist():
        groups.setdefault(shapes[place], []).append(place)
    return [
        np.array(groups[shape][start : start + size(shape)])
        for shape in sorted(groups, reverse=True)
        for start in range(0, len(groups[shape]), size(shape))
    ]


def _rows(sizes: IntArray, members: IntArray) -> IntArray:
    """Rows of these members, int64, where the members' rows lie one after the other."""
    ends, lengths = np.cumsum(sizes), sizes[members]
    first = ends[members] - lengths
    return np.asarray(np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum()))


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
