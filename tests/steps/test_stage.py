"""The frame around every step: description, runtime facts, one process at a time."""

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from llm_i2i.files import content_md5, staged
from llm_i2i.stages import instance_name
from steps.paths import LOCKS
from steps.stage import Outcome, only_one, stage_step
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_out(facts: dict) -> Outcome:
    Path("out.txt").write_text("x")
    return Outcome((Path("out.txt"),), rows=3, runtime=facts)


def test_names_are_dvcs() -> None:
    assert instance_name("split", {}) == "split"
    assert instance_name("train_i2i", {"model": "swing", "arm": "llm_i2i"}) == "train_i2i@swing-llm_i2i"


def test_step_describes_by_reference_and_writes_runtime_facts() -> None:
    @stage_step
    def fuse(arm: str) -> Outcome:
        return write_out({"device": "cpu", "seconds": "not the step's"})

    found = fuse(arm="real")
    assert found.stage == "fuse@real"
    assert dict(found.outputs) == {"out.txt": content_md5(Path("out.txt"))}
    assert found.rows == 3
    facts = json.loads(Path("reports/runtime/fuse@real.json").read_text())
    assert facts["stage"] == "fuse@real"
    assert facts["device"] == "cpu"
    assert 0 <= facts["seconds"] < 5
    assert 10 < facts["peak_memory_mb"] < 100_000


def test_speed_by_training_step_becomes_a_table_numbered_from_the_end() -> None:
    @stage_step
    def train_generator() -> Outcome:
        Path("adapter").mkdir()
        Path("adapter/training.csv").write_text("step,loss\n" + "".join(f"{i},0.5\n" for i in range(1, 8)))
        return Outcome((Path("adapter"),), runtime={"tokens_per_s_by_step": [10.0, 20.0]})

    train_generator()
    assert Path("reports/runtime/train_generator.csv").read_text() == "step,tokens_per_s\n6,10.0\n7,20.0\n"
    assert "tokens_per_s_by_step" not in json.loads(Path("reports/runtime/train_generator.json").read_text())


def test_failed_step_writes_no_runtime_facts() -> None:
    @stage_step
    def split() -> Outcome:
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        split()
    assert not Path("reports").exists()


def test_second_process_of_a_stage_waits(in_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = (
        "import time, pathlib\nfrom steps.stage import Outcome, stage_step\n"
        "@stage_step\ndef split():\n    pathlib.Path('started').touch(); time.sleep(2)\n"
        "    pathlib.Path('ended').touch(); return Outcome(())\n"
        "split()"
    )
    path = f"{ROOT}:{ROOT / 'src'}"
    other = subprocess.Popen([sys.executable, "-c", code], env={"PYTHONPATH": path, "LLM_I2I_ZENML": "off"})
    while not Path("started").exists():
        assert other.poll() is None
        time.sleep(0.01)

    @stage_step
    def split() -> Outcome:
        assert Path("ended").exists()
        return Outcome(())

    with caplog.at_level(logging.WARNING):
        split()
    assert "waiting" in caplog.text
    assert other.wait() == 0


def test_other_parts_do_not_wait_but_the_whole_stage_and_the_same_part_do(caplog: pytest.LogCaptureFixture) -> None:
    came = []

    def come(**part: str) -> None:
        with only_one("score@generator", **part):
            came.append(part)

    waiting = [threading.Thread(target=come, kwargs=part) for part in ({"part": "1/2"}, {})]
    with only_one("score@generator", part="1/2"):
        come(part="2/2")
        assert "waiting" not in caplog.text
        for thread in waiting:
            thread.start()
            time.sleep(0.2)
        assert came == [{"part": "2/2"}]
    for thread in waiting:
        thread.join()
    assert sorted(map(str, came[1:])) == sorted(map(str, [{"part": "1/2"}, {}]))
    assert caplog.text.count("waiting") == 2


def test_any_but_the_first_of_several_processes_only_lends_its_device(monkeypatch) -> None:
    """It must not wait for the lock that the first process holds, nor write anything."""

    @stage_step
    def train_generator() -> Outcome:
        with staged(Path("adapter")) as out:
            (out / "weights").write_text("x")
        return Outcome((Path("adapter"),))

    Path("adapter").mkdir()
    Path("adapter/weights").write_text("of the first process")
    LOCKS.mkdir(parents=True)
    with FileLock(LOCKS / "train_generator.lock"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        found = train_generator()
    assert found.outputs == {}
    assert Path("adapter/weights").read_text() == "of the first process"
    assert not Path("reports").exists()
