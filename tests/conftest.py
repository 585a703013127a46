"""Environment of all tests: offline, quiet, one thread a worker, and steps as plain functions."""

import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis server on a free loopback port, for this test session only: its address."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine (Debian: apt-get install redis-server)")
    from redis import Redis
    from redis.exceptions import ConnectionError as NotThere

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([program, *options], cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                Redis(port=port).ping()
                break
            except NotThere:
                time.sleep(0.05)
        else:
            raise RuntimeError("redis-server did not answer within 5 s")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def redis_url(redis_server) -> str:
    """The server, emptied."""
    from redis import Redis

    Redis.from_url(redis_server).flushall()
    return redis_server
