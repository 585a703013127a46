"""Run the service: one process that follows the source, and workers that answer."""

import json
import logging
import math
import os
import re
import threading
from argparse import Namespace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout

from llm_i2i.errors import LlmI2iError
from llm_i2i.files import remove
from llm_i2i.schema import SOURCE_REAL
from llm_i2i.serving.app import SETTINGS
from llm_i2i.serving.build import Follower, Source, source_of
from llm_i2i.serving.events import repair

log = logging.getLogger(__name__)

NAME = "[A-Za-z0-9_-]{1,40}"  # of an arm; it is a part of recommendation ids
HEADER_BYTES = 16 << 10


def serve(options: Namespace) -> None:
    """Serve until told to stop; SIGTERM lets requests end first.

    Raises:
        LlmI2iError: There is nothing to serve, an option is wrong, or another service uses the store.
    """
    for name, least in (("workers", 1), ("poll", 0.1)):
        if not getattr(options, name) >= least:
            raise LlmI2iError(f"--{name}", f"is {getattr(options, name)}", f"at least {least}")
    sources, shares = _arms(options)
    _check_key(options)
    store: Path = options.store.resolve()
    events = store / "events"
    events.mkdir(parents=True, exist_ok=True)
    stores = {name: store / "arms" / name for name in sources}
    try:
        with FileLock(store / "lock", timeout=0):
            repair(events)
            for name, source in sources.items():
                (stores[name] / "versions").mkdir(parents=True, exist_ok=True)
                follower = Follower(source, stores[name])
                follower.start(needed=shares[name] > 0)
                threading.Thread(target=follower.run, args=(options.poll,), daemon=True).start()
            _run(options, {
                "stores": {name: str(folder) for name, folder in stores.items()}, "shares": shares,
                "events": str(events), "salt": options.salt, "seconds": min(1.0, options.poll),
                "api_key_file": str(options.api_key_file or ""),
            })  # fmt: skip
    except Timeout as error:
        raise LlmI2iError(
            "--store", f"another service uses {store}", "a folder of its own", "choose another"
        ) from error


def _arms(options: Namespace) -> tuple[dict[str, Source], dict[str, float]]:
    """Sources and shares of the users by name of the arm.

    An index of a run's folder is the arm that its name tells; beside it arm real can be looked at, which no user gets.
    """
    if options.index is not None:
        model, _, arm = Path(options.index).name.partition("-")
        sources = {arm if re.fullmatch(NAME, arm) else "index": source_of(options, options.index)}
        real = Path(options.artifacts, "i2i", f"{model}-{SOURCE_REAL}")
        if real.is_dir():
            sources.setdefault(SOURCE_REAL, source_of(options, str(real)))
        return sources, {name: float(place == 0) for place, name in enumerate(sources)}
    named = [arm.partition("=") for arm in options.arm]
    names = [name for name, _, _ in named]
    for name, _, source in named:
        if not re.fullmatch(NAME, name) or not source or names.count(name) > 1:
            found = f"is {name}={source}"
            raise LlmI2iError("--arm", found, "NAME=SOURCE, the name once, of up to 40 letters, digits, _ and -")
    try:
        parts = [float(part) for part in options.split.split(":")] if options.split else [1.0] * len(names)
    except ValueError:
        parts = []
    total = sum(parts)
    if len(parts) != len(names) or not 0 < total < math.inf or min(parts) < 0:
        raise LlmI2iError("--split", f"is {options.split}", f"{len(names)} numbers such as 50:50, one for each arm")
    sources = {name: source_of(options, source) for name, _, source in named}
    return sources, {name: part / total for name, part in zip(names, parts, strict=True)}


def _run(options: Namespace, settings: dict[str, Any]) -> None:
    os.environ[SETTINGS] = json.dumps(settings)
    if options.workers > 1:
        numbers = options.store.resolve() / "metrics"
        remove(numbers)
        numbers.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(numbers)
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
