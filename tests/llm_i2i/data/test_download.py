"""Downloads from a server on this machine that breaks off, ignores ranges, or changes its file."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm_i2i.data import download
from llm_i2i.data.download import obtain_file
from llm_i2i.errors import DataError

BODY = bytes(range(256)) * 4000  # about 1 MB


class Server(ThreadingHTTPServer):
    """Serves `body`; each entry of `cuts` ends one answer after that many bytes."""

    body = BODY
    etag = '"one"'
    cuts: list[int]
    ranges = True
    status = 200
    asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/reviews.json.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if asked and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.body) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        size = server.cuts.pop(0) if server.cuts else len(server.body)
        self.wfile.write(server.body[start : start + size])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_WAIT", 0)
    server = Server(("127.0.0.1", 0), Handler)
    server.cuts, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    path = obtain_file(server.url, downloads=tmp_path, sha256=hashlib.sha256(BODY).hexdigest())
    assert path.read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert {file.name for file in tmp_path.iterdir()} == {"reviews.json.gz"}


def test_a_later_call_goes_on_too_and_a_finished_file_is_not_asked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts = [400_000, 0, 0]
    monkeypatch.setattr(download, "_ATTEMPTS", 2)
    with pytest.raises(DataError, match="400,000 bytes"):
        obtain_file(server.url, downloads=tmp_path)
    assert not (tmp_path / "reviews.json.gz").exists()
    assert obtain_file(server.url, downloads=tmp_path).read_bytes() == BODY
    assert server.asked[-1] == "bytes=400000-"
    count = len(server.asked)
    obtain_file(server.url, downloads=tmp_path)
    assert len(server.asked) == count


def test_a_changed_file_is_never_glued_together(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts = [300_000, 0]
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    with pytest.raises(DataError):
        obtain_file(server.url, downloads=tmp_path)
    server.body, server.etag = BODY[::-1], '"two"'
    assert obtain_file(server.url, downloads=tmp_path).read_bytes() == BODY[::-1]


@pytest.mark.parametrize(("ranges", "etag"), [(False, '"one"'), (True, "")])
def test_a_server_that_cannot_resume_sends_everything_again(server: Server, tmp_path: Path, ranges, etag) -> None:
    server.cuts, server.ranges, server.etag = [300_000], ranges, etag
    assert obtain_file(server.url, downloads=tmp_path).read_bytes() == BODY


def test_refusals_are_told_at_once(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="404"):
        obtain_file(server.url, downloads=tmp_path)
    assert len(server.asked) == 1


def test_another_hash_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA-256"):
        obtain_file(server.url, downloads=tmp_path, sha256="0" * 64)


def test_local_paths_are_used_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"{}")
    assert obtain_file(str(path), downloads=tmp_path / "none") == path
    with pytest.raises(DataError, match="no such file"):
        obtain_file(str(tmp_path / "b.json"), downloads=tmp_path)
