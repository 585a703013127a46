"""Writing outputs whole or not at all, and naming their content as DVC does."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def is_first_process() -> bool:
    """Whether this process writes: of several that train together (`accelerate launch`) only the first does."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def staged(final: Path) -> Iterator[Path]:
    """Give a temporary path beside `final` that takes its place when the block ends without an error.

    Args:
        final: File, or folder if the name has no suffix.

    Yields:
        The path to write to: an empty folder, or a file that does not exist yet. In any but the first of several
        processes what is written there is thrown away.
    """
    if not is_first_process():
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / final.name
            if not final.suffix:
                path.mkdir()
            yield path
        return
    partial = final.with_name(final.name + ".partial")
    remove(partial)
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.suffix:
        partial.mkdir()
    try:
        yield partial
        remove(final)
        partial.replace(final)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(content: Any, path: Path) -> None:
    """Write JSON whose bytes depend on the content only: sorted keys, one final line feed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


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
