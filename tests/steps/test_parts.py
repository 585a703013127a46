"""Stages in parts: the bytes of one process whatever the number, and one clear end whatever dies."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest
import torch

from llm_i2i.errors import LlmI2iError
from llm_i2i.files import content_md5
from llm_i2i.llm.synthesis import UserSearch
from llm_i2i.params import RuntimeParams
from llm_i2i.stages import SHARED
from steps import parts, paths
from tests.conftest import ROOT
from tests.steps.conftest import PARAMS

STAGES = {"synthesize": {}, "score": {"source": "generator"}, "evaluate_generator": {"arm": "llm_only"}}


@pytest.fixture(autouse=True)
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(stage: str) -> str:
    """Run a whole stage; returns the hash of all its outputs."""
    done = getattr(importlib.import_module(f"steps.{stage}"), stage)(**STAGES[stage])
    return " ".join(content_md5(Path(path)) for path in done.outputs)


def facts(stage: str) -> dict:
    (path,) = paths.RUNTIME.glob(f"{stage}*.json")
    return json.loads(path.read_text())


def processes(number: int) -> None:
    Path("params.yaml").write_text(PARAMS.replace("PROCESSES", str(number)), encoding="utf-8")


def test_the_stages_are_those_of_the_command_line() -> None:
    assert set(STAGES) == set(SHARED)


def test_parts_in_any_order_and_number_merge_to_the_bytes_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {stage: run(stage) for stage in STAGES}
    for stage, of in (("synthesize", 2), ("synthesize", 3), ("score", 3), ("evaluate_generator", 2)):
        for number in range(of, 0, -1):
            parts.run_part(stage, STAGES[stage], number, of)
        with monkeypatch.context() as patch:  # what merges needs no model
            patch.setattr("llm_i2i.llm.engine.models.load_for_inference", lambda *_, **__: pytest.fail("loaded"))
            assert run(stage) == whole[stage], (stage, of)
        assert not any(paths.CHECKPOINTS.iterdir())
    assert facts("synthesize")["resumed_shards"] == 11
    assert facts("score")["resumed_shards"] == 5


def test_a_lost_part_and_a_damaged_shard_are_made_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("synthesize")
    for number in (1, 3):
        parts.run_part("synthesize", {}, number, 3)
    shards = sorted(paths.checkpoints("synthesize").rglob("*.npz"))
    assert len(shards) == 11 - 4  # part 2 makes shards 1, 4, 7 and 10
    shards[0].write_bytes(b"torn")
    made = []
    search = UserSearch.batch
    monkeypatch.setattr(UserSearch, "batch", lambda *given: made.append(1) or search(*given))
    assert run("synthesize") == whole
    assert len(made) == 5
    assert facts("synthesize")["resumed_shards"] == 6


def test_a_process_that_dies_is_one_error_that_names_its_part() -> None:
    processes(3)
    search = UserSearch.batch
    others = []

    def batch(*given):
        """Before the first shard of this process is done, the process of part 3 of 3 is killed."""
        if not others:
            others.extend(sorted(active_children(), key=lambda other: other.pid))
            others[-1].kill()
            others[-1].join()
        return search(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UserSearch, "batch", batch)
        with pytest.raises(
            LlmI2iError, match=r"synthesize, part 3/3: its process has died with exit code -9 .*SIGKILL"
        ):
            run("synthesize")
    assert active_children() == []
    assert not paths.SYNTHETIC.exists()
    whole = run("synthesize")  # goes on with what is finished, by three processes
    assert facts("synthesize")["resumed_shards"] == 1
    shutil.rmtree("artifacts/proposed")
    processes(1)
    assert run("synthesize") == whole


def test_a_gpu_serves_one_process(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    wanted = RuntimeParams(device="auto", precision="auto", threads=0, processes=4, engine="local")
    for devices, used in ((0, 4), (1, 1), (2, 2), (8, 4)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda devices=devices: devices)
        assert parts._processes(wanted) == used
    assert "runtime.processes is 4, but a GPU serves one: 1 run" in caplog.text


def test_an_error_in_another_process_comes_back_and_an_interrupt_ends_all() -> None:
    shutil.rmtree("data")

    def wait() -> None:
        with parts._helpers("split", {}, 2) as (_, check):  # a stage that is imported in no time
            while True:
                check()
                time.sleep(0.05)

    def interrupt() -> None:
        with parts._helpers("split", {}, 3):
            assert len(active_children()) == 2
            raise KeyboardInterrupt

    with pytest.raises(
        LlmI2iError, match=r"split, part 2/2: its process has died with exit code 1 \(.*DataError: data"
    ):
        wait()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert active_children() == []


def test_no_process_is_left_when_the_first_is_killed() -> None:
    code = (
        "import sys, time\nfrom steps import parts\nwith parts._helpers('synthesize', {}, 2):\n"
        "    print(*(other.pid for other in parts.multiprocessing.active_children()), flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as first:
        others = [psutil.Process(int(pid)) for pid in first.stdout.readline().split()]
        first.kill()
    assert len(others) == 1
    _, alive = psutil.wait_procs(others, timeout=30)
    assert not alive


@pytest.mark.slow
def test_another_process_shares_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, search, own = run("synthesize"), UserSearch.batch, []
    processes(2)

    def batch(*given):
        """The first shard of this process is done when the other one has made three."""
        while not own and len(list(Path(".checkpoints").rglob("*.npz"))) < 3:
            assert active_children(), "the other process lives"
            time.sleep(0.01)
        own.append(1)
        return search(*given)

    monkeypatch.setattr(UserSearch, "batch", batch)
    assert run("synthesize") == whole
    assert 6 <= len(own) <= 8
    assert active_children() == []
