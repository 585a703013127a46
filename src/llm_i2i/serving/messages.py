"""What clients ask and what they are told. Every limit on a request stands here and in the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

MAX_BODY_BYTES = 1 << 20
MAX_K = 100

Text = Annotated[str, Field(max_length=512)]
Items = Annotated[list[Text], Field(max_length=1_000)]
Link = Literal["index", "text", "popularity"]  # of the chain, in this order
K = Annotated[int, Field(ge=1, le=MAX_K, description="items wanted")]


class Message(BaseModel):
    """Refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid")


class Query(Message):
    """For whom, and what may be recommended."""

    history: Items = Field(default=[], description="item ids, oldest first; never recommended")
    user_id: Text | None = Field(default=None, description="comes back in the answer")
    k: K = 10
    exclude: Items = Field(default=[], description="items that are not to be recommended")
    filters: dict[Text, Items] = Field(
        default={}, max_length=16, description="columns of the catalogue and the values of which an item must have one"
    )


class Batch(Message):
    """Several queries at once, answered from one version of the index."""

    queries: list[Query] = Field(min_length=1, max_length=100)


class Similar(Message):
    """Options of the items like one item."""

    k: K = 10


class Recommended(TypedDict):
    """An item, and which link of the chain recommends it."""

    item_id: str
    score: Annotated[
        float,
        Field(description="index: similarity; text: cosine; popularity: interactions. Not comparable between sources"),
    ]
    source: Link


class Answer(TypedDict):
    """At most k items, best first."""

    items: list[Recommended]
    reason: Annotated[str | None, Field(description="why there are fewer than k items")]
    user_id: str | None
    version: Annotated[str, Field(description="of the index that answered")]


class Answers(TypedDict):
    """One answer for each query of a batch, in their order."""

    answers: list[Answer]


class IndexFacts(Message):
    """What is being served."""

    version: str
    n_items: int
    columns: list[str] = Field(description="columns that a query can filter on")
    manifest: dict[str, Any] = Field(description="of the index: model, arm, options, git revision, content hashes")


class Readiness(Message):
    """Whether an index is served, and why a newer one is not."""

    ready: bool
    version: str | None
    refused: str = Field(description="why the newest index is not served; empty = it is")


class Problem(Message):
    """Why a request failed."""

    detail: str
