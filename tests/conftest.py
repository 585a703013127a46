"""Environment of all tests: offline, quiet, one thread a worker, and steps as plain functions."""

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before anything imports numpy, torch, numba, zenml or great_expectations.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": os.environ.get("NUMBA_NUM_THREADS", "2"),
        "TOKENIZERS_PARALLELISM": "false",
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "true",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "LLM_I2I_ZENML": "off",
        "MPLBACKEND": "Agg",
    }
)

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, the slowest at the top: a worker that got one of them last would end alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, "e2e" not in item.path.parts))


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command line's log handlers go with the test: they write to a stream that is closed then."""
    loggers = [logging.getLogger(name) for name in ("llm_i2i", "steps", "pipelines")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project folder."""
    return ROOT


def key_pair(folder: Path) -> tuple[Path, Path]:
    """A new key pair to sign with: private and public."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / "signing.key", folder / "signing.pub"
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def whole_params() -> dict[str, Any]:
    """Every value that runs by default, in one mapping: a params.yaml that needs no profile."""
    from llm_i2i.params import read_params

    return {**read_params(ROOT / "params.yaml"), "profile": ""}


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts of a module's made-up inputs; `make fuzz` keeps them in the file FUZZ_RESULTS."""
    counts: Counter[str] = Counter()
    yield counts
    if path := os.environ.get("FUZZ_RESULTS"):
        file = Path(path)
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for name, count in counts.items():
            kind, _, outcome = name.partition(": ")
            known.setdefault(kind, {})[outcome] = count
        file.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass
class RedisServer:
    """A real Redis server on a loopback port that was free, its data in a folder."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """On the same port each time; it answers when this returns."""
        from redis import Redis
        from redis.exceptions import ConnectionError as NotThere

        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("no redis-server on this machine (Debian: apt-get install redis-server)")
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.options]
        self.process = subprocess.Popen([program, *options], cwd=self.folder, stdout=subprocess.DEVNULL)
        for _ in range(100):
            with suppress(NotThere):  # BusyLoadingError is one too
                if Redis(port=self.port).ping():
                    return
            time.sleep(0.05)
        raise RuntimeError("redis-server did not answer within 5 s")

    def kill(self) -> None:
        """As a machine that fails."""
        self.process.kill()
        self.process.wait(timeout=10)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server for this test session only: its address."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.kill()


@pytest.fixture
def lasting_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of one's own, which keeps what it has confirmed when it is killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder, ("--appendonly", "yes", "--appendfsync", "always"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server) -> str:
    """The server, emptied."""
    from redis import Redis

    Redis.from_url(redis_server).flushall()
    return redis_server


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open an address in a window of its own; at the end nothing may have failed or come from elsewhere."""
    windows, faults = [], []

    def opened(address: str, **options):
        page = browser.new_page(**options)
        windows.append(page)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
        own = (re.match(r"https?://[^/]+/|file:.*", address)[0], "data:")
        page.on("request", lambda asked: None if asked.url.startswith(own) else faults.append(asked.url))
        page.goto(address)
        return page

    yield opened
    for page in windows:
        page.close()
    assert not [fault for fault in faults if "401" not in fault]  # the browser reports these itself


@pytest.fixture
def barriers():
    """What axe-core finds serious or critical on a page: rule and first element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def found(page) -> list[tuple[str, str]]:
        lines = {
            "exclude": [["svg > g:not(.marks)"]]
        }  # what a plot draws has no role, and takes seconds to look through
        told = axe.Axe().run(page, context=lines, options={"resultTypes": ["violations"]}).response["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in told if v["impact"] in ("serious", "critical")]

    return found
