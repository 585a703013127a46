"""A bit that flips anywhere is found, with the file at fault and what to do; an untouched project is in order."""

import functools
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from redis import Redis

from llm_i2i import dvc as dvc_files
from llm_i2i import registry
from llm_i2i.files import content_md5, sealed, write_array, write_csv, write_json
from llm_i2i.i2i.export import export_jsonl, export_redis
from llm_i2i.i2i.index import index_sha256
from llm_i2i.schema import INDEX, write_table
from pipelines import verify
from pipelines.__main__ import main

FLIPS = int(os.environ.get("LLM_I2I_FLIPS", "40"))
EXPORT = "out/index.jsonl"


def shell(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def index() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (f"i{a:02d}", f"i{(a + r) % 30:02d}", np.float32(9 - r + rng.random()), r) for a in range(30) for r in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["item_id", "neighbour_id", "score", "rank"])[list(INDEX)].astype(INDEX)


def outputs() -> None:
    """What stages wrote, in small."""
    folder = Path("artifacts/i2i/swing-real")
    write_table(index(), folder / "index.parquet", INDEX)
    write_json({"model": "swing", "content_sha256": index_sha256(index())}, folder / "manifest.json")
    write_array(np.arange(500.0), Path("artifacts/text/vectors.npy"))
    write_json({"overall": {"recall@10": 0.5}}, Path("reports/metrics/swing-real.json"))
    write_csv(Path("data/interactions.csv"), ("user_id", "item_id"), [("u", "i")] * 50)
    write_json({"seed": 1}, Path("reports/seeds/swing-real/1.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data, outputs, a promoted version and its verdict, by real DVC, git and GTO."""
    root = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shell("git", "init", "-q", ".")
        for key, value in {"user.email": "t@t", "user.name": "t", "commit.gpgsign": "false"}.items():
            shell("git", "config", key, value)
        dvc = (sys.executable, "-m", "dvc")
        shell(*dvc, "init", "--quiet")
        outputs()
        metrics = [{"reports/metrics/${item.model}-${item.arm}.json": {"cache": False}}]
        stages = {
            "evaluate": {
                "matrix": {"model": ["swing"], "arm": ["real"]},
                "cmd": "true",
                "deps": ["data", "artifacts/text"],
                "outs": ["artifacts/i2i/${item.model}-${item.arm}"],
                "metrics": metrics,
            },
            "encode_text": {"cmd": "true", "deps": ["data"], "outs": ["artifacts/text"]},
        }
        artifacts = {"i2i-index": {"path": "artifacts/i2i/${gate.model}-${gate.arm}", "type": "index"}}
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages, "artifacts": artifacts}))
        Path("params.yaml").write_text("gate: {model: swing, arm: real}\n")
        Path(".gitignore").write_text("/artifacts\n/data\n/out\n/reports/gate.json\n")
        shell(*dvc, "add", "--quiet", "data")
        shell(*dvc, "commit", "--force", "--quiet")
        shell("git", "add", "-A")
        shell("git", "commit", "-q", "-m", "results")
        registry.register("i2i-index")
        registry.assign("i2i-index", "v0.0.1")
        facts = {"model": "swing-real", "commit": registry.head(), "uncommitted": [], "passed": True}
        facts["index_md5"] = content_md5(Path("artifacts/i2i/swing-real"))
        write_json(sealed(facts), Path("reports/gate.json"))
        export_jsonl(index(), {"model": "swing"}, Path(EXPORT))
    return root


ASK = functools.cache(registry.champion)  # tags do not change here, and asking GTO takes seconds


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shell("cp", "-r", f"{made}/.", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc_files, "_cache", [tmp_path / ".dvc" / "cache"])
    monkeypatch.setattr(registry, "champion", ASK)
    return tmp_path


def test_an_untouched_project_is_in_order_and_a_lost_cache_is_named(project, caplog):
    assert main(["verify", EXPORT]) == 0
    for path in Path(".dvc/cache/files").rglob("*"):
        if path.is_file():
            path.unlink()
    assert main(["verify"]) == 1


def test_every_flipped_bit_is_found(project):
    """In data, outputs, metrics, seeds, verdict, export and every object of the cache."""
    places = ("data", "artifacts", "reports", "out", ".dvc/cache/files")
    files = [path for place in places for path in sorted(Path(place).rglob("*")) if path.is_file()]
    assert len(files) >= 17
    rng, missed = random.Random(0), []
    for number in range(FLIPS):
        path = files[number % len(files)]
        whole, mode = path.read_bytes(), path.stat().st_mode
        bit = rng.randrange(8 * len(whole))
        path.chmod(0o644)
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        if verify.verify([EXPORT], prefix="p"):
            missed.append((str(path), bit))
        path.write_bytes(whole)
        path.chmod(mode)
    assert missed == []
    assert verify.verify([EXPORT], prefix="p")


@pytest.mark.parametrize(
    ("damage", "where", "repair"),
    [
        (
            "artifacts/text/vectors.npy",
            "artifacts/text: is not what was recorded",
            "dvc checkout --force artifacts/text",
        ),
        (
            "reports/metrics/swing-real.json",
            "reports/metrics/swing-real.json: is not",
            "dvc repro --force --single-item",
        ),
        ("reports/seeds/swing-real/1.json", "reports/seeds/swing-real/1.json: differs", "git checkout reports/seeds"),
        ("reports/gate.json", "reports/gate.json: ", "pipelines gate"),
        ("data/interactions.csv", "data: is not what was recorded", "dvc checkout --force data"),
        (EXPORT, EXPORT, "llm-i2i export"),
    ],
)
def test_the_line_names_the_place_and_the_repair(project, caplog, damage, where, repair):
    path = Path(damage)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    assert not verify.verify([EXPORT], prefix="p")
    line = next(record.getMessage() for record in caplog.records if where in record.getMessage())
    assert repair in line


def test_an_index_of_another_run_beside_its_manifest_and_a_stale_dep_are_named(project, caplog):
    """What hashes of single files cannot tell: all are as recorded, and do not belong together."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["encode_text"]["deps"][0]["md5"] = "0" * 32 + ".dir"
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    assert not verify.verify(prefix="p")
    assert "read another data than there is" in caplog.text


def test_a_flip_in_redis_is_found(project, redis_url):
    client = Redis.from_url(redis_url)
    export_redis(index(), {"model": "swing"}, redis_url, prefix="p")
    assert verify.verify([redis_url], prefix="p")
    rng = random.Random(0)
    for key in client.keys("p:*:item:*")[:10] + client.keys("p:*:manifest"):
        whole = client.get(key)
        bit = rng.randrange(8 * len(whole))
        client.set(key, whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        assert not verify.verify([redis_url], prefix="p"), (key, bit)
        client.set(key, whole)
