import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from llm_i2i import schema
from llm_i2i.errors import ArtifactError
from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.report import Report, build_report
from llm_i2i.reporting.words import NOT_MEASURED
from tests.llm_i2i.reporting.run_folder import write_run

REQUIRED = [
    "reports/metrics",
    "artifacts/evaluation/bpr-llm_i2i.parquet",
    "artifacts/items/items.parquet",
    "artifacts/split/train.parquet",
    "artifacts/split/test.parquet",
    "artifacts/split/manifest.json",
    "artifacts/validation/validation.json",
    "artifacts/proposed/generator.parquet",
    "artifacts/judged/pairs.parquet",
    "artifacts/fused/real.json",
    "artifacts/fused/llm_i2i.parquet",
]
OPTIONAL = [
    "reports/runtime",
    "artifacts/generator",
    "artifacts/discriminator",
    "artifacts/base_model",
    "artifacts/scored/generator.json",
    "artifacts/proposed/generator.json",
    "data.dvc",
]

SILENT = ["artifacts/judged/judge.json"]  # where nothing was learned there is no table


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_and_arms_come_in_the_order_of_params_real_first(inputs: ReportInputs) -> None:
    assert inputs.models == ("swing", "bpr")
    assert inputs.arms == ("real", "llm_i2i")
    assert inputs.split_rows["test"] == 240
    assert set(inputs.fused) == {"llm_i2i"}


def test_order_is_that_of_params_with_real_first(tmp_path: Path) -> None:
    inputs = collect(write_run(tmp_path, models=("bm25", "swing"), arms=("popularity", "real", "item_knn")))
    assert inputs.models == ("bm25", "swing")
    assert inputs.arms == ("real", "popularity", "item_knn")


def test_metrics_of_models_and_arms_that_params_no_longer_name_stay_unread(
    copy_of: Callable[[], Path], report: Report
) -> None:
    root = copy_of()
    (root / "reports" / "metrics" / "item_knn-real.json").write_text("left over")
    (root / "artifacts" / "fused" / "no_generator.json").write_text("left over")
    after = build_report(collect(root))
    assert after.summary == report.summary
    assert "no longer names their model or arm: item_knn-real (left over in reports/metrics)" in after.html
    assert "left over" not in report.html


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_required_artifact_is_one_clear_error(path: str, copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    _remove(root / path)
    with pytest.raises(ArtifactError) as caught:
        collect(root)
    assert Path(path).name in str(caught.value)
    assert "dvc repro" in str(caught.value)


@pytest.mark.parametrize("path", OPTIONAL)
def test_a_missing_optional_artifact_is_shown_as_not_measured(
    path: str, copy_of: Callable[[], Path], report: Report
) -> None:
    root = copy_of()
    _remove(root / path)
    bare = build_report(collect(root))
    assert bare.html.count(NOT_MEASURED) > report.html.count(NOT_MEASURED)
    assert bare.summary == report.summary


def test_all_optional_artifacts_may_be_missing_at_once(copy_of: Callable[[], Path], report: Report) -> None:
    root = copy_of()
    for path in (*OPTIONAL, *SILENT):
        _remove(root / path)
    bare = build_report(collect(root))
    assert bare.html.count(NOT_MEASURED) >= report.html.count(NOT_MEASURED) + 15
    assert "chance is 0.5" not in bare.html


def test_metrics_of_different_protocols_are_refused(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    path = root / "reports" / "metrics" / "bpr-real.json"
    protocol = json.loads(path.read_text())["protocol"] | {"index": "train+valid"}
    _edit(path, protocol=protocol)
    with pytest.raises(ArtifactError, match="does not belong to its protocol"):
        collect(root)
    from llm_i2i.files import json_sha256 as protocol_hash

    _edit(path, protocol_hash=protocol_hash(protocol))
    with pytest.raises(ArtifactError, match="protocols differ: index"):
        collect(root)


def test_metrics_under_another_name_are_refused(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    folder = root / "reports" / "metrics"
    (folder / "bpr-real.json").rename(folder / "bpr-unreal.json")
    with pytest.raises(ArtifactError, match=r"bpr-real\.json"):
        collect(root)


def test_ranks_that_do_not_give_the_stated_metric_are_refused(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    path = root / "artifacts" / "evaluation" / "swing-real.parquet"
    schema.write_table(pd.read_parquet(path).assign(rank=0), path, schema.PER_USER)
    with pytest.raises(ArtifactError, match=r"recall@\d+ of its ranks is 0.0000"):
        collect(root)


def test_runs_on_different_test_users_are_refused(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    path = root / "artifacts" / "evaluation" / "swing-real.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "user_id"] = "somebody else"
    schema.write_table(table, path, schema.PER_USER)
    with pytest.raises(ArtifactError, match="same test users and targets"):
        collect(root)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_broken_json_is_an_artifact_error(text: str, copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    (root / "artifacts" / "fused" / "real.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"real\.json"):
        collect(root)


def test_a_training_log_without_loss_is_an_artifact_error(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    (root / "artifacts" / "generator" / "training.csv").write_text("step,los\n1,2\n")
    with pytest.raises(ArtifactError, match="loss"):
        collect(root)


def test_a_broken_runtime_file_is_skipped_with_a_warning(
    copy_of: Callable[[], Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = copy_of()
    (root / "reports" / "runtime" / "split.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert "split" not in collect(root).runtime
    assert "split" in caplog.text
