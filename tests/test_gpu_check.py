"""`make gpu-check` without a GPU: every path of it, on tiny models."""

import dis
import json
import sys
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.conftest import ROOT

FILES = {str(path) for path in (ROOT / "benchmarks").glob("gpu*.py")}


def lines_of(code: CodeType) -> set[int]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {line for _, line in dis.findlinestarts(code) if line}.union(*map(lines_of, inner))


@pytest.mark.slow
def test_every_path_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import gpu

    ran: dict[str, set[int]] = {name: set() for name in FILES}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in ran:
            return None
        ran[frame.f_code.co_filename].add(frame.f_lineno)
        return trace

    out = tmp_path / "check.json"
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        status = gpu.main(["--device", "cpu", "--small", "--out", str(out)])
    finally:
        sys.settrace(before)
    parts = json.loads(out.read_text(encoding="utf-8"))
    rows = {what: row for part in parts.values() for what, row in part.items()}
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert set(parts) == {"machine", *gpu.PARTS}
    assert ("\n" + printed).count("\n| ") == sum(map(len, parts.values())) + 2
    assert [what for what, row in rows.items() if row["note"].startswith("skipped")] == ["paged_adamw_8bit"]
    # The functions' own lines: those of modules and classes ran when they were imported.
    whole = missed = 0
    left: list[str] = []
    for name in FILES:
        text = Path(name).read_text(encoding="utf-8")
        code = compile(text, name, "exec")
        functions = [c for c in code.co_consts if isinstance(c, CodeType)]
        methods = [c for f in functions for c in f.co_consts if isinstance(c, CodeType) and f.co_flags & 2 == 0]
        wanted = set().union(*(lines_of(c) - {c.co_firstlineno} for c in functions if c.co_flags & 2))
        wanted |= set().union(*(lines_of(c) - {c.co_firstlineno} for c in methods if c.co_flags & 2))
        whole, missed = whole + len(wanted), missed + len(wanted - ran[name])
        left += [f"{Path(name).name}:{n}: {text.splitlines()[n - 1].strip()}" for n in sorted(wanted - ran[name])]
    sys.stdout.write("\n  ".join([f"lines run: {1 - missed / whole:.1%} of {whole}; not run:", *left]) + "\n")
    assert missed / whole < 0.1, left


def test_what_there_is_no_time_for_is_listed_and_a_failure_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from benchmarks import gpu
    from benchmarks.gpu_context import Context
    from llm_i2i.llm.engine.device import Runtime

    context = Context(Runtime(torch.device("cpu"), torch.float32), True, tmp_path)
    record = gpu.Record(tmp_path / "none.json")
    assert gpu.run(context, record, ["parity", "graph"], minutes=-1.0)
    assert [row["note"] for row in record.rows] == ["skipped: no time left"] * 8

    def fails(_: Any) -> Any:
        yield gpu.Result("first", 1.0)
        raise ValueError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "broken", (fails,))
    record = gpu.Record(tmp_path / "none.json")
    assert not gpu.run(context, record, ["broken"], minutes=1.0)
    parts = json.loads((tmp_path / "none.json").read_text(encoding="utf-8"))
    # A part of its own: what the run before wrote of the others stays.
    assert set(parts) == {"parity", "graph", "broken"}
    holds = {what: row["holds"] for what, row in parts["broken"].items()}
    assert holds == {"first": None, "fails": False, "fails: all of it": None}
    assert parts["broken"]["fails"]["note"] == "ValueError: no such kernel"
    assert gpu.run(context, gpu.Record(tmp_path / "none.json"), ["broken"], minutes=-1.0)
    parts = json.loads((tmp_path / "none.json").read_text(encoding="utf-8"))
    assert list(parts["broken"]) == ["fails"]


def test_a_part_that_takes_too_long_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from benchmarks import gpu
    from benchmarks.gpu_context import Context
    from llm_i2i.llm.engine.device import Runtime

    def slow(_: Any) -> Any:
        time.sleep(0.6)
        yield gpu.Result("first", 1.0)
        yield gpu.Result("second", 2.0)

    monkeypatch.setitem(gpu.PARTS, "slow", (slow, slow))
    context = Context(Runtime(torch.device("cpu"), torch.float32), True, tmp_path)
    record = gpu.Record(tmp_path / "one.json")
    assert gpu.run(context, record, ["slow"], minutes=0.5 / 60)
    assert [(row["what"], row["note"]) for row in record.rows if "all of it" not in row["what"]] == [
        ("first", ""), ("slow", "stopped: no time left"), ("slow", "skipped: no time left")
    ]  # fmt: skip


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from benchmarks import gpu

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main([]) == 2
    assert "--device cpu --small" in capsys.readouterr().err
