import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from llm_i2i import cli
from tests.conftest import ROOT


def options(shop, *more) -> list[str]:
    return [
        "serve", "--index", str(shop.folder), "--artifacts", str(shop.root), "--store", str(shop.store), *more,
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def connect(port: int, seconds: float = 60) -> socket.socket:
    until = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def received(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


@pytest.mark.slow
def test_a_service_refuses_damage_and_lets_a_request_end_before_it_stops(shop):
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONPROFILEIMPORTTIME": "1"}
    command = [sys.executable, "-m", "llm_i2i.cli", *options(shop, "--port", str(port), "--poll", "0.1")]
    log = shop.root / "log"
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=shop.root, env=environment, stderr=file)
    try:
        with connect(port) as connection:
            body = json.dumps({"k": 3}).encode()
            head = f"POST /v1/recommend HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            head += "Content-Type: application/json\r\n\r\n"
            connection.sendall(head.encode() + body[:2])
            (shop.folder / "index.parquet").write_bytes(b"no table")
            address = f"http://127.0.0.1:{port}/readyz"
            until = time.monotonic() + 60
            while not (told := httpx2.get(address).json())["arms"][0]["refused"]:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert told["ready"]
            assert told["arms"][0]["refused"].startswith(f"build: {shop.folder}/index.parquet: unreadable")
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[2:])
            answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["items"]) == 3
        assert server.wait(timeout=20) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()
    lines = log.read_text(encoding="utf-8").splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "uvicorn" in imported
    assert not {"torch", "transformers", "sentence_transformers", "zenml", "dvc"} & imported
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--api-key-file", "nowhere"], "--api-key-file: unreadable"),
        (["--api-key-file", os.devnull], "--api-key-file: is empty"),
        (["--workers", "0"], "--workers: is 0"),
        (["--half-life", "0"], "--half-life: is 0"),
    ],
)
def test_bad_options_are_one_line(shop, capsys, more, told):
    assert cli.main(options(shop, *more)) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_a_store_serves_one_service(shop, capsys):
    from filelock import FileLock

    shop.store.mkdir()
    with FileLock(shop.store / "lock"):
        assert cli.main(options(shop)) == 2
    assert "another service uses" in capsys.readouterr().err
