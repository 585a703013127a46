"""Load on `llm-i2i serve` while its index changes and is damaged again and again: no request may notice.

    python benchmarks/serve_swaps.py --artifacts artifacts --run swing-llm_i2i [--seconds 600] [--swaps 20] [--rate 800]

The index is copied to a folder of its own, and every so often replaced by one of which a part is left out; three times
it is damaged first. Every answer is compared with that of the version it names, by the lookup that serves offline.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from serve import answer, record, request, server

from llm_i2i.files import read_json, write_json
from llm_i2i.i2i.index import index_sha256
from llm_i2i.i2i.lookup import Lookup
from llm_i2i.neighbours import own_query
from llm_i2i.schema import INDEX, read_table, write_table

K = 10
CONNECTIONS = 8


class Watched:
    """The index that changes, and what its versions answer."""

    def __init__(self, folder: Path, histories: list[list[str]]) -> None:
        self.folder, self.histories = folder, histories
        self.whole = read_table(folder / "index.parquet", INDEX)
        self.manifest = read_json(folder / "manifest.json")
        self.answers: list[list[list[str]]] = []

    def change(self, number: int) -> None:
        """Leave out every so many items, another share each time."""
        kept = pd.util.hash_array(self.whole["item_id"].to_numpy(dtype=object)) % 50 != number
        index = self.whole[kept].reset_index(drop=True)
        write_table(index, self.folder / "index.parquet", INDEX)
        write_json(self.manifest | {"content_sha256": index_sha256(index)}, self.folder / "manifest.json")
        lookup, (last_m, decay) = Lookup(index), own_query(self.manifest)
        self.answers.append(
            [
                [item for item, _ in lookup.recommend(history, top_k=K, last_m=last_m, decay=decay)]
                for history in self.histories
            ]
        )

    def damage(self) -> None:
        """Change one byte of the index."""
        content = bytearray((self.folder / "index.parquet").read_bytes())
        content[len(content) // 2] ^= 1
        (self.folder / "index.parquet").write_bytes(content)


async def ask(port: int, watched: Watched, rate: float, seen: list[tuple[str, int, list[str]]], stop: asyncio.Event):
    """Send requests at a rate over one connection; note version, history and answer of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    rng, due = np.random.default_rng(0), time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += 1 / rate
        number = int(rng.integers(len(watched.histories)))
        writer.write(request(watched.histories[number], K))
        head, content = await answer(reader)
        if not head.startswith(b"http/1.1 200"):
            seen.append(("failed", number, []))
            continue
        told = json.loads(content)
        items = [item["item_id"] for item in told["items"] if item["source"] == "index"]
        seen.append((told["version"], number, items))
    writer.close()


async def until(port: int, condition) -> dict:
    """Poll /readyz until a condition holds of the first arm."""
    for _ in range(1_200):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        state = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["arms"][0]
        writer.close()
        if condition(state):
            return state
        await asyncio.sleep(0.1)
    sys.exit("the service never followed")


async def run(port: int, process: psutil.Process, watched: Watched, options: argparse.Namespace) -> None:
    seen: list[tuple[str, int, list[str]]] = []
    stop = asyncio.Event()
    versions = [(await until(port, lambda state: state["version"]))["version"]]
    asking = asyncio.gather(*(ask(port, watched, options.rate / CONNECTIONS, seen, stop) for _ in range(CONNECTIONS)))
    pause, memory, refused = options.seconds / options.swaps, [], 0
    for number in range(1, options.swaps + 1):
        begun = time.monotonic()
        if number % (options.swaps // 3) == 0:
            watched.damage()
            await until(port, lambda state: state["refused"])
            refused += 1
        await asyncio.to_thread(watched.change, number)
        state = await until(port, lambda state: state["version"] != versions[-1] and not state["refused"])
        versions.append(state["version"])
        memory.append(process.memory_full_info().uss)
        await asyncio.sleep(max(0.0, pause - (time.monotonic() - begun)))
    stop.set()
    await asking
    expected = dict(zip(versions, watched.answers, strict=True))
    failed = sum(version == "failed" for version, _, _ in seen)
    mixed = sum(version != "failed" and expected[version][number] != items for version, number, items in seen)
    found = {
        "seconds": options.seconds, "rate": options.rate, "requests": len(seen),
        "swaps": len(versions) - 1, "damaged_refused": refused,
        "failed": failed, "mixed": mixed,
        "own_mb_after_second": round(memory[1] / 2**20, 1), "own_mb_after_last": round(memory[-1] / 2**20, 1),
    }  # fmt: skip
    record("swaps", found)
    print(json.dumps(found, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--run", default="swing-llm_i2i", help="MODEL-ARM")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument(
        "--rate", type=float, default=800.0, help="requests per second: about half of what it can (serve.py)"
    )
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    ids = pd.read_parquet(options.artifacts / "items" / "items.parquet")["item_id"].to_numpy()
    histories = [np.random.default_rng(n).choice(ids, 5, replace=False).tolist() for n in range(200)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(options.artifacts / "i2i" / options.run, f"{scratch}/index"))
        watched = Watched(folder, histories)
        watched.change(0)
        command = [
            sys.executable, "-m", "llm_i2i.cli", "serve", "--index", str(folder), "--store", f"{scratch}/store",
            "--artifacts", str(options.artifacts), "--port", str(options.port), "--poll", "0.2",
        ]  # fmt: skip
        with server(command, options.port) as process:
            asyncio.run(run(options.port, process, watched, options))


if __name__ == "__main__":
    main()
