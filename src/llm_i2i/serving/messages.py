"""What clients ask and what they are told. Every limit on a request stands here and in the OpenAPI document."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

MAX_BODY_BYTES = 1 << 20
MAX_K = 100

Text = Annotated[str, Field(max_length=512)]
Items = Annotated[list[Text], Field(max_length=1_000)]
Link = Literal["index", "text", "popularity"]  # of the chain, in this order
Explained = Literal["users", "real"]  # of an edge: who supports it, and what arm real's index knows of it
K = Annotated[int, Field(ge=1, le=MAX_K, description="items wanted")]
ArmName = Annotated[str, Field(max_length=40, description="of the arm that is to answer; default: the user's")]
UserId = Annotated[Text, Field(description="comes back in the answer, and decides which arm answers")]
RecommendationId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}\.[0-9a-f]{16}\.([0-9a-f]{16}|none|chosen)\.[0-9a-f]{16}$")
]
Explain = Annotated[bool, Field(description="tell of each item what each item of the history adds")]


class Message(BaseModel):
    """Refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid")


class Query(Message):
    """For whom, and what may be recommended.

    Defaults are made by factories: pydantic copies any other for each query, and that takes longer.
    """

    history: Items = Field(default_factory=list, description="item ids, oldest first; never recommended")
    user_id: UserId | None = None
    k: K = 10
    exclude: Items = Field(default_factory=list, description="items that are not to be recommended")
    filters: dict[Text, Items] = Field(
        default_factory=dict,
        max_length=16,
        description="columns of the catalogue and the values of which an item must have one",
    )
    explain: Explain = False
    arm: ArmName | None = None


class Batch(Message):
    """Several queries at once, answered from one version of the index."""

    queries: list[Query] = Field(min_length=1, max_length=100)


class Similar(Message):
    """Options of the items like one item."""

    k: K = 10
    explain: Explain = False
    user_id: UserId | None = None
    arm: ArmName | None = None


class Search(Message):
    """Options of a search in the catalogue."""

    title: Text = Field(default="", description="words, or their beginnings, that the title must have")
    limit: Annotated[int, Field(ge=1, le=MAX_K, description="items wanted")] = 20
    item_id: list[Text] = Field(default=[], max_length=MAX_K, description="these items, in place of a search")


class CatalogueItem(TypedDict):
    """What the catalogue says about an item."""

    item_id: str
    title: str | None
    category: str | None
    bucket: str
    is_long_tail: bool


class CatalogueItems(TypedDict):
    """Items found, most popular first."""

    items: list[CatalogueItem]


class Why(TypedDict):
    """What an item of the history adds to a recommended item: their edge, and what arm real's index knows of it."""

    item_id: str
    title: str | None
    contribution: Annotated[float, Field(description="to the score: weight in the query x score of the edge")]
    score: Annotated[float, Field(description="of the edge in the index; of source text: the cosine")]
    rank: Annotated[int, Field(description="of the recommended item among this item's neighbours, from 1")]
    users: Annotated[int | None, Field(description="who took both items; null = not known here")]
    synthetic_users: Annotated[
        int | None, Field(description="who have both items, at least one by a synthetic pair; null = not known here")
    ]
    real_score: Annotated[float | None, Field(description="of the same edge in arm real's index; null = no such edge")]
    real_rank: Annotated[int | None, Field(description="as real_score")]


class Recommended(TypedDict):
    """An item, and which link of the chain recommends it."""

    item_id: str
    title: str | None
    score: Annotated[
        float,
        Field(description="index: similarity; text: cosine; popularity: decayed count. Compare within one source only"),
    ]
    source: Link
    why: NotRequired[Annotated[list[Why], Field(description="if asked for: by item of the history, most first")]]


class Ranked(TypedDict):
    """At most k items, best first."""

    items: list[Recommended]
    reason: Annotated[str | None, Field(description="why there are fewer than k items")]
    version: Annotated[str, Field(description="of the index that answered")]


class Answer(Ranked):
    """At most k items, best first, and who answered whom."""

    user_id: str | None
    arm: str
    recommendation_id: Annotated[str, Field(description="events about these items carry it")]


class Answers(TypedDict):
    """One answer for each query of a batch, in their order."""

    answers: list[Answer]


class Event(Message):
    """What became of a recommended item."""

    type: Literal["impression", "click", "purchase"]
    recommendation_id: RecommendationId
    item_id: Text
    user_id: Text | None = Field(default=None, description="without it a purchase cannot become training data")
    timestamp: int | None = Field(default=None, ge=0, lt=1 << 53, description="seconds since 1970; default: now")


class Events(Message):
    """Events, stored all or none. What is sent twice counts once."""

    events: list[Event] = Field(min_length=1, max_length=1_000)


class Stored(Message):
    """How many events are on disk."""

    stored: int


class ArmFacts(Message):
    """What an arm serves."""

    arm: str
    share: float = Field(description="of the users")
    version: str
    n_items: int
    columns: list[str] = Field(description="columns that a query can filter on")
    explains: list[Explained] = Field(
        description="what can be told of an edge: who supports it (users), and what arm real's index knows of it (real)"
    )
    manifest: dict[str, Any] = Field(description="of the index: model, arm, options, git revision, content hashes")


class IndexFacts(Message):
    """What is being served, the first arm first."""

    arms: list[ArmFacts]


class ArmState(Message):
    """What an arm serves, and why not its newest index."""

    arm: str
    version: str | None
    refused: str = Field(description="why the newest index is not served; empty = it is")


class Readiness(Message):
    """Whether every arm that users get serves an index."""

    ready: bool
    arms: list[ArmState]


class Problem(Message):
    """Why a request failed."""

    detail: str
