"""Throughput and latency of `llm-i2i serve` against an empty handler of the same framework and server, in one run.

    python benchmarks/serve.py --index artifacts/i2i/swing-llm_i2i [--seconds 10] [--rounds 5] [--connections 8]

Both run with one worker on loopback and answer the same requests: a history of 5 random items, k = 10. In each round
first one, then the other is asked as fast as it answers, by wrk; then at half of its own rate, by this process, since
wrk keeps no rate: there waiting for a turn is counted into the latency. Medians over the rounds are shown. The load
shares the machine's cores with the servers; a server's own CPU time per request depends less on that.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from llm_i2i.files import read_json, write_json

COLUMNS = ("requests_per_s", "cpu_ms", "p50_ms_at_half", "p99_ms_at_half")
HEAD_END = b"\r\n\r\n"
EMPTY = """
import uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.post("/v1/recommend")
async def empty():
    return {}
uvicorn.run(app, port=PORT, http="h11", access_log=False)
"""


@contextmanager
def server(command: list[str], port: int) -> Iterator[psutil.Process]:
    """A process that listens at a port, until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(3_000):
            if process.poll() is not None:
                sys.exit(f"ended with status {process.returncode}: {' '.join(command)}")
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def request(history: list[str], k: int) -> bytes:
    """A whole request for recommendations."""
    body = json.dumps({"history": history, "k": k})
    head = ["POST /v1/recommend HTTP/1.1", "Host: a", "Content-Type: application/json"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head of an answer, in lower case, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head, await reader.readexactly(int(length))


async def load(
    port: int, requests: list[bytes], *, connections: int, seconds: float, rate: float | None = None
) -> list[float]:
    """Latency in ms of every answer; with a rate, from the moment at which the request was due."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    took: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        pause = connections / rate if rate else 0.0
        due = loop.time() + pause * number / connections
        while due < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(requests[len(took) % len(requests)])
            head, _ = await answer(reader)
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(head.decode())
            took.append(1_000 * (loop.time() - due))
            due = due + pause if rate else loop.time()
        writer.close()

    await asyncio.gather(*map(client, range(connections)))
    return took


def requests(catalogue: Path) -> list[bytes]:
    ids = pd.read_parquet(catalogue)["item_id"].to_numpy()
    rng = np.random.default_rng(0)
    return [request(rng.choice(ids, 5).tolist(), 10) for _ in range(1_000)]


def wrk(port: int, asked: list[bytes], connections: int, seconds: float) -> float:
    """Requests per second as fast as the server answers."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        bodies = ", ".join(f"[==[{one.split(HEAD_END, 1)[1].decode()}]==]" for one in asked)
        script.write(
            f"local bodies, at = {{{bodies}}}, 0\n"
            "local head = {['Content-Type'] = 'application/json'}\n"
            "request = function()\n"
            "  at = at % #bodies + 1\n"
            "  return wrk.format('POST', '/v1/recommend', head, bodies[at])\n"
            "end\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", script.name, f"http://127.0.0.1:{port}"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        sys.exit(told)
    return float(told.partition("Requests/sec:")[2].split()[0])


def measure(
    process: psutil.Process, port: int, asked: list[bytes], connections: int, seconds: float
) -> tuple[float, float, float, float]:
    """Requests per second, CPU ms per request, then median and 99th percentile in ms at half of that rate."""
    asyncio.run(load(port, asked, connections=connections, seconds=1.0))  # warm up
    before = sum(process.cpu_times()[:2])
    rate = wrk(port, asked, connections, seconds)
    cpu = 1_000 * (sum(process.cpu_times()[:2]) - before) / (rate * seconds)
    calm = asyncio.run(load(port, asked, connections=connections, seconds=seconds, rate=rate / 2))
    median, p99 = np.quantile(calm, [0.5, 0.99])
    return rate, cpu, median, p99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    asked = requests(options.artifacts / "items" / "items.parquet")
    with tempfile.TemporaryDirectory() as store:
        service = [
            sys.executable, "-m", "llm_i2i.cli", "serve", "--index", options.index, "--store", store,
            "--artifacts", str(options.artifacts), "--port", str(options.port),
        ]  # fmt: skip
        empty = [sys.executable, "-c", EMPTY.replace("PORT", str(options.port + 1))]
        with server(service, options.port) as ours, server(empty, options.port + 1) as theirs:
            servers = {"empty": (theirs, options.port + 1), "llm-i2i serve": (ours, options.port)}
            rounds = [
                {name: measure(*at, asked, options.connections, options.seconds) for name, at in servers.items()}
                for _ in range(options.rounds)
            ]
    found = {
        name: dict(zip(COLUMNS, np.median([one[name] for one in rounds], axis=0).round(3).tolist(), strict=True))
        for name in servers
    }
    ratios = sorted(round(one["llm-i2i serve"][0] / one["empty"][0], 3) for one in rounds)
    record("load", found | {"part_of_empty_by_round": ratios, "connections": options.connections, "cpu": cpu()})
    print(json.dumps(found, indent=2))
    print(f"requests/s as a part of the empty handler's, by round: {ratios}; load {os.getloadavg()[0]:.1f}")


def cpu() -> str:
    """The processor's name, and how many cores the servers and the load share."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} cores"


def record(part: str, found: dict) -> None:
    """Keep what a part of the measurements found."""
    path = Path(__file__).parent / "results" / "serve.json"
    known = read_json(path) if path.exists() else {}
    write_json(known | {part: found}, path)


if __name__ == "__main__":
    main()
