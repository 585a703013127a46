"""Files: written whole or not at all and to last, read with one clear error, and named by their content.

Nothing else in this project opens a file for writing (tests/contracts). What is written gets another name in the same
folder, is flushed to the disk and then renamed, and so is the folder: whatever fails, even the machine, there is the
old content or the new one. A name of its own for each process lets two of them write one file: the last one wins.
"""

import csv
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from llm_i2i.errors import ArtifactError, LlmI2iError, WriteError

_PARTIAL = re.compile(r"(?:\.\d+\.partial)+")  # what a file is called until it is whole; the user knows it without
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux: linux/fcntl.h, linux/fs.h


def is_first_process() -> bool:
    """Whether this process writes: of several that train together (`accelerate launch`) only the first does.

    Other programs set RANK too: it counts only where WORLD_SIZE says that there are several.
    """
    return not are_several() or os.environ.get("RANK", "0") == "0"


def are_several() -> bool:
    """Whether several processes train together, as `accelerate launch` tells each of them."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


@contextmanager
def writing(path: Path, *, kinds: type[Exception] = OSError) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into one error that names it.

    Args:
        path: What the user knows it by.
        kinds: Errors to turn; `Exception` for a library that has its own for a full disk.

    Raises:
        WriteError: It cannot be written.
    """
    try:
        yield
    except (LlmI2iError, MemoryError):
        raise
    except kinds as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        expected, fix = "a folder with room that may be written to", "what was there before is unchanged: run again"
        known = _PARTIAL.sub("", str(path))
        raise WriteError(known, f"cannot be written ({reason})", expected, fix) from error


@contextmanager
def staged(final: Path, *, is_folder: bool | None = None) -> Iterator[Path]:
    """Give a temporary path beside `final` that takes its place when the block ends without an error.

    Args:
        final: File or folder.
        is_folder: Whether it is a folder; None = if the name has no suffix.

    Yields:
        The path to write to: an empty folder, or a file that does not exist yet. In any but the first of several
        processes what is written there is thrown away.

    Raises:
        WriteError: The folder cannot be written to, or the disk refuses.
    """
    is_folder = not final.suffix if is_folder is None else is_folder
    if not is_first_process():
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / final.name
            if is_folder:
                path.mkdir()
            yield path
        return
    partial = final.with_name(f"{final.name}.{os.getpid()}.partial")
    with writing(final):
        _make_folder(final.parent)
        _sweep(final)
        if is_folder:
            partial.mkdir()
    try:
        yield partial
        take(partial, final)
    finally:
        with suppress(OSError):  # a disk that is failing: the error that is on its way says so
            remove(partial)


def take(partial: Path, final: Path) -> None:
    """Let a file or folder take the place of another in the same folder, flushed to the disk before and after.

    A folder that is replaced changes places with the new one, at once where the system can (Linux, most file systems);
    elsewhere it is removed first.

    Raises:
        WriteError: The disk refuses.
    """
    with writing(final):
        for path in sorted(partial.rglob("*"), reverse=True):
            flush(path)
        flush(partial)
        is_swapped = (final.is_dir() or (partial.is_dir() and final.exists())) and _swap(partial, final)
        if not is_swapped:
            if final.is_dir() or partial.is_dir():
                remove(final)
            partial.replace(final)
        flush(final.parent)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def flush(path: Path) -> None:
    """Wait until the disk has a file, or a folder's list of names."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of them known to the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def _sweep(final: Path) -> None:
    """Delete what killed processes left of `final`."""
    own = re.compile(re.escape(final.name) + r"(?:\.(\d+)\.partial)+")  # twice where a library of ours stages too
    for path in final.parent.iterdir():
        found = own.fullmatch(path.name)
        if found and (int(found[1]) == os.getpid() or not _is_alive(int(found[1]))):
            remove(path)


def _is_alive(pid: int) -> bool:
    """Whether there is such a process; always yes on Windows, where asking would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_json(path: Path, *, fix: str = "run `dvc repro`") -> Any:
    """Content of a JSON file.

    Args:
        path: The file.
        fix: What the user does if it cannot be read.

    Raises:
        ArtifactError: The file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(str(path), "no such file", fix=fix) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(str(path), f"unreadable ({error})", "a JSON file", fix) from error


def write_text(text: str, path: Path) -> None:
    """Write a text in UTF-8, its line feeds as they are.

    Raises:
        WriteError: The disk refuses.
    """
    with staged_text(path) as file:
        file.write(text)


@contextmanager
def staged_text(path: Path) -> Iterator[TextIO]:
    """A text file to fill, in UTF-8; it is there when the block ends without an error, whole.

    Raises:
        WriteError: The disk refuses.
    """
    stage = staged(path, is_folder=False)
    with stage as partial, writing(path), partial.open("w", encoding="utf-8", newline="") as file:
        yield file


def write_json(content: Any, path: Path) -> None:
    """Write JSON whose bytes depend on the content only: sorted keys, one final line feed.

    Raises:
        WriteError: The disk refuses.
    """
    write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", path)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a raw table as CSV, the same bytes with any library version.

    UTF-8, minimal quotes, line feeds at line ends.

    Args:
        path: File to write; its folder is made if absent.
        header: Names of the columns.
        rows: One iterable of cells per row.

    Raises:
        WriteError: The disk refuses.
    """
    with staged_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_array(array: Any, path: Path) -> None:
    """Write a numpy array as .npy, without pickled objects."""
    with staged(path) as partial, writing(path, kinds=Exception), partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_pretrained(out: Path, *parts: Any, **options: Any) -> None:
    """Let a model and its tokenizer write themselves into a folder, as the library does."""
    with writing(out, kinds=Exception):
        out.mkdir(parents=True, exist_ok=True)
        for part in parts:
            part.save_pretrained(str(out), **options)


def copy_file(source: Path, path: Path) -> None:
    """Write a copy of a file."""
    with staged(path) as partial, writing(path):
        shutil.copyfile(source, partial)


def json_sha256(content: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no white space), 64 hexadecimal digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its own SHA-256 as `seal`, so that damage shows."""
    bare = {key: value for key, value in content.items() if key != "seal"}
    return {**bare, "seal": json_sha256(bare)}


def is_sealed(content: Any) -> bool:
    """Whether a mapping has the SHA-256 that it says."""
    return isinstance(content, dict) and content == sealed(content)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_md5(path: Path) -> str:
    """The hash dvc.lock records: md5 of a file, or of a folder's sorted list of files, with suffix `.dir`.

    Args:
        path: Existing file or folder.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    files = (file for file in path.rglob("*") if file.is_file())
    entries = [{"md5": content_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"
