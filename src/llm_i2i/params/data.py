"""Options of the stages that prepare the data: validate, split, tag, identify."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llm_i2i.params.fields import NonNegativeInt, OpenShare, PositiveInt, Section, Share, dial, knob, source_is_complete


class RuntimeParams(Section):
    """Where the LLM stages run."""

    device: Literal["auto", "cpu", "cuda"] = dial("auto | cpu | cuda")
    precision: Literal["auto", "bf16", "fp32"] = dial("compute dtype; auto = bf16 where the device has it")
    threads: NonNegativeInt = dial("CPU threads; 0 = all cores")
    processes: PositiveInt = knob(
        "processes that share the users of synthesize, score and evaluate_generator; at most one per GPU"
    )
    engine: Literal["local", "spark"] = knob("local | spark: where tables and indexes are computed; the same bytes")


class SparkParams(Section):
    """No stage: the cluster that `runtime.engine: spark` computes on; the rest is Spark's own configuration."""

    master: Annotated[str, Field(min_length=1)] = knob("local[2] | spark://HOST:PORT | yarn | k8s://URL")
    partition_mb: PositiveInt = knob("memory of one task's interactions, MiB: smaller ones make more tasks")


class ValidateParams(Section):
    """Limits that the raw tables must keep."""

    min_users: PositiveInt = knob("fewer users stop the run")
    min_items: PositiveInt = knob("fewer items stop the run")
    min_interactions: PositiveInt = dial("fewer interactions stop the run")
    max_text_length: PositiveInt = knob("characters of an item's title")
    min_text_share: Share = knob("share of items that must have a title")
    max_tail_share: Share = knob("warn above this share of items with at most tag.tail_max_count interactions")
    rating_min: float = knob("lowest rating allowed")
    rating_max: float = knob("highest rating allowed")


class SplitParams(Section):
    """Train, valid and test."""

    strategy: Literal["leave_one_out", "temporal"] = dial(
        "leave_one_out: each user's last two items | temporal: everybody's last weeks"
    )
    test_share: OpenShare = knob("temporal: the last share of all interactions is the test window")
    valid_share: OpenShare = knob("temporal: the share before it is the valid window")
    min_user_items: Annotated[int, Field(ge=3)] = dial("users with fewer interactions stay in train only")
    max_users: NonNegativeInt = dial("size of a seeded sample of users; 0 = all")
    held_out_share: Share = dial("share of users whose last training item no LLM trains on; judge learns from it")

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "SplitParams":
        if self.test_share + self.valid_share >= 1.0:
            raise ValueError("test_share + valid_share must be below 1")
        return self


class TagParams(Section):
    """Popularity groups, on training counts only."""

    long_tail_share: Share = dial("the least frequent share of the trained items (paper: 0.2)")
    tail_max_count: PositiveInt = dial("bucket tail: items with 1 to this many training interactions")
    head_share: Share = knob("bucket head: the most frequent share of the trained items")


class EncodeTextParams(Section):
    """What the items' words mean, as vectors."""

    source: Literal["tfidf", "embedded", "hub", "path"] = dial(
        "tfidf: the catalogue's own words | a pretrained sentence encoder: embedded | hub | path"
    )
    id: str = knob("hub: repository")
    revision: str = knob("hub: commit, tag or branch; pin a commit")
    path: str = knob("path: a local folder of sentence-transformers")
    batch_items: PositiveInt = knob("items encoded at a time")

    _source_is_complete = model_validator(mode="after")(source_is_complete)


class IdentifyParams(Section):
    """How the LLM names an item."""

    identifier: Literal["title", "id", "token", "code"] = dial(
        "title | id (paper) | token: a new token per item | code: semantic codes of new tokens"
    )
    code_levels: Annotated[int, Field(ge=1, le=8)] = knob(
        "code: residual k-means levels, one token each; one more token tells equal codes apart"
    )
    code_size: Annotated[int, Field(ge=2)] = knob("code: centroids per level")
