"""An update for real: DVC runs every stage but the trainings, and a user is forgotten."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.project import Project, stages_run

# More than a minute of one core, besides the run that it starts from: `make update-check`.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("UPDATE_CHECK" not in os.environ, reason="make update-check runs it"),
]
TRAININGS = {"identify", "base_model", "train_generator", "train_discriminator"}


def users_of(root: Path) -> dict[str, set[str]]:
    """The users of every table below a folder."""
    tables = {path: pd.read_parquet(path) for path in root.rglob("*.parquet") if path.is_file()}
    return {str(path): set(table["user_id"].astype("str")) for path, table in tables.items() if "user_id" in table}


def test_a_day_with_a_new_item_and_a_user_to_forget(branch: Project, tmp_path: Path) -> None:
    root = branch.root
    branch.set_param("fuse.arms", ["real", "llm_i2i"])
    branch.set_param("train_i2i.models", ["swing"])
    branch.set_param("evaluate_generator.arms", ["llm_only"])
    branch.set_param("update.retrain_after", 5, file="profiles/ci.yaml")
    gone, taker, other = pd.read_parquet(root / "artifacts/split/test.parquet")["user_id"][:3]
    day = tmp_path / "1998-05-01"
    day.mkdir()
    taken = list(enumerate(["new", "1", "2", "3", "4"]))
    rows = [(user, item, 5, 900_000_000 + n) for user in (taker, other) for n, item in taken]
    columns = ["user_id", "item_id", "rating", "timestamp"]
    pd.DataFrame(rows, columns=columns).to_csv(day / "interactions.csv", index=False)
    columns = pd.read_csv(root / "data/items.csv", nrows=1).columns
    new = pd.DataFrame([{"item_id": "new", "title": "A new film"}]).reindex(columns=columns)
    new.to_csv(day / "items.csv", index=False)
    trained = {path: md5 for path, md5 in branch.locked_outs().items() if "generator" in path.split("/")[1:2]}

    done = branch.pipeline("update", str(day), "--remove", gone)
    ran = {name.split("@")[0] for name in stages_run(done.stdout)}
    assert not TRAININGS & ran
    assert {"validate", "split", "tag", "synthesize", "score", "fuse", "train_i2i", "evaluate", "report"} <= ran
    assert trained.items() <= branch.locked_outs().items()
    for folder in ("data", "artifacts"):
        users = users_of(root / folder)
        assert any(taker in found for found in users.values())
        assert not [path for path, found in users.items() if gone in found]
    index = pd.read_parquet(root / "artifacts/i2i/swing-real/index.parquet")
    assert "new" in set(index["item_id"])
    assert "new" not in set(pd.read_parquet(root / "artifacts/proposed/generator.parquet")["item_id"])
    kept = np.load(root / ".kept/synthesize.npz")["keys"]
    assert len(kept) == len(set(kept.tolist())) > 0
    assert json.loads((root / "reports/updates.json").read_text(encoding="utf-8"))["updates"] == 1
    stale = json.loads(branch.dvc("status", "--json").stdout)
    assert set(stale) <= TRAININGS, "a plain `dvc repro` trains, and nothing else is out of date"
