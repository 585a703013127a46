"""Small tables in the project's formats, for the tests of this folder."""

from pathlib import Path

import pandas as pd

from llm_i2i import schema
from llm_i2i.params import FuseParams, SplitParams, TagParams, ValidateParams


def interactions(*rows: tuple[str, str, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return table.astype({"user_id": "str", "item_id": "str", "timestamp": "int64"})


def train_rows(*pairs: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    table["timestamp"] = range(len(table))
    table["position"] = table.groupby("user_id").cumcount()
    return table.astype(schema.INTERACTIONS)


def catalogue(*item_ids: str, bucket: str = "mid") -> pd.DataFrame:
    table = pd.DataFrame({"item_id": item_ids})
    table = table.assign(title=item_ids, text=item_ids, n_train=1, bucket=bucket, is_long_tail=False)
    return table.astype(schema.ITEMS)


def scored_rows(*rows: tuple[str, str, str, float, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*schema.SCORED, "rank"]).assign(logprob=float("nan"))
    return table.astype(schema.JUDGED)


def raw_items(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in columns.items()})


def split_params(**changes: object) -> SplitParams:
    defaults: dict[str, object] = {
        "strategy": "leave_one_out",
        "test_share": 0.1,
        "valid_share": 0.1,
        "min_user_items": 3,
        "max_users": 0,
        "held_out_share": 0.0,
    }
    return SplitParams.model_validate(defaults | changes)


def tag_params(**changes: float) -> TagParams:
    return TagParams(**{"long_tail_share": 0.2, "tail_max_count": 5, "head_share": 0.2} | changes)


def fuse_params(**changes: object) -> FuseParams:
    """Section fuse; switches of the selection rule among the changes become those of selection custom."""
    rule: dict[str, object] = {
        "confidence": "p_yes",
        "mode": "threshold",
        "threshold": 0.5,
        "pairs_per_user": 1.0,
        "max_synthetic_per_user": 3,
        "connected_only": False,
        "item_quota": 0,
        "tail_quota": 0,
    }
    defaults: dict[str, object] = {
        "arms": ["real", "llm_i2i"],
        "selection": "custom",
        "threshold": 0.0,
        "max_synthetic_per_user": 1,
        "index": "train",
        "filter_real": True,
        "real_threshold": 0.05,
        "control_volume": "llm_i2i",
    }
    own = {key: value for key, value in changes.items() if key not in rule}
    custom = rule | {key: value for key, value in changes.items() if key in rule}
    return FuseParams.model_validate(defaults | {"custom": custom} | own)


def validate_params(**changes: float) -> ValidateParams:
    defaults: dict[str, float] = {
        "min_users": 1,
        "min_items": 1,
        "min_interactions": 1,
        "max_text_length": 100,
        "min_text_share": 0.9,
        "max_tail_share": 1.0,
        "rating_min": 0,
        "rating_max": 5,
    }
    return ValidateParams.model_validate(defaults | changes)


def write_raw(folder: Path, *, interactions: str | None = None, items: str | None = None) -> Path:
    """CSV files with sensible defaults; bytes may be given through `folder / name` afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    good_interactions = "user_id,item_id,timestamp\nu1,a,1\nu1,b,2\nu2,a,3\n"
    (folder / "interactions.csv").write_text(interactions or good_interactions, encoding="utf-8")
    (folder / "items.csv").write_text(items or "item_id,title\na,Apple\nb,Pear\n", encoding="utf-8")
    return folder
