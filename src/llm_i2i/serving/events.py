"""What became of recommendations: events appended durably, and read again.

Each worker appends to a file of its own, so lines of several never mix: one line of JSON for each batch,
`{"received": SECONDS, "events": [...]}`. A batch is acknowledged once its line is on disk. A line without its line feed
was never acknowledged: a start of the service cuts it off, and readers pass over it.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_i2i.errors import ArtifactError
from llm_i2i.files import flush, writing

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 << 20


class EventLog:
    """This process's files of events; safe to share between threads.

    Args:
        folder: Of all event files; it is there.
        max_bytes: A file grows no larger; the next line begins another one.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._file, self._size, self._path = -1, 0, folder

    def append(self, events: list[dict[str, Any]]) -> None:
        """Return when the batch is on disk.

        Raises:
            WriteError: It is not, the disk being full, say; what was written of it is taken back.
        """
        content = {"received": round(time.time(), 3), "events": events}
        line = (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        with self._lock:
            if self._file < 0 or self._size + len(line) > self._max_bytes:
                self._open()
            with writing(self._path):
                try:
                    rest = memoryview(line)
                    while rest:
                        rest = rest[os.write(self._file, rest) :]
                    os.fsync(self._file)
                except OSError:
                    broken, self._file = self._file, -1  # a file that failed is written to no more
                    try:
                        os.ftruncate(broken, self._size)
                    finally:
                        os.close(broken)
                    raise
            self._size += len(line)

    def close(self) -> None:
        """End the file."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._path = self._folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        with writing(self._path):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            try:
                flush(self._folder)  # else the file's name may be lost
            except OSError:
                os.close(file)
                raise
        self._file, self._size = file, 0


def repair(folder: Path) -> None:
    """Cut off last lines that a killed process left unfinished. Nobody may be writing."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
                log.warning("serve: %s: %d bytes of an unfinished line cut off", path, len(content) - whole)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """All events in the order of their files, each with `timestamp`: when it happened, else when it was received.

    Raises:
        ArtifactError: There is no such folder, or a line is no batch of events.
    """
    if not folder.is_dir():
        raise ArtifactError(str(folder), "no such folder", "the events of `llm-i2i serve`: STORE/events")
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    continue
                try:
                    batch = json.loads(line)
                    for event in batch["events"]:
                        yield event | {"timestamp": event.get("timestamp") or int(batch["received"])}
                except (ValueError, KeyError, TypeError) as error:
                    raise ArtifactError(f"{path}, line {number}", f"is no batch of events ({error!r})") from error
