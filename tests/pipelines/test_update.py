"""`python -m pipelines update`: what it runs, when it trains, and what it refuses before it changes anything."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.files import content_md5, read_json
from pipelines import update as module
from pipelines.update import update
from steps import paths
from tests.conftest import ROOT
from tests.llm_i2i.data.tables import write_raw

TRAINED = (paths.IDENTIFIERS, paths.BASE_MODEL, paths.GENERATOR, paths.DISCRIMINATOR)


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A project that has trained; DVC's commands are noted, not run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    (tmp_path / "params.yaml").write_text("profile: ci\nupdate: {retrain_after: 2}\n")
    write_raw(tmp_path / "data", interactions="user_id,item_id,timestamp\nu,a,1\nv,b,2\nw,a,3\n")
    for name in ("d1", "d2", "d3", "d4"):
        (tmp_path / name).mkdir()
        table = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [9]})
        table.to_csv(tmp_path / name / "interactions.csv", index=False)
    train(1)
    (tmp_path / "data.dvc").touch()
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "dvc", lambda *words: commands.append(words))
    monkeypatch.setattr(module, "dvc_shown", lambda *words: commands.append(words))
    stages = ["validate", "split", "tag", "identify", "base_model", "train_generator", "train_discriminator"]
    stages += ["synthesize", "fuse@real", "report"]
    monkeypatch.setattr(module, "graph", lambda: {stage: set() for stage in stages})
    outs = {"fuse@real": ["artifacts/fused/real.parquet"], "train_generator": [str(path) for path in TRAINED]}
    monkeypatch.setattr(module, "stage_outs", lambda stage: dict.fromkeys(outs.get(stage, ()), ""))
    return commands


def train(number: int) -> None:
    for path in TRAINED:
        path.mkdir(parents=True, exist_ok=True)
        (path / "weights").write_text(f"{path} {number}")
    outs = [{"path": str(path), "md5": content_md5(path)} for path in TRAINED]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"all": {"cmd": "x", "outs": outs}}}))


def test_every_third_update_trains_and_the_others_run_all_but_the_trainings(ran) -> None:
    kept = ("repro", "--single-item", "validate", "split", "tag", "synthesize", "fuse@real", "report")
    for name, expected in (("d1", kept), ("d2", kept), ("d3", ("repro",))):
        ran.clear()
        update(Path(name), [])
        assert ran == [("add", "data"), expected]
    update(None, [])
    assert ran[-1] == ("repro",), "the training had failed"
    train(2)
    update(Path("d4"), ["v"])
    assert ran[-1] == kept
    assert read_json(paths.UPDATES)["updates"] == 1, "a day and removals together are one update"


def test_an_update_after_a_failure_goes_on(ran) -> None:
    update(Path("d1"), [])
    update(None, [])
    assert read_json(paths.UPDATES)["updates"] == 1


def test_a_removal_deletes_what_arms_that_no_longer_run_have_left(ran) -> None:
    files = [paths.FUSED / "real.parquet", paths.FUSED / "old.parquet", paths.kept("fuse", arm="real")]
    files += [paths.kept("train_i2i", model="bpr", arm="old"), paths.GENERATOR / "weights"]
    for path in files[:4]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    update(Path("d1"), [])
    assert all(path.exists() for path in files)
    update(None, ["v"])
    assert [path for path in files if not path.exists()] == [files[1], files[3]]


@pytest.mark.parametrize("broken", TRAINED)
def test_without_trained_models_nothing_changes(ran, broken: Path) -> None:
    before = content_md5(paths.DATA)
    (broken / "weights").write_text("others")
    with pytest.raises(ArtifactError, match=f"{broken}: is not what dvc.lock records"):
        update(Path("d1"), [])
    (broken / "weights").unlink()
    broken.rmdir()
    with pytest.raises(ArtifactError, match=f"{broken}: is not there"):
        update(Path("d1"), [])
    assert content_md5(paths.DATA) == before
    assert ran == []


def test_an_unknown_user_and_a_day_that_is_there_run_nothing(ran) -> None:
    update(Path("d1"), ["v"])
    ran.clear()
    with pytest.raises(DataError, match="no interaction"):
        update(Path("d2"), ["v"])
    with pytest.raises(DataError, match="day d1 is there already"):
        update(Path("d1"), [])
    assert ran == []
