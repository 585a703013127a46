"""The evaluation protocol as a versioned object: numbers compare only if their protocols are the same."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from llm_i2i.errors import ArtifactError
from llm_i2i.files import json_sha256
from llm_i2i.params import Params, TunedParams

VERSION = 2
QUERY = ("last_m", "decay")


class Protocol(BaseModel):
    """Everything that decides what a metric means.

    `Protocol()` is the field's: leave one out, the whole catalogue, the whole history as the query; its long tail is
    the paper's. A run's own is `from_params`, which leaves nothing to a default.

    Attributes:
        version: Raised when the meaning of a metric or of ranking changes in code.
        split: leave_one_out: the last item of a user is test, the last but one valid. temporal: one moment
            for all, test is what comes after.
        split_ties: How interactions of a user at one time are ordered.
        target: Which of a user's test interactions is ranked; of one alone both settings mean the same.
        repeated_items: What happens to a user's second interaction with an item.
        test_share: temporal: share of interactions in the test window; 0 for leave_one_out.
        valid_share: temporal: share in the valid window; 0 for leave_one_out.
        min_user_items: Users with fewer interactions (temporal: with fewer than two less in train) are not tested.
        max_users: Size of the sample of users, 0 = all.
        seed: Seed of the split, its ties and the tail's ties.
        index: The real interactions that models may see.
        query: Whose items are summed over: the whole history before the target.
        last_m: Query length, 0 = all.
        decay: Weight of a query item = decay^age.
        seen: Items of the history never count as candidates.
        candidates: What the target is ranked against.
        rank_ties: How equal scores are ordered.
        ks: Cut-offs.
        tail_max_count: Bucket tail: 1..this training interactions; cold has none.
        head_share: Bucket head: this most frequent share of the trained items.
        long_tail_share: Long tail: this least frequent share of the trained items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    split_ties: Literal["seeded_hash"] = "seeded_hash"
    target: Literal["first_of_test"] = "first_of_test"
    repeated_items: Literal["earliest_stays"] = "earliest_stays"
    test_share: float = 0.0
    valid_share: float = 0.0
    min_user_items: int = 3
    max_users: int = 0
    seed: int = 42
    index: Literal["train", "train+valid"] = "train"
    query: Literal["train+valid"] = "train+valid"
    last_m: int = 0
    decay: float = 1.0
    seen: Literal["removed"] = "removed"
    candidates: Literal["whole_catalogue"] = "whole_catalogue"
    rank_ties: Literal["float32_then_item_index"] = "float32_then_item_index"
    ks: tuple[int, ...] = (5, 10, 20, 50)
    tail_max_count: int = 5
    head_share: float = 0.2
    long_tail_share: float = 0.2

    @classmethod
    def from_params(cls, params: Params, *, model: str = "") -> "Protocol":
        """Collect the protocol from the parameters of the stages that realise it.

        Args:
            params: All of params.yaml.
            model: Whose query it is: a tuned model brings its own last_m and decay, all others share those of
                section evaluate.
        """
        own = getattr(params.train_i2i, model, None) if model else None
        query = own if isinstance(own, TunedParams) else params.evaluate
        split = params.split
        by_time = split.strategy == "temporal"
        return cls(
            version=VERSION,
            split=split.strategy,
            test_share=split.test_share if by_time else 0.0,
            valid_share=split.valid_share if by_time else 0.0,
            min_user_items=split.min_user_items,
            max_users=split.max_users,
            seed=params.seed,
            index=params.fuse.index,
            last_m=query.last_m,
            decay=query.decay,
            ks=tuple(sorted(set(params.evaluate.ks))),
            tail_max_count=params.tag.tail_max_count,
            head_share=params.tag.head_share,
            long_tail_share=params.tag.long_tail_share,
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON (`json_sha256`)."""
        return json_sha256(self.model_dump(mode="json"))


def require_same_protocol(a: Mapping[str, Any], b: Mapping[str, Any], *, same_query: bool = True) -> None:
    """Check that two metric files may be compared.

    Args:
        a: Metrics as of `evaluate_index` (what a metrics JSON holds).
        b: The same.
        same_query: False lets last_m and decay differ, for comparing a tuned model, whose query is one of its
            options, with another model; everything else must still be the same.

    Raises:
        ArtifactError: A protocol or its hash is missing, a hash does not belong to its protocol, the
            protocols differ (each differing key is named), or the tested users and targets differ.
    """
    for metrics in (a, b):
        name = _name(metrics)
        if "protocol" not in metrics or "protocol_hash" not in metrics:
            raise ArtifactError(name, "has no protocol or protocol_hash", fix="run `dvc repro evaluate`")
        if json_sha256(metrics["protocol"]) != metrics["protocol_hash"]:
            raise ArtifactError(name, "protocol_hash does not belong to its protocol", fix="run `dvc repro evaluate`")
    where = f"{_name(a)} and {_name(b)}"
    one, other = (
        {key: value for key, value in metrics["protocol"].items() if same_query or key not in QUERY}
        for metrics in (a, b)
    )
    if one != other:
        keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
        found = ", ".join(f"{key} {one.get(key)!r} against {other.get(key)!r}" for key in keys)
        raise ArtifactError(where, f"protocols differ: {found}", "one protocol", "evaluate both under one protocol")
    if a.get("test_sha256") != b.get("test_sha256"):
        found = "same protocol, but other test users or targets"
        raise ArtifactError(where, found, "equal test_sha256", "evaluate both on one split of the same data")


def _name(metrics: Mapping[str, Any]) -> str:
    """Return what a message calls these metrics."""
    parts = [str(metrics[key]) for key in ("model", "arm") if key in metrics]
    return "metrics of " + "-".join(parts) if parts else "metrics"
