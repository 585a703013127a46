"""Run the service: one process that follows the source, and workers that answer."""

import json
import logging
import os
import threading
from argparse import Namespace
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from llm_i2i.errors import LlmI2iError
from llm_i2i.files import remove
from llm_i2i.serving.app import SETTINGS
from llm_i2i.serving.build import Follower, source_of

log = logging.getLogger(__name__)

HEADER_BYTES = 16 << 10


def serve(options: Namespace) -> None:
    """Serve until told to stop; SIGTERM lets requests end first.

    Raises:
        LlmI2iError: There is nothing to serve, the key file is unusable or another service uses the store.
    """
    for name, least in (("workers", 1), ("poll", 0.1)):
        if not getattr(options, name) >= least:
            raise LlmI2iError(f"--{name}", f"is {getattr(options, name)}", f"at least {least}")
    _check_key(options)
    store: Path = options.store.resolve()
    (store / "versions").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store / "lock", timeout=0):
            follower = Follower(source_of(options), store)
            follower.start()
            threading.Thread(target=follower.run, args=(options.poll,), daemon=True).start()
            _run(options, store)
    except Timeout as error:
        raise LlmI2iError(
            "--store", f"another service uses {store}", "a folder of its own", "choose another"
        ) from error


def _run(options: Namespace, store: Path) -> None:
    settings = {"store": str(store), "api_key_file": str(options.api_key_file or ""), "seconds": min(1.0, options.poll)}
    os.environ[SETTINGS] = json.dumps(settings)
    if options.workers > 1:
        remove(store / "metrics")
        (store / "metrics").mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(store / "metrics")
    uvicorn.run(
        "llm_i2i.serving.app:from_environment",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        http="h11",  # the other parser knows no limit on headers
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=1_000,
        timeout_graceful_shutdown=30,
        timeout_worker_healthcheck=60,  # a worker that is still importing has not died
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
    )


def _check_key(options: Namespace) -> None:
    if options.api_key_file is None:
        if not _is_loopback(options.host):
            log.warning("serve: %s is open to others and asks for no key; see --api-key-file", options.host)
        return
    try:
        key = options.api_key_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise LlmI2iError("--api-key-file", f"unreadable ({error})", "a file that holds the key") from error
    if not key:
        raise LlmI2iError("--api-key-file", "is empty", "a file that holds the key")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
