"""The command line: one clear message for our errors, a traceback for all others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaging.utils import canonicalize_name

from llm_i2i.reporting.collect import BENCHMARK, BENCHMARK_ON_A_GPU
from llm_i2i.schema import ITEMS, write_table
from pipelines import check, zenml_store
from pipelines.__main__ import main
from tests.conftest import ROOT


def pipelines(folder: Path, *arguments: str, zenml: str = "off") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "LLM_I2I_ZENML": zenml,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_all_typos_of_params_are_told_at_once_without_a_traceback(folder: Path) -> None:
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("\n  threshold:", "\n  treshold:").replace("seed: 42", "seed: many")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    for command in ("check", "split"):
        done = pipelines(folder, command)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        for expected in ("params.yaml", "fuse.treshold", "seed", "many"):
            assert expected in done.stderr
    assert {path.name for path in folder.iterdir()} == {"params.yaml", "profiles"}


@pytest.mark.slow
@pytest.mark.parametrize("zenml", ["off", "on"])
def test_missing_input_is_one_line_and_leaves_no_output(folder: Path, zenml: str) -> None:
    done = pipelines(folder, "fuse", "--arm", "real", zenml=zenml)
    assert done.returncode == 2
    assert done.stderr.startswith("error: artifacts/split/train.parquet: no such file")
    assert "Traceback" not in done.stderr + done.stdout
    assert not (folder / "artifacts").exists()


def test_unknown_command_is_refused(folder: Path) -> None:
    done = pipelines(folder, "spilt")
    assert done.returncode == 2
    assert "invalid choice" in done.stderr


def test_show_needs_a_report(folder: Path) -> None:
    assert "run `make repro`" in pipelines(folder, "show").stderr
    (folder / "reports").mkdir()
    (folder / "reports" / "report.md").write_text("# R\n\n| a |\n| - |\n\nmore", encoding="utf-8")
    done = pipelines(folder, "show")
    assert done.returncode == 0
    assert done.stdout.startswith("| a |\n| - |\n")
    assert str(folder / "reports" / "report.html") in done.stdout


def test_bench_without_tables_writes_the_document_from_what_was_measured(folder: Path) -> None:
    assert pipelines(folder, "bench").returncode == 0
    assert "Nothing has been measured" in (folder / "docs" / "results.md").read_text(encoding="utf-8")


def test_bench_runs_every_experiment_whose_results_are_committed_except_those_of_a_gpu() -> None:
    committed = {path.stem for path in (ROOT / "reports" / "benchmark").glob("*/*.json")}
    assert committed == {*BENCHMARK, *BENCHMARK_ON_A_GPU}
    assert all((ROOT / "experiments" / f"{name}.yaml").is_file() for name in committed)


@pytest.mark.parametrize("seeds", ["many", "1,x", ""])
def test_seeds_are_numbers(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "threshold", "--seeds", seeds])
    assert "such as 1,2,3" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["0/4", "5/4", "x", "3", "1/2/3", "-1/4", "1/0", "\u0663/4", ""])
def test_a_part_is_one_of_its_number(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["synthesize", f"--part={part}"])
    assert f"argument --part: {part!r} is not K/N, K from 1 to N, such as 3/16" in capsys.readouterr().err


def test_only_stages_of_users_have_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["split", "--part", "1/2"])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.fixture
def catalogue(folder: Path) -> Path:
    """A folder with what stage encode_text reads, and its own words to encode by."""
    items = {"item_id": ["a", "b"], "title": ["one", "two"], "text": ["one", "two"], "n_train": [1, 1]}
    table = pd.DataFrame(items | {"bucket": ["tail", "tail"], "is_long_tail": [True, False]})
    (folder / "artifacts" / "items").mkdir(parents=True)
    write_table(table, folder / "artifacts" / "items" / "items.parquet", ITEMS)
    return folder


def test_words_are_counted_without_an_llm(catalogue: Path) -> None:
    code = (
        "import sys; from pipelines.__main__ import main; "
        "status = main(['encode_text']); print('torch' in sys.modules); sys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "LLM_I2I_ZENML": "off"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=catalogue, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False"]
    assert len(np.load(catalogue / "artifacts" / "text" / "vectors.npy")) == 2


@pytest.mark.slow
def test_a_stage_is_a_zenml_pipeline_of_its_name(catalogue: Path) -> None:
    (catalogue / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    done = pipelines(catalogue, "encode_text", zenml="on")
    assert done.returncode == 0, done.stderr
    assert (catalogue / "artifacts" / "text" / "vectors.npy").is_file()


def test_full_refuses_to_run_without_zenml(folder: Path) -> None:
    done = pipelines(folder, "full")
    assert done.returncode == 2
    assert "LLM_I2I_ZENML=off" in done.stderr


@pytest.mark.slow
def test_cold_store_survives_two_processes_at_once(tmp_path: Path) -> None:
    code = "from pathlib import Path; from pipelines import zenml_store; zenml_store.prepare(Path())"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "LLM_I2I_ZENML": "on"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert (tmp_path / ".zenml-store" / "ready").is_file()


@pytest.mark.slow
def test_what_we_replace_in_zenml_is_still_there() -> None:
    """The start-up shortcuts rest on these names; an upgrade of ZenML must not lose them silently."""
    from zenml.environment import Environment
    from zenml.integrations.registry import integration_registry

    assert set(zenml_store.UNUSED_INTEGRATIONS) <= set(integration_registry.integrations)
    ours, pips = map(_names, (zenml_store.installed_packages(), Environment.get_python_packages()))
    assert len(ours) > 100
    assert pips <= ours


def _names(lines: list[str]) -> set[str]:
    return {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line and line[0] != "#"} - {"llm-i2i"}


def test_windows_is_refused_in_one_sentence():
    code = "import sys; sys.platform = 'win32'; import pipelines"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "on Windows use WSL" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_another_launcher_has_left_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert main(["split"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: environment variable WORLD_SIZE: is 2, but there is no MASTER_ADDR")
    assert "unset WORLD_SIZE" in told


def test_the_local_rank_of_another_program_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["split"]) == 2  # there is no project here
    assert "LOCAL_RANK" not in os.environ


def test_ctrl_c_is_one_word(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check", interrupted)
    assert main(["check"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
