"""The indexes that a worker serves, one for each arm: which arm answers whom, and the swap of versions.

A user's arm is that in whose share of [0, 1) the hash of salt and user id falls, so it stays the same from request to
request and from restart to restart. Whoever gives no user id gets the first arm.
"""

import asyncio
import hashlib
import logging
import os
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from fastapi.concurrency import run_in_threadpool
from prometheus_client import Counter
from starlette.exceptions import HTTPException

from llm_i2i.errors import LlmI2iError
from llm_i2i.serving.flat import FlatIndex
from llm_i2i.serving.state import DAMAGED, read_state

log = logging.getLogger(__name__)

NOBODY, CHOSEN = "none", "chosen"  # in place of a unit: no user id; the client chose the arm


class Split:
    """How users are split between arms.

    Args:
        shares: Of the users, by name of the arm, adding up to 1; an arm of share 0 answers only who asks for it.
        salt: Another salt is another split.
    """

    def __init__(self, shares: Mapping[str, float], salt: str = "") -> None:
        self.shares, self._salt = shares, salt
        self._live = [name for name, share in shares.items() if share > 0]
        self._bounds = list(accumulate(shares[name] for name in self._live))[:-1]

    def first(self) -> str:
        """The arm of those who give no user id."""
        return self._live[0]

    def of(self, user_id: str) -> tuple[str, str]:
        """A user's arm, and the 16 digits that stand for the user in recommendation ids."""
        unit = hashlib.sha256(f"{self._salt}\0{user_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        place = (int(unit, 16) >> 11) / 2**53
        return self._live[bisect_right(self._bounds, place)], unit


class Taken(NamedTuple):
    """What answers a request."""

    arm: str
    served: FlatIndex
    recommendation_id: str


class Current:
    """The version of an arm that this worker serves."""

    def __init__(self, store: Path, swaps: Counter) -> None:
        self.index: FlatIndex | None = None
        self.refused = ""
        self._store, self._swaps = store, swaps
        self._seen: dict[str, Any] = {}

    def refresh(self) -> None:
        """Load the version that counts, if it is another one, beside the old one, check it, then swap."""
        try:
            state = read_state(self._store)
            if state == self._seen:
                return
            version = state.get("version")
            if version is not None and (self.index is None or version != self.index.version):
                self.index = FlatIndex(self._store / "versions" / version)
                self._swaps.labels("loaded").inc()
                log.info("serve: version %s is served", version)
            self.refused = state.get("refused", "")
        except LlmI2iError as error:
            self.refused = str(error)
            self._swaps.labels("refused").inc()
            (self._store / DAMAGED).touch()
            log.error("serve: a version is refused, the one before goes on: %s", error)  # noqa: TRY400
        self._seen = state


class Arms:
    """All arms of this worker.

    Args:
        stores: Folder of the versions, as `build` writes it, by name of the arm.
        split: Who gets which arm.
        swaps: Counts versions loaded and refused.
    """

    def __init__(self, stores: Mapping[str, Path], split: Split, swaps: Counter) -> None:
        self.current = {name: Current(store, swaps) for name, store in stores.items()}
        self.split = split

    def refresh(self) -> None:
        """Look for another version of each."""
        for current in self.current.values():
            current.refresh()

    async def follow(self, seconds: float) -> None:
        """Look for other versions every so many seconds."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await run_in_threadpool(self.refresh)
            except Exception:  # too many open files, say; the next look may succeed
                log.exception("serve: looking for another version failed")

    def is_ready(self) -> bool:
        """Whether every arm that users get has an index."""
        return all(self.current[name].index for name, share in self.split.shares.items() if share > 0)

    def indexes(self) -> "Indexes":
        """The versions of this moment. A request takes them once, so it never mixes two versions."""
        return Indexes({name: current.index for name, current in self.current.items()}, self)


class Indexes:
    """The versions that answer a request."""

    def __init__(self, indexes: Mapping[str, FlatIndex | None], arms: Arms) -> None:
        self._indexes, self._arms = indexes, arms

    def loaded(self) -> dict[str, FlatIndex]:
        """Those that there are, by name of the arm."""
        return {name: index for name, index in self._indexes.items() if index is not None}

    def of(self, arm: str) -> FlatIndex:
        """The index of an arm.

        Raises:
            HTTPException: There is no such arm, or no index of it yet.
        """
        if arm not in self._indexes:
            raise HTTPException(422, f"arm: no arm {arm!r}; expected one of {', '.join(self._indexes)}")
        index = self._indexes[arm]
        if index is None:
            raise HTTPException(503, self._arms.current[arm].refused or "no index is loaded yet")
        return index

    def first(self) -> FlatIndex:
        """The index of those who give no user id."""
        return self.of(self._arms.split.first())

    def take(self, user_id: str | None, arm: str | None) -> Taken:
        """What answers a user, or who chooses an arm; and a new id of the recommendation.

        The id names arm, version and user's unit, so that an event with it tells whom it was about.
        """
        if arm is not None:
            unit = CHOSEN
        elif user_id is None:
            arm, unit = self._arms.split.first(), NOBODY
        else:
            arm, unit = self._arms.split.of(user_id)
        served = self.of(arm)
        return Taken(arm, served, f"{arm}.{served.version}.{unit}.{os.urandom(8).hex()}")
