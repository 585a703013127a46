"""Runs from nothing, each in a project of its own: other tables, a kill and other test items."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.slow


def test_own_tables_in_three_steps(tmp_path: Path) -> None:
    """CSV with positions instead of times, `dvc add data`, `dvc repro`; then Parquet of the same rows."""
    project = Project.copy(tmp_path)
    (project.root / "data.dvc").unlink(missing_ok=True)
    data = project.root / "data"
    data.mkdir()
    rows = [(f"u{u}", f"i{(u * 7 + p * p) % 60}", p) for u in range(80) for p in range(12)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "position"]).drop_duplicates(["user_id", "item_id"])
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(60)], "title": [f"Thing {n}" for n in range(60)]})
    table.to_csv(data / "interactions.csv", index=False)
    items.to_csv(data / "items.csv", index=False)
    project.dvc("add", "data")
    project.repro("tag")
    from_csv = project.sha256("artifacts/split/*.parquet", "artifacts/items/*")
    for path in data.iterdir():
        path.unlink()
    table.to_parquet(data / "interactions.parquet")
    items.to_parquet(data / "items.parquet")
    project.dvc("add", "data")
    project.repro("tag")
    assert project.sha256("artifacts/split/*.parquet", "artifacts/items/*") == from_csv
    (data / "items.parquet").unlink()
    done = project.dvc("repro", "tag", ok=False)
    assert done.returncode != 0
    assert "items.csv / items.parquet: no such file" in done.stdout + done.stderr


def other_held_out_items(project: Project) -> None:
    """Make every user's last two items others, in the raw table.

    Their times become the latest, since ties in time are broken by a hash of the item.
    """
    path = project.root / "data" / "interactions.csv"
    rows = pd.read_csv(path, dtype=str)
    catalogue = sorted(pd.read_csv(project.root / "data" / "items.csv", dtype=str)["item_id"])
    own = rows.groupby("user_id")["item_id"].agg(set)
    places = {pair: i for i, pair in enumerate(zip(rows["user_id"], rows["item_id"], strict=True))}
    for later, part in enumerate(("valid", "test")):
        held_out = pd.read_parquet(project.root / "artifacts" / "split" / f"{part}.parquet")
        for user, item in zip(held_out["user_id"], held_out["item_id"], strict=True):
            place = places[user, item]
            other = next(i for i in catalogue[place % 1000 :] + catalogue if i not in own[user])
            own[user].add(other)
            rows.loc[place, ["item_id", "timestamp"]] = [other, str(2_000_000_000 + later)]
    rows.to_csv(path, index=False)


def test_neither_a_kill_nor_other_test_items_nor_zenml_changes_a_byte(
    request: pytest.FixtureRequest, raw_data: Path, tmp_path: Path
) -> None:
    """A run from nothing without ZenML, killed in mid-training, equals the one in ZenML that nothing disturbed.

    The leak canary: up to the I2I models it knows other valid and test items, and still no byte differs.
    """
    project = Project.copy(tmp_path, data=raw_data)
    project.repro("split")
    other_held_out_items(project)
    project.kill_when(".checkpoints/train_generator/state.pt", "train_generator")
    assert not (project.root / "artifacts" / "generator").exists()
    project.repro("train_i2i")
    speeds = pd.read_csv(project.root / "reports" / "runtime" / "train_generator.csv")
    assert speeds["step"].iloc[0] > 1, "the training has started over"
    parts = [
        f"artifacts/{name}/**/*"
        for name in ("items", "text", "generator", "proposed", "scored", "judged", "fused", "i2i")
    ]
    of_others = project.sha256(*parts, "artifacts/split/*.parquet")

    shutil.copy(raw_data / "interactions.csv", project.root / "data")
    project.repro()
    # Asked for only here: another worker makes it meanwhile.
    finished = request.getfixturevalue("finished")
    of_finished = finished.sha256(*parts, "artifacts/split/*.parquet")
    held_out = {f"artifacts/split/{part}.parquet" for part in ("valid", "test")}
    assert {path for path in of_others | of_finished if of_others.get(path) != of_finished.get(path)} == held_out
    assert project.locked_outs() == finished.locked_outs()
    assert list((project.root / ".checkpoints").glob("*")) == []
