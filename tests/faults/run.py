"""An action meets every fault, under LD_PRELOAD of faults.c.

For a full disk, a failing disk and a kill (which takes what was not flushed), and for every n until the action no
longer reaches the n-th: start from the old state, let the action meet its fault in a forked process, then look. Each
output must be the old one or the new one to the last byte, and an error one message of ours that names the path. A
second, undisturbed run must end as if nothing had been, without temporary files; where two faults leave the same files
behind, to the byte, it is run once.
"""

import ctypes
import errno
import hashlib
import io
import os
import random
import re
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from llm_i2i.errors import LlmI2iError

KINDS = {"full disk": errno.ENOSPC, "failing disk": errno.EIO, "kill": 0}
MEGABYTES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # that a run out of memory may still take
FINE, REFUSED, TRACEBACK = 0, 3, 4
HANGS = 300  # seconds after which an action is stopped, which is no outcome; OpenBLAS tries long for memory
PARTIAL = re.compile(r"(\.\d+\.partial)+")


class RefusedError(Exception):
    """A command line ended with an error of ours."""


@dataclass(frozen=True)
class Scenario:
    """An action and what it writes.

    Attributes:
        work: Folder of all that it reads and writes, in the old state; the action runs in it.
        act: Writes the new state; runs in a process of its own.
        outputs: Files and folders that must be old or new, relative to `work`.
        state: Instead of `outputs`: names each part of the state.
        reset: Instead of copying the old state of `work`.
        faults: Prefix of the paths that fail; `socket:` for connections.
        volatile: Files that differ from run to run, relative to `work`: they are no state.
        names_paths: Whether errors are ours, which name the path that failed.
        known_as: Folder of what is written under another name than it gets: an error that names a path there will do.
    """

    work: Path
    act: Callable[[], object]
    outputs: tuple[str, ...] = ()
    state: Callable[[], dict[str, str]] | None = None
    reset: Callable[[], object] | None = None
    faults: str = ""
    volatile: tuple[str, ...] = ()
    names_paths: bool = True
    known_as: str = ""


@dataclass
class Found:
    """What the injections led to.

    Attributes:
        possible: Writes, flushes, renames and creations of one undisturbed run, times the kinds of fault.
        outcomes: How many, by kind of fault and what there was afterwards.
        problems: Everything that must not be.
    """

    possible: int = 0
    outcomes: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """How an action ended.

    Attributes:
        status: Exit status; negative: the signal.
        count: Faults it could have met.
        paths: Where it met its fault; a full disk stays full, and is met again.
        said: Its error.
    """

    status: int
    count: int
    paths: list[str]
    said: str


def command(main: Callable[[list[str]], int], *arguments: str) -> None:
    """Run a command line in this process; its error of ours, one message, is raised."""
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        status = main(list(arguments))
    errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    if status == 2 and len(errors) == 1:
        raise RefusedError(errors[0])
    assert not status, said.getvalue()


def digest(path: Path, volatile: tuple[str, ...] = ()) -> str:
    """Name of a file's or folder's content; `none` without it."""
    if not path.exists():
        return "none"
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = PARTIAL.sub(".partial", str(file.relative_to(path)))
        if file.is_file() and not any(name.startswith(part) for part in volatile):
            found.update(f"{name}\0".encode() + file.read_bytes())
    return found.hexdigest()


class Shim:
    """faults.c, preloaded."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.library.faults_count.restype = ctypes.c_long
        self.library.faults_paths.restype = ctypes.c_char_p

    def run(
        self, act: Callable[[], object], faults: str = "", n: int = -1, kind: int = 0, megabytes: int = 0
    ) -> Outcome:
        """Run in a child, in a group of its own, which meets the n-th fault."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            os.setpgid(0, 0)
            signal.alarm(HANGS)
            status, said = FINE, ""
            free = resource.getrlimit(resource.RLIMIT_AS)[1]
            try:
                self.library.faults_arm(faults.encode(), ctypes.c_long(n), kind)
                if megabytes:
                    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
                    most = pages * resource.getpagesize() + megabytes * 2**20
                    resource.setrlimit(resource.RLIMIT_AS, (most, free))
                act()
            except (LlmI2iError, RefusedError) as error:
                status, said = REFUSED, str(error)
            except BaseException:  # noqa: BLE001 - whatever it is, it is told
                resource.setrlimit(resource.RLIMIT_AS, (free, free))  # room to tell it
                status, said = TRACEBACK, traceback.format_exc()
            os.write(write, said[-3000:].encode())
            os._exit(status)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
        count, paths = self.library.faults_count(), self.library.faults_paths().decode().splitlines()
        self.library.faults_arm(b"", ctypes.c_long(-1), 0)
        return Outcome(os.waitstatus_to_exitcode(status), count, paths, said)


@dataclass
class Injection:
    """One scenario under every fault."""

    scenario: Scenario
    found: Found = field(default_factory=Found)

    def __post_init__(self) -> None:
        self.shim, self.work = Shim(), self.scenario.work
        self.kept = self.work.with_name(self.work.name + ".old")
        if self.scenario.reset is None:
            shutil.copytree(self.work, self.kept, symlinks=True)
        self.faults = self.scenario.faults or f"{self.work}/"
        self.seen: dict[str, list[str]] = {}

    def reset(self) -> None:
        """Bring the old state back."""
        if self.scenario.reset is not None:
            self.scenario.reset()
            return
        shutil.rmtree(self.work)
        shutil.copytree(self.kept, self.work, symlinks=True)

    def act(self) -> None:
        os.chdir(self.work)
        self.scenario.act()

    def state(self) -> dict[str, str]:
        """What is there, by output."""
        if self.scenario.state is not None:
            return self.scenario.state()
        return {name: digest(self.work / name) for name in self.scenario.outputs}

    def run(self, limit: int = 0, seconds: float = 1e9) -> Found:
        """Every fault of every kind: the first n, the last, then the others in random order.

        Args:
            limit: So many of each kind; 0 = all.
            seconds: None begins after so many.
        """
        started = time.monotonic()
        self.reset()
        self.old = self.state()
        undisturbed = self.shim.run(self.act, self.faults, 1 << 40)
        if undisturbed.status != FINE:
            self.found.problems.append(f"undisturbed: {undisturbed.said}")
            return self.found
        self.new = self.state()
        self.found.possible = undisturbed.count * len(KINDS)
        order = [*range(1, undisturbed.count + 1)]
        random.Random(0).shuffle(order)
        for n in [*dict.fromkeys((1, undisturbed.count, *order))][: limit or None]:
            for kind, code in KINDS.items():
                if time.monotonic() > started + seconds:
                    return self.found
                self.reset()
                outcome = self.shim.run(self.act, self.faults, n, code)
                where = f"{kind}, {n} of {undisturbed.count} ({''.join(outcome.paths[:1]).removeprefix(self.faults)})"
                self.note(kind, where, outcome)
        return self.found

    def run_out_of_memory(self) -> Found:
        """The action with ever more memory, as far as it is refused; call `run` first."""
        for megabytes in MEGABYTES:
            self.reset()
            outcome = self.shim.run(self.act, megabytes=megabytes)
            self.note("no memory", f"{megabytes} MB", outcome)
            if outcome.status == FINE:
                break
        return self.found

    def note(self, kind: str, where: str, outcome: Outcome) -> None:
        """Judge one fault."""
        problems = [*self.judge(kind, outcome), *self.judge_next_run()]
        self.found.problems += [f"{where}: {problem}" for problem in problems]

    def judge(self, kind: str, outcome: Outcome) -> Iterator[str]:
        """What must not be after the fault."""
        now = self.state()
        for name, value in now.items():
            if value not in (self.old[name], self.new[name]):
                yield f"{name} is neither old nor new: {value}"
        aborted = kind == "no memory" and outcome.status in (1, -signal.SIGABRT, -signal.SIGSEGV)  # by a library in C
        if outcome.status not in (FINE, REFUSED, -signal.SIGKILL) and not aborted:
            yield f"status {outcome.status}: {outcome.said}"
        if outcome.status == FINE and now != self.new:
            yield "no error, and not the new state"
        if outcome.status == REFUSED and self.scenario.names_paths and not self.is_named(outcome):
            yield f"the error does not name the path: {outcome.said}"
        ended = {FINE: "no matter", REFUSED: "refused"}.get(outcome.status, "aborted" if aborted else "killed")
        which = "new" if now == self.new else "old" if now == self.old else "some outputs new"
        self.found.outcomes[f"{kind}: {ended}, {which}"] += 1

    def is_named(self, outcome: Outcome) -> bool:
        """Whether an error names a path that failed, a folder that it lies in, or what was to lie in it."""
        failed = [Path(PARTIAL.sub("", path)) for path in outcome.paths if path.startswith(f"{self.work}/")]
        words = {self.work / word.rstrip(":;,.") for word in outcome.said.replace("'", " ").split() if "/" in word}
        # The folder of all says nothing.
        related = {part for path in failed for part in (path, *path.parents)} - {self.work, *self.work.parents}
        known_as = self.work / self.scenario.known_as
        return (
            not failed  # a connection, or no memory
            or (known_as != self.work and any(known_as in word.parents for word in words))
            or any(word in related or set(failed) & set(word.parents) for word in words)
            or any(path.name in outcome.said for path in failed)
        )

    def judge_next_run(self) -> Iterator[str]:
        """What must not be after an undisturbed run that follows."""
        left = digest(self.work, self.scenario.volatile)
        if self.scenario.reset is not None or left not in self.seen:
            self.seen[left] = [*self._next_run()]
        yield from self.seen[left]

    def _next_run(self) -> Iterator[str]:
        outcome = self.shim.run(self.act)
        if outcome.status != FINE or self.state() != self.new:
            yield f"the next run ends with {outcome.status} and another state: {outcome.said}"
        if left := [str(path) for path in self.work.rglob("*.partial")]:
            yield f"the next run leaves {left}"
