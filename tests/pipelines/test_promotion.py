"""The whole promotion story in a git repository of its own, with real DVC, GTO and artifacts, without network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import yaml

from llm_i2i import registry
from llm_i2i.dvc import Revision
from llm_i2i.errors import ArtifactError, LlmI2iError
from llm_i2i.evaluation.evaluate import evaluate_index
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.files import file_sha256, read_json, write_json
from llm_i2i.i2i import index_sha256, item_knn, to_index, user_items_from_frame
from llm_i2i.monitoring.run import describe
from llm_i2i.params import ModelCardParams, Params, load_params
from llm_i2i.schema import FUSED, INDEX, INTERACTIONS, ITEMS, PER_USER, write_frame, write_table
from llm_i2i.serving.build import Follower, Source
from llm_i2i.serving.build import build as build_version
from llm_i2i.serving.flat import FlatIndex
from llm_i2i.serving.state import read_state
from pipelines.__main__ import main
from pipelines.release import gate, model_cards, promote
from pipelines.release.replicate import identity_of
from pipelines.verify import _promoted
from tests.conftest import ROOT, key_pair, whole_params
from tests.contracts.blocks import BLOCKS, OF_A_PROMOTION, script

RUN = "item_knn-real"
OUTS = ["artifacts/validation", "artifacts/split", "artifacts/items", f"artifacts/i2i/{RUN}"]
N_USERS, N_ITEMS, TASTES = 640, 60, 6


def shell(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def dvc(*arguments: str) -> str:
    return shell(sys.executable, "-m", "dvc", *arguments)


def tables() -> dict[str, pd.DataFrame]:
    """Users who stay within one of six tastes of ten items each; the last two items are valid and test."""
    rng = np.random.default_rng(0)
    size = N_ITEMS // TASTES
    rows = [
        (f"u{user:03d}", f"i{user % TASTES * size + item:02d}", place, place)
        for user in range(N_USERS)
        for place, item in enumerate(rng.permutation(size)[:7].tolist())
    ]
    taken = pd.DataFrame(rows, columns=list(INTERACTIONS)).astype(INTERACTIONS)
    parts = {"train": taken["position"] < 5, "valid": taken["position"] == 5, "test": taken["position"] == 6}
    return {name: taken[chosen].reset_index(drop=True) for name, chosen in parts.items()}


def catalogue(train: pd.DataFrame) -> pd.DataFrame:
    ids = [f"i{n:02d}" for n in range(N_ITEMS)]
    counts = train["item_id"].value_counts().reindex(ids, fill_value=0)
    bucket = ["tail" if n % 5 == 0 else "mid" for n in range(N_ITEMS)]
    table = {"item_id": ids, "title": ids, "text": ids, "n_train": counts.to_numpy(), "bucket": bucket}
    return pd.DataFrame({**table, "is_long_tail": False}).astype(ITEMS)


def build(noise: float, label: str) -> None:
    """Write what the stages write, for an index trained on data of which a share is shuffled, and commit it."""
    params = load_params()
    split = tables()
    items = catalogue(split["train"])
    for name, table in split.items():
        write_table(table, Path(f"artifacts/split/{name}.parquet"), INTERACTIONS)
    write_table(items, Path("artifacts/items/items.parquet"), ITEMS)
    write_json({"success": True}, Path("artifacts/validation/validation.json"))
    for seed in params.gate.seeds:
        fused = shuffled(split["train"], noise, seed)
        index = to_index(item_knn(user_items_from_frame(fused, items), top_k=20), items)
        protocol = Protocol.from_params(Params.model_validate({**params.model_dump(by_alias=True), "seed": seed}))
        metrics, per_user = evaluate_index(index=index, items=items, protocol=protocol, **split)
        if seed == params.seed:
            write_run(index, metrics, per_user, fused)
        else:
            write_table(per_user, Path(f"reports/seeds/{RUN}/{seed}.parquet"), PER_USER)
            record = {"seed": seed, "identity": identity_of(seed), "metrics": metrics}
            write_json(record, Path(f"reports/seeds/{RUN}/{seed}.json"))
    write_json(describe(Path(), params, data_name="tastes"), Path("reports/monitor.json"))
    dvc("commit", "--force", "--quiet")
    assert main(["replicate"]) == 0  # this workspace's own seed; the others are there
    commit(label)


def write_run(index: pd.DataFrame, metrics: dict, per_user: pd.DataFrame, fused: pd.DataFrame) -> None:
    folder = Path(f"artifacts/i2i/{RUN}")
    write_table(index, folder / "index.parquet", INDEX)
    write_table(fused.assign(source="real", weight=1.0), Path("fused.parquet"), FUSED)
    manifest = {
        "model": "item_knn", "arm": "real", "params": {}, "rows": len(index),
        "items_with_neighbours": int(index["item_id"].nunique()), "content_sha256": index_sha256(index),
        "sha256": file_sha256(folder / "index.parquet"), "fused_sha256": file_sha256(Path("fused.parquet")),
    }  # fmt: skip
    Path("fused.parquet").unlink()
    write_json(manifest, folder / "manifest.json")
    write_table(per_user, Path(f"artifacts/evaluation/{RUN}.parquet"), PER_USER)
    write_json({**metrics, "model": "item_knn", "arm": "real"}, Path(f"reports/metrics/{RUN}.json"))


def shuffled(train: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    items = train["item_id"].to_numpy(dtype=object).copy()
    chosen = rng.random(len(items)) < noise
    items[chosen] = rng.permutation(items[chosen])
    return train.assign(item_id=pd.Series(items, dtype="str")).drop_duplicates(["user_id", "item_id"])


def commit(message: str) -> str:
    shell("git", "add", "-A")
    shell("git", "commit", "-q", "-m", message)
    return registry.head()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_project()
    return tmp_path


def make_project() -> None:
    """An empty project here: git, DVC, params.yaml and a dvc.yaml of the outputs that the gate looks at."""
    shell("git", "init", "-q", "-b", "main", ".")
    shell("git", "config", "user.email", "someone@example.org")
    shell("git", "config", "user.name", "Someone")
    shell("git", "config", "commit.gpgsign", "false")
    dvc("init", "--quiet")
    params = whole_params()
    params["gate"] |= {"model": "item_knn", "arm": "real", "resamples": 300, "max_tail_loss": 0.05}
    params["gate"] |= {"max_coverage_loss": 0.3, "max_gini_rise": 0.3}
    params["report"]["bootstrap_resamples"] = 100
    params["model_card"] = {"data": "tastes", "data_licence": "ours"}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    metrics = [{path: {"cache": False}} for path in (f"reports/metrics/{RUN}.json", "reports/monitor.json")]
    outs = [*OUTS, f"artifacts/evaluation/{RUN}.parquet"]
    stages = {"evaluate": {"cmd": "true", "params": ["seed"], "outs": outs, "metrics": metrics}}
    artifacts = {
        "i2i-index": {"path": "artifacts/i2i/${gate.model}-${gate.arm}", "type": "index"},
        "generator": {"path": "artifacts/generator", "type": "model", "desc": "Writes interactions"},
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages, "artifacts": artifacts}), encoding="utf-8")
    split = tables()
    write_frame(pd.concat(split.values()), Path("data/interactions.csv"))
    write_frame(catalogue(split["train"]), Path("data/items.csv"))
    ignored = [
        "*.partial",
        "/artifacts",
        "/data",
        "/.serving/",
        "/reports/gate.json",
        "/reports/gate.md",
        "/reports/model_cards/",
    ]
    Path(".gitignore").write_text("\n".join(ignored) + "\n", encoding="utf-8")


def verdict() -> dict:
    return json.loads(Path("reports/gate.json").read_text(encoding="utf-8"))


def tags() -> list[str]:
    return sorted(shell("git", "tag").split())


def served(follower: Follower) -> tuple[str, str]:
    """What `llm-i2i serve --index prod` serves: the version's name and its commit."""
    follower.update()
    state = read_state(Path(".serving"))
    assert state["refused"] == ""
    manifest = FlatIndex(Path(".serving/versions") / state["version"]).manifest
    assert manifest["metrics"]["model"] == "item_knn"
    return manifest["registered"], manifest["git_revision"]


def signed_story() -> tuple[list[str], list[str]]:
    """Sign what was promoted, check it, then alter what is served beside the index; the tags, by kind."""
    private, public = key_pair(Path(".."))
    source = Source("prod", "", "artifacts", public_key=str(public))
    with pytest.raises(ArtifactError, match="is not signed"):
        source.read()
    assert main(["promote", "--signing-key", str(private)]) == 0
    assert source.read().manifest["registered"] == "v0.0.1"
    known = [*_promoted(None)]  # this project has no generator
    assert [*_promoted(public)] == known
    (other,) = set(_promoted(key_pair(Path("..", "other"))[1])) - set(known)
    assert "signed by another key" in other.found
    Path("artifacts/i2i", f"{RUN}.sig").unlink()  # beside the index, for those who serve its folder
    found = tags()
    kept = [name for name in found if name.startswith("signature/")]
    cached = Revision("HEAD").output("artifacts/items/items.parquet")  # not even of the index itself
    whole = cached.read_bytes()
    cached.chmod(0o644)
    write_table(catalogue(tables()["train"]).assign(title="buy this"), Path("../other.parquet"), ITEMS)
    cached.write_bytes(Path("../other.parquet").read_bytes())
    with pytest.raises(ArtifactError, match=r"items/items.parquet"):
        source.read()
    cached.write_bytes(whole)
    return kept, [name for name in found if name not in kept]


@pytest.mark.slow
def test_promotion_story(project, capsys):
    Path(".serving/versions").mkdir(parents=True)
    source = Source("prod", "", "artifacts")
    follower = Follower(source, Path(".serving"), build_version)
    # The first champion.
    build(0.8, "first")
    with pytest.raises(LlmI2iError, match="no version holds stage prod"):
        follower.start()
    first = registry.head()
    assert main(["promote"]) == 2  # no verdict yet
    assert "run `python -m pipelines gate`" in capsys.readouterr().err
    assert main(["gate"]) == 0
    assert verdict()["verdict"] == "first champion"
    assert main(["promote"]) == 0
    names = ["generator#prod#1", "generator@v0.0.1", "i2i-index#prod#1", "i2i-index@v0.0.1"]
    assert signed_story() == (["signature/i2i-index/v0.0.1"], names)
    shell("git", "tag", "--delete", "signature/i2i-index/v0.0.1")
    assert tags() == names
    assert registry.champion("i2i-index") == ("v0.0.1", first)
    assert served(follower) == ("v0.0.1", first)
    card = Path("reports/model_cards/i2i-index.md").read_text(encoding="utf-8")
    assert "model-index:" in card
    assert verdict()["index_md5"]
    # A second promotion does nothing; the champion does not beat itself.
    assert main(["promote"]) == 0
    assert tags() == names
    assert main(["gate"]) == 1
    assert verdict()["verdict"] == "no difference"

    # A worse candidate.
    build(1.0, "worse")
    assert main(["gate"]) == 1
    assert verdict()["verdict"] == "worse"
    assert main(["promote"]) == 2
    assert "the gate says: worse" in capsys.readouterr().err
    assert tags() == names

    # A better one, refused while the tree is dirty, promoted when clean.
    build(0.0, "better")
    better = registry.head()
    assert main(["gate"]) == 0
    assert verdict()["verdict"] == "better"
    assert verdict()["champion"] == {"name": "v0.0.1", "commit": first}
    Path("notes.txt").write_text("not committed\n", encoding="utf-8")
    assert main(["promote"]) == 2
    assert "uncommitted changes: notes.txt" in capsys.readouterr().err
    commit("notes")
    assert main(["promote"]) == 2  # the gate looked at another commit
    assert "this is" in capsys.readouterr().err
    shell("git", "reset", "-q", "--hard", better)
    assert main(["promote"]) == 0
    assert registry.champion("i2i-index") == ("v0.0.2", better)
    assert registry.champion("generator") == ("v0.0.2", better)
    assert served(follower) == ("v0.0.2", better)

    # Roll-back with the documented command.
    gto = str(Path(sys.executable).with_name("gto"))
    shell(gto, "assign", "i2i-index", "--version", "v0.0.1", "--stage", "prod", "--force")
    assert registry.champion("i2i-index") == ("v0.0.1", first)
    assert served(follower) == ("v0.0.1", first)
    # What passed against another champion is not promoted: the gate must look again.
    Path("reports/gate.json").write_text(
        json.dumps({**verdict(), "champion": {"name": "v0.0.2", "commit": better}}), encoding="utf-8"
    )
    assert main(["promote"]) == 2
    assert "another model serves" in capsys.readouterr().err


def drifts(capsys) -> None:
    """Every row of the data twice: command and gate say so; nor does a run pass that nobody described."""
    described = Path("reports/monitor.json").read_text(encoding="utf-8")
    whole = pd.read_csv("data/interactions.csv")
    write_frame(pd.concat([whole, whole]), Path("data/interactions.csv"))
    write_json(describe(Path(), load_params(), data_name="tastes"), Path("reports/monitor.json"))
    assert main(["monitor"]) == 1
    assert "ALARM interactions that occur twice: 0.5, allowed at most 0.1" in capsys.readouterr().out
    assert "is not what dvc.lock records" in gate.drift(load_params())
    dvc("commit", "--force", "--quiet")
    assert main(["gate"]) == 1
    (refused,) = [check for check in verdict()["checks"] if not check["passed"]]
    assert refused["name"] == "monitor"
    assert "interactions that occur twice: 0.5, allowed at most 0.1" in refused["reason"]
    Path("reports/monitor.json").write_text(described, encoding="utf-8")
    shell("git", "checkout", "-q", "dvc.lock")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A project with one run that is committed. To be copied."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_project()
        build(0.3, "first")
    return folder


@pytest.fixture
def first(built, tmp_path, monkeypatch) -> Path:
    """A copy of it."""
    folder = shutil.copytree(built, tmp_path / "first", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_the_commands_of_the_page_promote(first):
    """Its shell blocks, in a project with new data, a run that is not committed, and a seed of an older run."""
    dvc("add", "--quiet", "data")
    for seed in (42, 43, 44):
        path = Path(f"reports/seeds/{RUN}/{seed}.json")
        write_json({**read_json(path), "identity": "an older run's" if seed == 42 else identity_of(seed)}, path)
    commit("an older run")
    shell("git", "clone", "-q", "--bare", ".", "../origin")
    shell("git", "remote", "add", "origin", "../origin")
    Path(".gitignore").write_text(Path(".gitignore").read_text(encoding="utf-8") + "/none\n", encoding="utf-8")
    text = script(
        [line for block in BLOCKS if (block.page, block.language) == (OF_A_PROMOTION, "sh") for line in block.run]
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", text], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert registry.champion("i2i-index") == ("v0.0.1", registry.head())
    assert ("i2i-index@v0.0.1" in shell("git", "ls-remote", "--tags", "origin")) == ("push" in text)


@pytest.mark.slow
def test_the_gate_sees_stale_seeds_a_changed_index_and_drift(first, capsys):
    drifts(capsys)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["fuse"]["threshold"] = 0.123
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert main(["gate"]) == 1
    assert [c["name"] for c in verdict()["checks"] if not c["passed"]] == ["seeds"]
    assert verdict()["uncommitted"] == ["params.yaml"]
    shell("git", "checkout", "-q", "params.yaml")
    manifest = Path(f"artifacts/i2i/{RUN}/manifest.json")
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    Path("artifacts/validation/validation.json").unlink()
    assert main(["gate"]) == 1
    assert [c["name"] for c in verdict()["checks"] if not c["passed"]] == ["index", "validation"]
    write_json({**read_json(manifest), "content_sha256": "of another night"}, manifest)
    assert "describes another index" in gate.drift(load_params())
    assert "dvc repro" in Path("reports/gate.md").read_text(encoding="utf-8")


HEAD = "a" * 40
GOOD = {
    "passed": True, "verdict": "better", "commit": HEAD, "uncommitted": [], "index_md5": "m",
    "champion": {"name": "v0.0.1", "commit": "b" * 40},
}  # fmt: skip
VIOLATIONS = {
    "gate_passed": {"gate": {**GOOD, "passed": False, "verdict": "worse"}},
    "same_commit": {"gate": {**GOOD, "commit": "c" * 40}},
    "clean": {"uncommitted": ["params.yaml"]},
    "was_clean": {"gate": {**GOOD, "uncommitted": ["params.yaml"]}},
    "same_champion": {"champion": registry.Version("v0.0.2", "d" * 40)},
    "same_index": {"index_md5": "other"},
    "data_named": {"data": "unknown"},
}


def test_a_card_of_other_data_does_not_speak_of_movielens(tmp_path, monkeypatch):
    """Every profile names MovieLens; with other data, or none that is tracked, that is not known to be true."""
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")
    assert model_cards.about(params).data == "unknown"
    shutil.copy(ROOT / "data.dvc", "data.dvc")
    assert "MovieLens" in model_cards.about(params).data, "movielens.DATA_MD5 is that of the committed data.dvc"
    Path("data.dvc").write_text(Path("data.dvc").read_text().replace("a24ceb", "b24ceb"))
    assert model_cards.about(params).data_licence == "unknown"
    ours = params.model_copy(update={"model_card": ModelCardParams(data="our shop", data_licence="ours")})
    assert model_cards.about(ours).data == "our shop"


def test_every_check_of_a_promotion_has_its_case():
    assert set(VIOLATIONS) == set(promote.CHECKS) == set(promote.REQUIRED)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_check_alone_stops_a_promotion(name, monkeypatch):
    """No other check stands in for one that is taken out."""
    facts = {"gate": GOOD, "head": HEAD, "uncommitted": [], "index_md5": "m", "data": "our shop"}
    good = promote.State(**{**facts, "champion": registry.Version("v0.0.1", "b" * 40)})
    assert not promote.problems(good)
    bad = promote.State(**{**vars(good), **VIOLATIONS[name]})
    assert len(promote.problems(bad)) == 1
    assert "missing" not in promote.problems(bad)[0]
    left = {key: check for key, check in promote.CHECKS.items() if key != name}
    monkeypatch.setattr(promote, "CHECKS", MappingProxyType(left))
    assert promote.problems(bad) == promote.problems(good) == [f"check {name} is missing"]
