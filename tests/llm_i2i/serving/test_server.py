import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from llm_i2i import cli
from llm_i2i.serving.events import read_events, repair
from tests.conftest import ROOT

RECOMMENDATION = f"real.{'0' * 16}.none.{'0' * 16}"


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


@contextmanager
def running(shop, *more, **environment) -> Iterator[tuple[psutil.Process, int, Path]]:
    """A service: its process, port and log."""
    port, log = free_port(), shop.root / "log"
    command = [sys.executable, "-m", "llm_i2i.cli", *options(shop, "--port", str(port), "--poll", "0.1", *more)]
    with log.open("w") as file:
        server = psutil.Popen(
            command, cwd=shop.root, env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment, stderr=file
        )
    try:
        yield server, port, log
    finally:
        for process in [server, *server.children()] if server.is_running() else []:
            process.kill()
        server.wait()


@pytest.mark.slow
def test_a_service_refuses_damage_and_lets_a_request_end_before_it_stops(shop):
    with running(shop, PYTHONPROFILEIMPORTTIME="1") as (server, port, log):
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
    lines = log.read_text(encoding="utf-8").splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "uvicorn" in imported
    assert not {"torch", "transformers", "sentence_transformers", "zenml", "dvc"} & imported
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.slow
def test_a_worker_is_killed_under_load_and_no_acknowledged_event_is_lost(shop):
    """Bar: kill -9 of a worker; the supervisor brings another, and what was acknowledged is there."""
    acknowledged: list[str] = []
    stop = threading.Event()

    def send(sender: int, port: int) -> None:
        client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        for number in itertools.count():
            names = [f"{sender}-{number}-{n}" for n in range(3)]
            events = [{"type": "click", "recommendation_id": RECOMMENDATION, "item_id": name} for name in names]
            try:
                told = client.post("/v1/events", json={"events": events})
            except httpx2.TransportError:  # the worker died
                told = None
            if told is not None and told.status_code == 200:
                acknowledged.extend(names)
            if stop.is_set():
                return

    with running(shop, "--workers", "2") as (server, port, _):
        connect(port).close()
        until_answered(port)
        senders = [threading.Thread(target=send, args=(n, port)) for n in range(4)]
        for sender in senders:
            sender.start()
        before = workers(server, 2)
        for killed in before:  # one after the other: every worker once
            wait_for_more(acknowledged)
            killed.kill()
            killed.wait()
            assert killed not in workers(server, 2)
        wait_for_more(acknowledged)
        stop.set()
        for sender in senders:
            sender.join()
        assert not {worker.pid for worker in before} & {worker.pid for worker in workers(server, 2)}
        server.terminate()
        server.wait(timeout=60)
    stored = {event["item_id"] for event in read_events(shop.store / "events")}
    assert len(acknowledged) > 180
    assert set(acknowledged) <= stored
    repair(shop.store / "events")
    assert {event["item_id"] for event in read_events(shop.store / "events")} == stored


def workers(server: psutil.Process, n: int) -> list[psutil.Process]:
    """The service's workers, once there are so many: its processes but for multiprocessing's own and builds."""
    found: list[psutil.Process] = []

    def all_there() -> bool:
        found[:] = [child for child in server.children() if "spawn_main" in " ".join(child.cmdline())]
        return len(found) >= n

    wait_for(all_there)
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for_more(acknowledged: list[str]) -> None:
    enough = len(acknowledged) + 60
    wait_for(lambda: len(acknowledged) > enough)


def until_answered(port: int) -> None:
    def answers() -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code == 200
        except httpx2.TransportError:
            return False

    wait_for(answers)


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
