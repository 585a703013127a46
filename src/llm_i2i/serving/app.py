"""The web application of one worker: routes, limits and metrics."""

import asyncio
import gc
import hmac
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi import Query as Parameters
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_i2i.errors import DataError, WriteError
from llm_i2i.serving.arms import Arms, Indexes, Split
from llm_i2i.serving.chain import answer
from llm_i2i.serving.events import EventLog
from llm_i2i.serving.explorer import page
from llm_i2i.serving.messages import (
    MAX_BODY_BYTES,
    Answer,
    Answers,
    ArmFacts,
    ArmState,
    Batch,
    CatalogueItems,
    Events,
    IndexFacts,
    Problem,
    Query,
    Readiness,
    Search,
    Similar,
    Stored,
    Text,
)

log = logging.getLogger(__name__)

# The environment variable by which the server tells its workers their settings.
SETTINGS = "LLM_I2I_SERVE"
KeyCheck = Callable[[str | None], Awaitable[None]]
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "the body cannot be read",
        401: "no API key, or a wrong one",
        404: "not in the catalogue",
        413: "the body is too large",
        422: "no JSON, or a field is unknown, missing or out of range",
        503: "no index is loaded yet, or events cannot be stored",
    }.items()
}


@dataclass(frozen=True)
class Settings:
    """What a worker is told.

    Attributes:
        stores: Folder of the versions, as `build` writes it, by name of the arm.
        shares: Of the users, by name of the arm.
        events: Folder of the event files.
        salt: Of the split of users.
        api_key: What header X-API-Key must hold under /v1; empty = no key is asked for.
        seconds: How often to look for another version.
    """

    stores: Mapping[str, str]
    shares: Mapping[str, float]
    events: str
    salt: str = ""
    api_key: str = ""
    seconds: float = 1.0


class Metrics:
    """What the worker counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "llm_i2i_request_seconds", "Time to answer", ["route", "status"], registry=self.registry, buckets=BUCKETS
        )
        self.items = self._counter("llm_i2i_items", "Items recommended, by arm and link of the chain", "arm", "source")
        self.events = self._counter("llm_i2i_events", "Events stored", "type")
        self.swaps = self._counter("llm_i2i_swaps", "Versions loaded and refused", "outcome")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def text(self) -> bytes:
        """All numbers of all workers, as Prometheus reads them."""
        found = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # then each worker's numbers are in files
            found = CollectorRegistry()
            MultiProcessCollector(found)  # type: ignore[no-untyped-call]
        return generate_latest(found)


def create_app(settings: Settings) -> FastAPI:
    """The application."""
    metrics = Metrics()
    stores = {name: Path(store) for name, store in settings.stores.items()}
    arms = Arms(stores, Split(settings.shares, settings.salt), metrics.swaps)
    event_log = EventLog(Path(settings.events))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(arms.refresh)
        gc.freeze()  # what was imported lives for ever: collections need not look at it
        following = asyncio.create_task(arms.follow(settings.seconds))
        yield
        following.cancel()
        event_log.close()

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
    app.state.arms = arms
    app.add_middleware(Limits, seen=metrics.seconds)
    check_key = _key_check(settings.api_key) if settings.api_key else None
    keys = [Security(check_key)] if check_key else []
    recommender = Recommender(arms, metrics)
    _add_recommend(app, recommender, check_key)
    for router in (_recommendations(recommender), _catalogue(arms), _events(event_log, metrics)):
        app.include_router(router, responses=PROBLEMS, dependencies=keys)
    app.include_router(_operations(arms, metrics))
    app.include_router(page())
    return app


def from_environment() -> FastAPI:
    """The application as the server of this machine wants it: what every worker calls."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    settings = json.loads(os.environ[SETTINGS])
    key_file = settings.pop("api_key_file")
    key = Path(key_file).read_text(encoding="utf-8").strip() if key_file else ""
    return create_app(Settings(**settings, api_key=key))


class Recommender:
    """Answers from the versions of a moment, and counts."""

    def __init__(self, arms: Arms, metrics: Metrics) -> None:
        self.arms = arms
        self._counted = lru_cache(metrics.items.labels)

    def __call__(self, indexes: Indexes, query: Query) -> Answer:
        """One query's answer."""
        arm, index, recommendation_id = indexes.take(query.user_id, query.arm)
        found = answer(index, query)
        for source, some in groupby(found["items"], key=itemgetter("source")):
            self._counted(arm, source).inc(sum(1 for _ in some))
        return {**found, "user_id": query.user_id, "arm": arm, "recommendation_id": recommendation_id}


def _add_recommend(app: FastAPI, recommender: Recommender, check_key: KeyCheck | None) -> None:
    """The way that most requests take.

    Its route reads and writes bodies itself: the framework's own way takes longer than the answer. For the same reason
    it belongs to no included router.
    """

    async def recommend(query: Query) -> Answer:
        """Recommend for a user's history."""
        if query.explain:  # takes as long as many others
            return await run_in_threadpool(recommender, recommender.arms.indexes(), query)
        return recommender(recommender.arms.indexes(), query)

    async def direct(request: Request) -> Response:
        if check_key is not None:
            await check_key(request.headers.get("x-api-key"))
        told = await recommend(await _read_query(request))
        return Response(orjson.dumps(told), media_type="application/json")

    class Direct(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            return direct

    app.router.add_api_route(
        "/v1/recommend", recommend, methods=["POST"], responses=PROBLEMS, route_class_override=Direct,
        dependencies=[Security(check_key)] if check_key else [],
    )  # fmt: skip


def _recommendations(recommender: Recommender) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/recommend:batch")
    def recommend_batch(batch: Batch) -> Answers:  # in a thread: it may take as long as a hundred others
        """Recommend for several histories, from one version of each arm."""
        indexes = recommender.arms.indexes()
        return {"answers": [recommender(indexes, query) for query in batch.queries]}

    @router.get("/items/{item_id:path}/similar")
    def similar(item_id: Text, options: Annotated[Similar, Parameters()]) -> Answer:
        """Items like this one."""
        indexes = recommender.arms.indexes()
        query = Query(history=[item_id], **options.model_dump())
        if indexes.take(query.user_id, query.arm).served.place(item_id) is None:
            raise HTTPException(404, "no such item in the catalogue")
        return recommender(indexes, query)

    return router


async def _read_query(request: Request) -> Query:
    """The body, refused as the framework refuses one.

    Raises:
        RequestValidationError: It is no query.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        problem = {"loc": ("header", "content-type"), "msg": f"is {kind or 'missing'}; expected application/json"}
        raise RequestValidationError([problem])
    try:
        return Query.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in problems]) from None


def _catalogue(arms: Arms) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/items")
    def search(options: Annotated[Search, Parameters()]) -> CatalogueItems:
        """Items by words of their titles, most popular first, or by their ids."""
        index = arms.indexes().first()
        places = map(index.place, options.item_id) if options.item_id else index.search(options.title, options.limit)
        return {"items": [index.item(place) for place in places if place is not None]}

    @router.get("/index")
    async def facts() -> IndexFacts:
        """What is being served."""
        indexes = arms.indexes()
        indexes.first()
        return IndexFacts(
            arms=[
                ArmFacts(
                    arm=arm,
                    share=arms.split.shares[arm],
                    version=index.version,
                    n_items=index.n_items,
                    columns=list(index.columns),
                    explains=index.explains,
                    manifest=index.manifest,
                )
                for arm, index in indexes.loaded().items()
            ]
        )

    return router


def _events(event_log: EventLog, metrics: Metrics) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/events")
    def events(batch: Events) -> Stored:  # in a thread: it waits for the disk
        """Store what became of recommendations; the answer comes when it is on disk."""
        try:
            event_log.append([event.model_dump(exclude_none=True) for event in batch.events])
        except WriteError as error:
            log.error("serve: events cannot be stored: %s", error)  # noqa: TRY400 - the message says it all
            raise HTTPException(503, "events cannot be stored") from error
        for event in batch.events:
            metrics.events.labels(event.type).inc()
        return Stored(stored=len(batch.events))

    return router


def _operations(arms: Arms, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @router.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        ready = arms.is_ready()
        response.status_code = 200 if ready else 503
        states = [
            ArmState(arm=name, version=now.index.version if now.index else None, refused=now.refused)
            for name, now in arms.current.items()
        ]
        return Readiness(ready=ready, arms=states)

    @router.get("/metrics", response_class=Response)
    def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _key_check(api_key: str) -> KeyCheck:
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
        self._app, self._seen = app, lru_cache(seen.labels)

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
            self._seen(route, status).observe(time.perf_counter() - started)


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
