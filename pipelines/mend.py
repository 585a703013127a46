"""What a killed dvc leaves, mended: the lock files that it writes in place, and temporary files in its cache.

Nothing that a stage has finished is lost: what dvc.lock no longer names, DVC's run cache brings back. While a dvc works
in this folder nothing is touched. docs/upstream.md tells what DVC could do about it.
"""

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from llm_i2i.files import remove, write_text
from llm_i2i.git import git
from llm_i2i.stages import STAGES

logger = logging.getLogger(__name__)

TMP = Path(".dvc/tmp")
RWLOCK = TMP / "rwlock"
TEMPORARY = re.compile(r".*\.[\w-]{22}\.tmp")  # dvc_objects.fs.utils.tmp_fname
# A cache elsewhere may be shared with projects that are copying into it.
OWN_FOLDERS = (Path(".dvc/cache"), Path("artifacts"), Path("reports"))
# What an entry of dvc.lock may say; the end of a file that was cut says something else.
KEYS = {"path", "md5", "hash", "size", "nfiles", "isexec", "etag", "version_id", "files", "cloud"}


def mend() -> list[str]:
    """Mend this folder; a second call finds nothing. A stage that outlived its dvc is waited for.

    Returns:
        One line for each thing mended; none as well while a dvc works here.
    """
    if not TMP.parent.is_dir():
        return []
    for process in _at_work():
        if _is_dvc(_words(process)) or any(_is_dvc(_words(parent)) for parent in process.parents()):
            logger.info("check: process %d works here: nothing is mended meanwhile", process.pid)
            return []
        logger.warning("check: a stage of a killed run is still at work (process %d): waiting for it", process.pid)
        process.wait()
    with _alone() as alone:
        told = [*_rwlock(), *_tracked(), *_leftovers()] if alone else []
    for line in told:
        logger.warning("mended: %s", line)
    return told


def _at_work() -> list[psutil.Process]:
    """Processes of DVC and of stages that work in this folder, without this one and those that started it."""
    here, own = str(Path.cwd()), {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        words = _words(process)
        if process.pid not in own and (_is_dvc(words) or _is_stage_command(words)):
            with suppress(psutil.Error):  # gone by now
                found += [process] if process.cwd() == here else []
    return found


def _words(process: psutil.Process) -> list[str]:
    """A process's command line; nothing of one that is gone, or somebody else's."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _is_dvc(words: list[str]) -> bool:
    return any(Path(word).name == "dvc" for word in words[:2]) or _runs_module(words) == "dvc"


def _is_stage_command(words: list[str]) -> bool:
    return _runs_module(words) == "pipelines" and bool(set(words) & set(STAGES))


def _runs_module(words: list[str]) -> str:
    """NAME of `python -m NAME`, with up to two options before."""
    return next((words[n + 1] for n in (1, 2, 3) if words[n : n + 1] == ["-m"] and len(words) > n + 1), "")


@contextmanager
def _alone() -> Iterator[bool]:
    """Hold DVC's own lock meanwhile, as DVC does (flock); False where another process has it."""
    TMP.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(TMP / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _rwlock() -> Iterator[str]:
    """DVC writes it in place: a kill leaves no JSON, or a process's number that another one may have by now."""
    try:
        held = json.loads(RWLOCK.read_text(encoding="utf-8"))
        if not held:
            return
        found = "names processes that have ended"
    except FileNotFoundError:
        return
    except ValueError:
        found = "was cut by a kill"
    RWLOCK.unlink()
    yield f"{RWLOCK} {found}: deleted"


def _tracked() -> Iterator[str]:
    """dvc.lock and data.dvc are written in place too."""
    for path, is_whole in ((Path("dvc.lock"), _is_lock), (Path("data.dvc"), _is_dvc_file)):
        if not path.is_file() or is_whole(path):
            continue
        committed = git("show", f"HEAD:./{path}")
        if committed:
            write_text(committed, path)
            done = "restored from the last commit"
        else:
            path.unlink()
            done = "deleted, as no commit has it"
        yield f"{path} was cut by a kill: {done}; DVC's run cache brings back every finished stage"


def _is_lock(path: Path) -> bool:
    """Whether a dvc.lock is whole: as its schema says, to the last line."""
    content = _yaml(path)
    stages = content.get("stages", {}) if isinstance(content, dict) and content.get("schema") == "2.0" else None
    return isinstance(stages, dict) and all(map(_is_stage, stages.values()))


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not stage.get("cmd"):
        return False
    entries = [stage[part] for part in ("deps", "outs") if part in stage]
    params = stage.get("params", {})
    return all(map(_are_entries, entries)) and isinstance(params, dict) and None not in params.values()


def _is_dvc_file(path: Path) -> bool:
    content = _yaml(path)
    return isinstance(content, dict) and _are_entries(content.get("outs"))


def _are_entries(entries: Any) -> bool:
    """Whether this is a list of paths with their hashes."""
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and "path" in entry and set(entry) <= KEYS and None not in entry.values()
        for entry in entries
    )


def _yaml(path: Path) -> Any:
    """Content of a YAML file that ends with a line feed, as DVC writes it; None of any other."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.safe_load(text) if text.endswith("\n") else None
    except (ValueError, yaml.YAMLError):
        return None


def _leftovers() -> Iterator[str]:
    """Files that DVC was copying: half a file each, under a name that nothing refers to."""
    found = [path for place in OWN_FOLDERS for path in place.rglob("*.tmp") if TEMPORARY.fullmatch(path.name)]
    size = 0
    for path in found:
        size += path.stat().st_size if path.is_file() else 0
        remove(path)
    if found:
        yield f"{len(found)} temporary file(s) of DVC, {size:,} bytes: deleted"
