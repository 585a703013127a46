"""Seeds of the gate through real DVC experiments, on a stage that costs nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from llm_i2i import dvc as dvc_files
from pipelines.__main__ import main
from tests.conftest import whole_params

RUN = "item_knn-real"
STAGE = f"""
import json, pathlib, pandas, yaml
seed = yaml.safe_load(open("params.yaml"))["seed"]
table = {{"user_id": ["u"], "item_id": ["i"], "bucket": ["mid"], "rank": [seed]}}
types = {{"user_id": "str", "item_id": "str", "bucket": "str", "rank": "int32"}}
for folder in ("artifacts/evaluation", "reports/metrics"):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
pandas.DataFrame(table).astype(types).to_parquet("artifacts/evaluation/{RUN}.parquet")
json.dump({{"seed_seen": seed}}, open("reports/metrics/{RUN}.json", "w"))
"""


def shell(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_each_seed_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc_files, "_cache", [])
    shell("git", "init", "-q", "-b", "main", ".")
    shell("git", "config", "user.email", "someone@example.org")
    shell("git", "config", "user.name", "Someone")
    shell(sys.executable, "-m", "dvc", "init", "--quiet")
    params = whole_params()
    params["gate"] |= {"model": "item_knn", "arm": "real", "seeds": [42, 43, 44]}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    Path("stage.py").write_text(STAGE, encoding="utf-8")
    Path(".gitignore").write_text("/artifacts\n", encoding="utf-8")
    stage = {
        "matrix": {"model": ["item_knn"], "arm": ["real"]},
        "cmd": f"{sys.executable} stage.py",
        "params": ["seed"],
        "outs": ["artifacts/evaluation/${item.model}-${item.arm}.parquet"],
        "metrics": [{"reports/metrics/${item.model}-${item.arm}.json": {"cache": False}}],
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}), encoding="utf-8")
    shell(sys.executable, "-m", "dvc", "repro", "--quiet")
    shell("git", "add", "-A")
    shell("git", "commit", "-q", "-m", "first")
    assert main(["replicate"]) == 0
    folder = Path("reports/seeds") / RUN
    for seed in (42, 43, 44):
        record = json.loads((folder / f"{seed}.json").read_text(encoding="utf-8"))
        assert record["metrics"]["seed_seen"] == seed
        assert pd.read_parquet(folder / f"{seed}.parquet")["rank"].tolist() == [seed]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main(["replicate"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert json.loads(Path(f"reports/metrics/{RUN}.json").read_text(encoding="utf-8"))["seed_seen"] == 42
