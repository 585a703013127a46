"""The whole graph for real, on the ci profile: every link, not what it is worth."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from llm_i2i.files import content_md5
from llm_i2i.monitoring.drift import FACTS
from llm_i2i.stages import STAGES
from tests.e2e.conftest import copy_of
from tests.e2e.project import Project

pytestmark = pytest.mark.slow


def test_every_out_exists_and_its_hash_is_the_locks(finished: Project) -> None:
    outs = finished.locked_outs()
    assert len(outs) == 11 + 2 + 1 + 2 + 2 * 3 + 6 + 2 * 6 + 2 * 2
    for path, md5 in outs.items():
        assert content_md5(finished.root / path) == md5, path
    assert (finished.root / "reports" / "report.html").stat().st_size > 10_000
    assert (finished.root / "reports" / "validation").is_dir()
    assert list((finished.root / ".checkpoints").glob("*")) == []
    assert list(finished.root.rglob("*.partial")) == []


def test_a_run_changes_results_only_in_git(finished: Project) -> None:
    changed = finished.run("git", "show", "--name-only", "--format=", "HEAD").stdout.split()
    others = {path for path in changed if not path.startswith("reports/metrics/")}
    assert others == {"dvc.lock", "params.yaml", "reports/monitor.json", "reports/summary.json"}, (
        "params.yaml: the ci profile"
    )


def test_second_repro_runs_no_stage(finished: Project) -> None:
    assert finished.repro() == []
    assert "up to date" in finished.dvc("status").stdout


def test_the_run_is_described_and_compared_with_itself_only(finished: Project) -> None:
    run = json.loads((finished.root / "reports" / "monitor.json").read_text(encoding="utf-8"))
    assert {"rows", "same_time", "valid_share", "synthetic_share", "coverage"} <= set(run["facts"]) <= set(FACTS)
    assert len(run["sketch"]["items"]) == 256
    done = finished.pipeline("monitor")
    assert "against 0 earlier run(s) of this data, 0 of this recipe; with fewer than" in done.stdout
    assert 'id="monitor"' in (finished.root / "reports" / "report.html").read_text(encoding="utf-8")


def test_synthetic_rows_are_catalogue_items_outside_the_users_history(finished: Project) -> None:
    artifacts = finished.root / "artifacts"
    synthetic = pd.read_parquet(artifacts / "proposed" / "generator.parquet")
    synthetic = synthetic[~synthetic["held_out"]]
    items = pd.read_parquet(artifacts / "items" / "items.parquet")
    train = pd.read_parquet(artifacts / "split" / "train.parquet")
    assert len(synthetic) > 0
    assert synthetic["item_id"].isin(items["item_id"]).all()
    pairs = pd.MultiIndex.from_frame(synthetic[["user_id", "item_id"]])
    assert not pairs.isin(pd.MultiIndex.from_frame(train[["user_id", "item_id"]])).any()
    assert not pairs.duplicated().any()


def test_runtime_facts_of_every_stage(finished: Project) -> None:
    lock = yaml.safe_load((finished.root / "dvc.lock").read_text(encoding="utf-8"))
    for stage in lock["stages"]:
        facts = json.loads((finished.root / "reports" / "runtime" / f"{stage}.json").read_text())
        assert facts["stage"] == stage
        assert facts["process_seconds"] > facts["seconds"] > 0
    facts = json.loads((finished.root / "reports" / "runtime" / "train_generator.json").read_text())
    assert facts["device"]
    assert facts["precision"]


def test_zenml_holds_references_whose_hashes_are_the_locks(finished: Project) -> None:
    code = """
import json
from pathlib import Path
from pipelines import zenml_store
zenml_store.prepare(Path())
from zenml.client import Client
found = {}
for run in Client().list_pipeline_runs(size=100, hydrate=True):
    step, = run.steps.values()
    artifact = step.outputs["output"][0]
    description = artifact.load()
    found[description.stage] = {
        "outputs": dict(description.outputs),
        "logged": step.run_metadata["outputs"],
        "inputs": step.run_metadata["inputs"],
        "keys": sorted(step.run_metadata),
        "status": str(run.status),
        "params": step.run_metadata["params"],
        "size": sum(p.stat().st_size for p in Path(artifact.uri).rglob("*") if p.is_file()),
    }
print(json.dumps(found))
"""
    found = json.loads(finished.run(sys.executable, "-c", code).stdout.splitlines()[-1])
    lock = yaml.safe_load((finished.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert sorted(stage.partition("@")[0] for stage in found) == sorted(STAGES)
    outs = finished.locked_outs()
    for stage, entry in found.items():
        assert entry["outputs"] == entry["logged"] == {out["path"]: out["md5"] for out in lock[stage]["outs"]}
        assert {"git_revision", "inputs", "metrics", "outputs", "params"} <= set(entry["keys"])
        assert entry["status"] == "completed"
        assert entry["size"] < 2_000
        for path, md5 in entry["inputs"].items():
            assert outs.get(path, md5) == md5
    assert found["fuse@real"]["params"]["fuse"]["threshold"] == 0.3


@pytest.fixture(scope="module")
def changed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of one I2I model, without ZenML, in which `fuse` is told otherwise and nothing has run since."""
    project = copy_of(finished, tmp_path_factory.mktemp("changed") / "project")
    project.set_param("train_i2i.models", ["swing"])
    project.set_param("fuse.threshold", 0.4)
    return project


def test_changed_threshold_reruns_fuse_and_later_only(changed: Project) -> None:
    before = changed.locked_outs()
    direct = json.loads(changed.dvc("status", "--json").stdout)
    assert set(direct) == {"fuse@real", "fuse@llm_i2i", "fuse@item_knn", "report"}
    # A random model's confidences are all alike: this makes sure that the fused rows change.
    changed.set_param("fuse.max_synthetic_per_user", 1)
    ran = {name.split("@")[0] for name in changed.repro()}
    assert ran == {"fuse", "train_i2i", "evaluate", "report"}
    after = changed.locked_outs()
    for path, md5 in before.items():
        if not path.startswith(
            (
                "artifacts/fused/llm_i2i",
                "artifacts/fused/item_knn",
                "artifacts/i2i/",
                "artifacts/evaluation",
                "reports/",
            )
        ):
            assert after[path] == md5, path
    told = changed.dvc("params", "diff", "--json", "HEAD").stdout
    assert json.loads(told)["params.yaml"]["fuse.threshold"]["new"] == 0.4
    assert changed.dvc("metrics", "diff", "HEAD").returncode == 0


def test_changed_tail_weight_makes_the_generator_stale_and_not_the_discriminator(branch: Project) -> None:
    branch.set_param("train_generator.tail_weight", 9.0)
    assert set(json.loads(branch.dvc("status", "--json").stdout)) == {"train_generator"}


def test_typo_stops_with_one_message_and_touches_nothing(branch: Project) -> None:
    before = branch.sha256("artifacts/**/*", "reports/metrics/*", "reports/*.json", "dvc.lock")
    models = "profiles/models.yaml"
    branch.set_param("train_i2i.swing.smoothing", None, rename="smooting", file=models)
    done = branch.dvc("repro", ok=False)
    assert done.returncode != 0
    message = done.stdout + done.stderr
    assert f"train_i2i.swing.smooting ({models})" in message
    assert "Traceback" not in message
    after = branch.sha256("artifacts/**/*", "reports/metrics/*", "reports/*.json", "dvc.lock")
    # DVC clears the outputs of the stage that it starts; they are in its cache.
    gone = {path for path in before if path not in after}
    assert all(path.startswith("artifacts/i2i/swing-") for path in gone)
    assert {path: after[path] for path in before if path not in gone} == {
        path: digest for path, digest in before.items() if path not in gone
    }
    assert not list(branch.root.rglob("*.partial"))
    branch.set_param("train_i2i.swing.smooting", None, rename="smoothing", file=models)
    branch.repro()
    assert branch.sha256("artifacts/**/*") == {k: v for k, v in before.items() if k.startswith("artifacts/")}


def test_whole_graph_as_one_zenml_pipeline_keeps_cached_stages_cached(changed: Project) -> None:
    changed.repro()  # nothing, after the test of the threshold
    changed.zenml = True
    lock = (changed.root / "dvc.lock").read_bytes()
    before = changed.sha256("reports/runtime/*.json")
    changed.pipeline("full")
    assert (changed.root / "dvc.lock").read_bytes() == lock
    assert changed.sha256("reports/runtime/*.json") == before, "a cached stage has run"
    code = """
from pathlib import Path
from pipelines import zenml_store
zenml_store.prepare(Path())
from zenml.client import Client
run, = Client().list_pipeline_runs(hydrate=True)
print(run.status, len(run.steps), sorted(run.steps["report"].spec.upstream_steps)[0])
"""
    assert re.search(r"^completed 24 ", changed.run(sys.executable, "-c", code).stdout, flags=re.MULTILINE)


def test_full_refuses_to_run_inside_a_stage(branch: Project) -> None:
    environment = {**branch.environment, "LLM_I2I_ZENML": "on", "DVC_STAGE": "split"}
    command = [sys.executable, "-m", "pipelines", "full"]
    done = subprocess.run(command, cwd=branch.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "inside a DVC stage" in done.stderr


def test_an_option_of_the_profile_may_be_set_in_params_and_reruns_its_stage_only(branch: Project) -> None:
    branch.set_param("train_discriminator.lora_dropout", 0.1)
    assert set(json.loads(branch.dvc("status", "--json").stdout)) == {"train_discriminator"}
    branch.run("git", "checkout", "params.yaml")
    branch.set_param("fuse.custom.pairs_per_user", 0.3)
    assert {name.split("@")[0] for name in json.loads(branch.dvc("status", "--json").stdout)} == {"fuse", "report"}
    branch.run("git", "checkout", "params.yaml")
    branch.set_param("train_i2i.bpr.epochs", 3, file="profiles/models.yaml")
    stale = set(json.loads(branch.dvc("status", "--json").stdout))
    assert {name.partition("-")[0] for name in stale} == {"train_i2i@bpr", "evaluate@bpr"}
