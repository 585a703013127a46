"""The web application of one worker: routes, limits, metrics, and the swap of one version for the next."""

import asyncio
import gc
import hmac
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi import Query as Parameters
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_i2i.errors import DataError, LlmI2iError
from llm_i2i.serving.build import DAMAGED, read_state
from llm_i2i.serving.chain import answer
from llm_i2i.serving.flat import FlatIndex
from llm_i2i.serving.messages import (
    MAX_BODY_BYTES,
    Answer,
    Answers,
    Batch,
    CatalogueItems,
    IndexFacts,
    Problem,
    Query,
    Readiness,
    Search,
    Similar,
    Text,
)

log = logging.getLogger(__name__)

# The environment variable by which the server tells its workers store, key file and seconds.
SETTINGS = "LLM_I2I_SERVE"
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "the body cannot be read",
        401: "no API key, or a wrong one",
        404: "not in the catalogue",
        413: "the body is too large",
        422: "no JSON, or a field is unknown, missing or out of range",
        503: "no index is loaded yet",
    }.items()
}


class Current:
    """The version being served by this worker. A request takes `index` once, so it never mixes two versions."""

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

    def taken(self) -> FlatIndex:
        """The index for one request.

        Raises:
            HTTPException: There is none yet.
        """
        if self.index is None:
            raise HTTPException(503, self.refused or "no index is loaded yet")
        return self.index

    async def follow(self, seconds: float) -> None:
        """Look for another version every so many seconds."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await run_in_threadpool(self.refresh)
            except Exception:  # too many open files, say; the next look may succeed
                log.exception("serve: looking for another version failed")


def create_app(store: Path, *, api_key: str = "", seconds: float = 1.0) -> FastAPI:
    """The application.

    Args:
        store: Folder of the versions, as `build` writes it.
        api_key: What header X-API-Key must hold under /v1; empty = no key is asked for.
        seconds: How often to look for another version.
    """
    registry = CollectorRegistry()
    seen = Histogram(
        "llm_i2i_request_seconds", "Time to answer", ["route", "status"], registry=registry, buckets=BUCKETS
    )
    items = Counter("llm_i2i_items", "Items recommended, by link of the chain", ["source"], registry=registry)
    swaps = Counter("llm_i2i_swaps", "Versions loaded and refused", ["outcome"], registry=registry)
    current = Current(store, swaps)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(current.refresh)
        gc.freeze()  # what was imported lives for ever: collections need not look at it
        following = asyncio.create_task(current.follow(seconds))
        yield
        following.cancel()

    app = FastAPI(
        title="llm-i2i",
        version="1",
        summary="Item-to-item recommendations",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        exception_handlers={
            HTTPException: _told,
            RequestValidationError: _invalid,
            DataError: _wrong,
            Exception: _failed,
        },
    )
    app.state.current = current
    app.add_middleware(Limits, seen=seen)
    app.include_router(_recommendations(current, items, api_key))

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @app.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        index = current.index
        response.status_code = 503 if index is None else 200
        return Readiness(ready=index is not None, version=index.version if index else None, refused=current.refused)

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        found = registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # then each worker's numbers are in files
            found = CollectorRegistry()
            MultiProcessCollector(found)  # type: ignore[no-untyped-call]
        return Response(generate_latest(found), media_type=CONTENT_TYPE_LATEST)

    return app


def from_environment() -> FastAPI:
    """The application as the server of this machine wants it: what every worker calls."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    settings = json.loads(os.environ[SETTINGS])
    key = settings["api_key_file"]
    return create_app(
        Path(settings["store"]),
        api_key=Path(key).read_text(encoding="utf-8").strip() if key else "",
        seconds=settings["seconds"],
    )


def _recommendations(current: Current, items: Counter, api_key: str) -> APIRouter:
    router = APIRouter(
        prefix="/v1", responses=PROBLEMS, dependencies=[Security(_key_check(api_key))] if api_key else []
    )

    def answered(index: FlatIndex, query: Query) -> Answer:
        found = answer(index, query)
        for source, some in groupby(found["items"], key=itemgetter("source")):
            items.labels(source).inc(sum(1 for _ in some))
        return found

    @router.post("/recommend")
    async def recommend(query: Query) -> Answer:
        """Recommend for a user's history."""
        if query.explain:  # takes as long as many others
            return await run_in_threadpool(answered, current.taken(), query)
        return answered(current.taken(), query)

    @router.post("/recommend:batch")
    def recommend_batch(batch: Batch) -> Answers:  # in a thread: it may take as long as a hundred others
        """Recommend for several histories, from one version."""
        index = current.taken()
        return {"answers": [answered(index, query) for query in batch.queries]}

    @router.get("/items")
    def search(options: Annotated[Search, Parameters()]) -> CatalogueItems:
        """Items by words of their titles, most popular first."""
        index = current.taken()
        return {"items": [index.item(place) for place in index.search(options.title, options.limit)]}

    @router.get("/items/{item_id:path}/similar")
    def similar(item_id: Text, options: Annotated[Similar, Parameters()]) -> Answer:
        """Items like this one."""
        index = current.taken()
        if index.place(item_id) is None:
            raise HTTPException(404, "no such item in the catalogue")
        return answered(index, Query(history=[item_id], **options.model_dump()))

    @router.get("/index")
    async def facts() -> IndexFacts:
        """What is being served."""
        index = current.taken()
        return IndexFacts(
            version=index.version,
            n_items=index.n_items,
            columns=list(index.columns),
            explains=index.explains,
            manifest=index.manifest,
        )

    return router


def _key_check(api_key: str) -> Callable[..., Awaitable[None]]:
    async def check_key(
        given: Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))],
    ) -> None:
        # A header's bytes arrive as Latin-1.
        if not hmac.compare_digest((given or "").encode("latin-1"), api_key.encode()):
            raise HTTPException(401, "header X-API-Key is missing or wrong")

    return check_key


class Limits:
    """Refuses too large a body, and measures every answer."""

    def __init__(self, app: ASGIApp, *, seen: Histogram) -> None:
        self._app, self._seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, received = time.perf_counter(), 500, 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, limited, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._seen.labels(route, status).observe(time.perf_counter() - started)


def _problem(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)


async def _told(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _wrong(_: Request, error: DataError) -> Response:
    return _problem(422, str(error))


async def _invalid(_: Request, error: RequestValidationError) -> Response:
    """Where and what, but not the client's input back: it may be long, or no text at all."""
    told = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()[:5])
    return _problem(422, told[:1_000].encode("utf-8", "backslashreplace").decode())  # a place is the client's too


async def _failed(_: Request, __: Exception) -> Response:
    """The traceback is for the log alone."""
    return _problem(500, "internal error")
