"""After an update every stage writes, byte by byte, what it writes where nothing can be taken over."""

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llm_i2i.data.days import change_tables
from llm_i2i.files import content_md5
from steps import paths
from tests.steps.conftest import PARAMS

TABLES = {"split": {}, "tag": {}, "encode_text": {}}
TAKING_OVER = {"synthesize": {}, "score": {"source": "generator"}, "train_i2i": {"model": "swing", "arm": "real"}}


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained project whose LLMs serve three updates."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    write_params()
    return tmp_path


def write_params(old: str = "", new: str = "") -> None:
    """Write params.yaml, with other values where told."""
    text = PARAMS.replace("PROCESSES", "1") + "update: {retrain_after: 3}\nfuse: {arms: [real]}\n"
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new), encoding="utf-8")


def run(stage: str, matrix: dict[str, str]) -> list[str]:
    done = getattr(importlib.import_module(f"steps.{stage}"), stage)(**matrix)
    return [content_md5(Path(path)) for path in done.outputs]


def results() -> dict[str, list[str]]:
    """Run everything but the trainings; hashes of the outputs of the stages that take results over."""
    for stage, matrix in TABLES.items():
        run(stage, matrix)
    found = {stage: run(stage, matrix) for stage, matrix in list(TAKING_OVER.items())[:2]}
    run("fuse", {"arm": "real"})
    return found | {"train_i2i": run("train_i2i", TAKING_OVER["train_i2i"])}


def anew() -> dict[str, list[str]]:
    """The same with nothing to take over."""
    shutil.move(".kept", "kept")
    try:
        return results()
    finally:
        shutil.rmtree(".kept")
        shutil.move("kept", ".kept")


def facts(stage: str) -> dict:
    (path,) = paths.RUNTIME.glob(f"{stage}*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def asked() -> int:
    """How many prompts the generator was given."""
    return len(pd.read_parquet(paths.SYNTHETIC)[["user_id", "held_out"]].drop_duplicates())


def days(rng: np.random.Generator, n: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, set[str]]]:
    """What each day brings: interactions of some users, new ones among them; new items; users to forget."""
    known, items = [f"u{n:03d}" for n in range(150)], [f"i{n:02d}" for n in range(60)]
    for day in range(n):
        gone = set(rng.choice(known, 3, replace=False))
        known = [user for user in known if user not in gone] + [f"n{day}{number}" for number in range(2)]
        new = [f"i{number:02d}{day}" for number in rng.choice(60, 2, replace=False)]
        items += new
        rows = [(user, item, 100 + 10 * day + step) for user in rng.choice(known, 6, replace=False)
                for step, item in enumerate([*rng.choice(items, 3, replace=False), rng.choice(new)])]  # fmt: skip
        yield (
            pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).drop_duplicates(),
            pd.DataFrame({"item_id": new, "title": [f"New toy {item}" for item in new]}),
            gone,
        )


def test_random_days_give_the_bytes_of_a_run_from_nothing(project: Path) -> None:
    results()
    assert "taken_over" not in facts("synthesize")
    for number, (interactions, items, gone) in enumerate(days(np.random.default_rng(0), 2)):
        folder = project / f"2026-11-2{number}"
        folder.mkdir()
        interactions.to_csv(folder / "interactions.csv", index=False)
        items.to_csv(folder / "items.csv", index=False)
        change_tables(paths.DATA, day=folder, remove=gone)
        updated = results()
        taken, moments = facts("synthesize")["taken_over"], asked()
        assert moments - 20 <= taken < moments, "six users took something, each asked about at most twice"
        assert facts("score")["taken_over"] > moments
        assert updated == anew()
        proposed, scored = (pd.read_parquet(p) for p in (paths.SYNTHETIC, paths.SCORED / "generator.parquet"))
        index = pd.read_parquet(paths.I2I / "swing-real/index.parquet")
        train = pd.read_parquet(paths.TRAIN)
        new = set(items["item_id"]) & set(train["item_id"])
        assert not new & set(proposed["item_id"]) | new & set(scored["item_id"]), "the LLMs have no name for them"
        assert set(train["item_id"]) <= set(pd.read_parquet(paths.ITEMS)["item_id"])
        for table in (proposed, scored, train):
            assert not gone & set(table["user_id"])
        assert set(index["item_id"]) <= set(train["item_id"])


def test_a_new_item_is_in_the_index_at_once(project: Path) -> None:
    """Two users take it together with one they both know; its training rows are no LLM's."""
    folder = project / "2026-11-27"
    folder.mkdir()
    taken = ("new", "i01", "i02", "i03", "i04")
    rows = [(user, item, 200 + step) for user in ("u001", "u002") for step, item in enumerate(taken)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "interactions.csv", index=False)
    pd.DataFrame({"item_id": ["new"], "title": ["New toy"]}).to_csv(folder / "items.csv", index=False)
    results()
    change_tables(paths.DATA, day=folder)
    results()
    index = pd.read_parquet(paths.I2I / "swing-real/index.parquet")
    assert "new" in set(index["item_id"]) & set(index["neighbour_id"])
    assert "new" not in set(pd.read_parquet(paths.SYNTHETIC)["item_id"])


def test_other_settings_take_nothing_over(project: Path) -> None:
    whole = results()
    assert results() == whole
    assert facts("synthesize")["taken_over"] == asked()
    write_params("items_per_user: 5", "items_per_user: 4")
    results()
    assert "taken_over" not in facts("synthesize")
    write_params()
    paths.kept("synthesize").write_bytes(b"torn")
    assert results() == whole
    assert "taken_over" not in facts("synthesize")


def test_a_run_without_updates_keeps_nothing(project: Path) -> None:
    write_params("retrain_after: 3", "retrain_after: 0")
    results()
    assert not paths.KEPT.exists()
