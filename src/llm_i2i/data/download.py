"""Download a large file over HTTP: in pieces, resumed where it stopped, checked before it takes its name."""

import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llm_i2i.errors import DataError
from llm_i2i.files import file_sha256, take, write_text

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_ATTEMPTS = 5  # tries in a row without any new byte before giving up
_WAIT = 1.0  # seconds before the second try, doubled for each further one


def obtain_file(source: str, *, downloads: Path, sha256: str = "") -> Path:
    """Return a local file, downloaded if `source` is a URL.

    An interrupted download leaves NAME.partial (and the version tag of the server's file beside it); this
    call or a later one asks for the rest of it. A server that cannot do so, or has another version by now,
    sends everything again.

    Args:
        source: Local path, or http(s) URL.
        downloads: Folder that keeps downloaded files; made if absent.
        sha256: Expected SHA-256; empty = not checked, only logged.

    Returns:
        Path of the complete file.

    Raises:
        DataError: No such file, the server refuses, it cannot be reached, or the hash differs.
    """
    if urllib.parse.urlsplit(source).scheme not in ("http", "https"):
        path = Path(source)
        if not path.is_file():
            raise DataError(source, "no such file", "a local path or an http(s) URL")
    else:
        name = Path(urllib.parse.unquote(urllib.parse.urlsplit(source).path)).name
        if not name:
            raise DataError(source, "names no file", "a URL that ends in a file name")
        path = downloads / name
        if not path.is_file():
            downloads.mkdir(parents=True, exist_ok=True)
            _download(source, path)
    found = file_sha256(path)
    if sha256 and found != sha256.lower():
        raise DataError(str(path), f"SHA-256 {found}", sha256, "delete it and run again, or correct the hash")
    logger.info("%s: %s bytes, SHA-256 %s", path, f"{path.stat().st_size:,}", found)
    return path


def _download(url: str, path: Path) -> None:
    """Fill PATH.partial, over as many connections as it takes, then rename it."""
    partial = path.with_name(path.name + ".partial")
    failures = 0
    while True:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            complete, reason = _fetch(url, partial)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DataError(url, f"the server answers {error.code} {error.reason}", "the file") from error
            complete, reason = False, f"the server answers {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            complete, reason = False, str(error) or type(error).__name__
        if complete:
            break
        after = partial.stat().st_size if partial.is_file() else 0
        failures = 0 if after > before else failures + 1
        if failures >= _ATTEMPTS:
            raise DataError(
                url,
                f"interrupted after {after:,} bytes ({reason})",
                fix="check the network and run again: it goes on from there",
            )
        logger.warning("%s: interrupted after %s bytes (%s); going on", url, f"{after:,}", reason)
        time.sleep(_WAIT * 2 ** max(failures - 1, 0))
    take(partial, path)
    _tag_file(partial).unlink(missing_ok=True)


def _fetch(url: str, partial: Path) -> tuple[bool, str]:
    """One connection: append what the server sends; return whether the file is complete, and why not."""
    start = partial.stat().st_size if partial.is_file() else 0
    tag = _tag_file(partial).read_text(encoding="ascii") if _tag_file(partial).is_file() else ""
    headers = {"Accept-Encoding": "identity"}
    if start and tag:
        # Without a tag nothing says that the rest belongs to what is here.
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http(s) only, checked by the caller
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what is here: it is whole, or of another version
            if (error.headers.get("Content-Range") or "").rpartition("/")[2] == str(start):
                return True, ""
            partial.unlink(missing_ok=True)
            return False, "the file on the server has changed"
        raise
    with response:
        resumed = response.status == 206 and _first_byte(response) == start
        if response.status == 206 and not resumed:
            partial.unlink(missing_ok=True)
            return False, "the server sent another part than asked for"
        first = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = first + int(length) if length is not None else None
        etag = response.headers.get("ETag") or ""
        # A weak tag does not promise equal bytes; the date of the last change does nearly.
        tag = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified") or ""
        write_text(tag, _tag_file(partial))
        size = _append(response, partial, first=first, total=total)
    return total is None or size == total, f"the connection ended at {size:,} of {total or 0:,} bytes"


def _first_byte(response: Any) -> int:
    """First byte of a 206 answer: `Content-Range: bytes 5-9/10` says 5."""
    text = (response.headers.get("Content-Range") or "").removeprefix("bytes").strip().partition("-")[0]
    return int(text) if text.isdigit() else -1


def _append(response: Any, partial: Path, *, first: int, total: int | None) -> int:
    """Write the body behind the first `first` bytes; return the file's size."""
    size = first
    with (
        partial.open("r+b" if first else "wb") as file,
        tqdm(desc=partial.stem, total=total, initial=first, unit="B", unit_scale=True, disable=None) as bar,
    ):
        file.seek(first)
        file.truncate()
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            size += len(chunk)
            bar.update(len(chunk))
    return size


def _tag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".tag")
