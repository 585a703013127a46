"""`python -m tests.faults.run SCENARIO FOLDER [LIMIT]` under LD_PRELOAD of faults.c: an action meets every fault.

For a full disk, a failing disk and a kill (which takes what was not flushed), and for every n until the action no
longer reaches the n-th: start from the old state, let the action meet its fault in a forked process, then look. Each
output must be the old one or the new one to the last byte, and an error one line of ours that names a path. A second,
undisturbed run must end as if nothing had been, without temporary files. Prints what it found as JSON.
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llm_i2i.errors import LlmI2iError

KINDS = {"full disk": errno.ENOSPC, "failing disk": errno.EIO, "kill": 0}
FINE, REFUSED, TRACEBACK = 0, 3, 4


@dataclass(frozen=True)
class Scenario:
    """An action and what it writes.

    Attributes:
        work: Folder of all that it reads and writes, in the old state.
        act: Writes the new state; runs in a process of its own.
        outputs: Files and folders that must be old or new, relative to `work`.
        state: Instead of `outputs`: names the state, to be `old` or `new`.
        reset: Instead of copying the old state of `work`.
        faults: Prefix of the paths that fail; `socket:` for connections.
    """

    work: Path
    act: Callable[[], object]
    outputs: tuple[str, ...] = ()
    state: Callable[[], str] | None = None
    reset: Callable[[], object] | None = None
    faults: str = ""


@dataclass
class Found:
    """What the injections led to.

    Attributes:
        counts: By kind of fault and outcome.
        problems: Everything that must not be.
    """

    counts: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def digest(path: Path) -> str:
    """Name of a file's or folder's content; `none` without it."""
    if not path.exists():
        return "none"
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            found.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return found.hexdigest()


def forked(act: Callable[[], object], faults: str = "", n: int = -1, kind: int = 0) -> tuple[int, int, str]:
    """Run in a child; its exit status (negative: the signal), the faults it could have met, and what it said."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        status, said = FINE, ""
        try:
            shim.faults_arm(faults.encode(), ctypes.c_long(n), kind)
            act()
        except LlmI2iError as error:
            status, said = REFUSED, str(error)
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            status, said = TRACEBACK, traceback.format_exc()
        shim.faults_count.restype = ctypes.c_long
        count = shim.faults_count()
        shim.faults_arm(b"", ctypes.c_long(-1), 0)
        os.write(write, json.dumps([count, said[-3000:]]).encode())
        os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    count, said = json.loads(told) if told else (n, "")
    return os.waitstatus_to_exitcode(status), count, said


@dataclass
class Injection:
    """One scenario under every fault."""

    scenario: Scenario
    found: Found = field(default_factory=Found)

    def __post_init__(self) -> None:
        work = self.scenario.work
        self.kept = work.with_name(work.name + ".old")
        if self.scenario.reset is None:
            shutil.copytree(work, self.kept, symlinks=True)
        self.faults = self.scenario.faults or f"{work}/"

    def reset(self) -> None:
        """Bring the old state back."""
        if self.scenario.reset is not None:
            self.scenario.reset()
            return
        shutil.rmtree(self.scenario.work)
        shutil.copytree(self.kept, self.scenario.work, symlinks=True)

    def state(self) -> dict[str, str]:
        """What is there, by output."""
        if self.scenario.state is not None:
            return {"state": self.scenario.state()}
        return {name: digest(self.scenario.work / name) for name in self.scenario.outputs}

    def run(self, limit: int = 0) -> Found:
        """Every fault of every kind; with `limit` at most so many of each, evenly spread."""
        self.reset()
        self.old = self.state()
        status, total, said = forked(self.scenario.act, self.faults, 1 << 40)
        if status != FINE:
            self.found.problems.append(f"undisturbed: {said}")
            return self.found
        self.new = self.state()
        for kind, code in KINDS.items():
            for n in range(1, total + 1, max(1, total // limit) if limit else 1):
                self.reset()
                outcome = forked(self.scenario.act, self.faults, n, code)
                problems = [*self.judge(kind, outcome[0], outcome[2]), *self.judge_next_run()]
                self.found.problems += [f"{kind}, {n} of {total}: {problem}" for problem in problems]
        return self.found

    def judge(self, kind: str, status: int, said: str) -> Iterator[str]:
        """What must not be after the fault."""
        now = self.state()
        for name, value in now.items():
            if value not in (self.old[name], self.new[name]):
                yield f"{name} is neither old nor new: {value}"
        if status not in (FINE, REFUSED, -signal.SIGKILL):
            yield f"status {status}: {said}"
        if status == FINE and now != self.new:
            yield "no error, and not the new state"
        outcome = {FINE: "no matter", REFUSED: "refused"}.get(status, "killed")
        which = "new" if now == self.new else "old" if now == self.old else "some outputs new"
        self.found.counts[f"{kind}: {outcome}, {which}"] += 1

    def judge_next_run(self) -> Iterator[str]:
        """What must not be after an undisturbed run that follows."""
        status, _, said = forked(self.scenario.act)
        if status != FINE or self.state() != self.new:
            yield f"the next run ends with {status} and another state: {said}"
        if left := [str(path) for path in self.scenario.work.rglob("*.partial")]:
            yield f"the next run leaves {left}"


def main() -> None:
    from tests.faults import scenarios

    name, folder, *limit = sys.argv[1:]
    work = Path(folder).resolve() / "work"
    work.mkdir(parents=True)
    found = Injection(getattr(scenarios, name)(work)).run(*map(int, limit))
    print(json.dumps({"counts": dict(sorted(found.counts.items())), "problems": found.problems}))  # noqa: T201


if __name__ == "__main__":
    main()
