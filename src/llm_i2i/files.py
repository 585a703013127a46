"""Files: written whole or not at all, read with one clear error, and named by their content."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_i2i.errors import ArtifactError


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


def write_json(content: Any, path: Path) -> None:
    """Write JSON whose bytes depend on the content only: sorted keys, one final line feed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a raw table as CSV, the same bytes with any library version.

    UTF-8, minimal quotes, line feeds at line ends; temporary file, then rename.

    Args:
        path: File to write; its folder is made if absent.
        header: Names of the columns.
        rows: One iterable of cells per row.
    """
    with staged(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def json_sha256(content: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no white space), 64 hexadecimal digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


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
