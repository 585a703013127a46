"""`python -m pipelines verify`: read everything that a hash was recorded of, and name what has another one by now.

DVC itself notices no bit that flips in its cache or, unless its size or time changes, in the workspace.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from llm_i2i import registry
from llm_i2i.dvc import cached, outs_at
from llm_i2i.errors import ArtifactError, LlmI2iError
from llm_i2i.files import content_md5, file_sha256, is_sealed, read_json
from llm_i2i.git import git
from llm_i2i.i2i.export import load_jsonl, load_redis, manifest_of, read_index
from llm_i2i.i2i.index import index_sha256
from pipelines.release import signatures
from steps import paths

logger = logging.getLogger(__name__)
LOCK, DATA = Path("dvc.lock"), Path("data.dvc")


class Difference(NamedTuple):
    """What is not as recorded, and what to do."""

    where: str
    found: str
    repair: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}; {self.repair}"


@dataclass(frozen=True)
class Recorded:
    """An output that dvc.lock or data.dvc records.

    Attributes:
        path: File or folder.
        md5: As DVC writes it, with suffix `.dir` for a folder.
        is_cached: Whether DVC keeps it in its cache.
        again: The command that makes it anew.
    """

    path: Path
    md5: str
    is_cached: bool
    again: str


def verify(exported: Sequence[str] = (), *, prefix: str, public_key: Path | None = None) -> bool:
    """Compare everything, and log each difference with its repair.

    Args:
        exported: Exports of an index: FILE.jsonl or redis://HOST:PORT/DB.
        prefix: First part of the Redis keys.
        public_key: Of the signatures of what is promoted; None = they are not checked.

    Returns:
        Whether all is as recorded.
    """
    recorded = [*_recorded()]
    found = [difference for entry in recorded for difference in _output(entry)]
    found += [*_chain(recorded), *_indexes(recorded), *_promoted(public_key), *_verdict(), *_seeds()]
    found += [difference for place in exported for difference in _exported(place, prefix)]
    for difference in found:
        logger.error("verify: %s", difference)
    logger.info("verify: %d outputs and %d export(s): %d difference(s)", len(recorded), len(exported), len(found))
    return not found


def _recorded() -> Iterator[Recorded]:
    """Raises ArtifactError where a file that records is missing or damaged."""
    if DATA.is_file():
        for out in _read(DATA, "outs"):
            again = "restore it from where it came from, or `dvc pull data.dvc`"
            yield Recorded(DATA.parent / out["path"], out["md5"], is_cached=True, again=again)
    uncached = _uncached()
    for name, stage in _read(LOCK, "stages").items():
        for out in stage.get("outs", []):
            again = f"`dvc repro --force --single-item {name}`"
            yield Recorded(Path(out["path"]), out["md5"], is_cached=out["path"] not in uncached, again=again)


def _read(path: Path, key: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        fix = f"restore it with `git checkout {path}`, or run `python -m pipelines check`"
        raise ArtifactError(str(path), f"cannot be read ({error})", "a file of DVC", fix) from error


def _uncached() -> set[str]:
    """Outputs that git keeps: `cache: false` of dvc.yaml."""
    written = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found = set()
    for stage in written.values():
        for entry in (*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])):
            options = entry if isinstance(entry, dict) else {}
            found |= {path for path, values in options.items() if (values or {}).get("cache") is False}
    names = {path for path in found if "${" not in path}
    folders = {path.rpartition("/")[0] for path in found - names}  # a matrix's: all that lie in one folder
    locked = [out["path"] for stage in _read(LOCK, "stages").values() for out in stage.get("outs", [])]
    return names | {path for path in locked if path.rpartition("/")[0] in folders}


def _output(entry: Recorded) -> Iterator[Difference]:
    """An output in the workspace and in the cache."""
    good = entry.path.exists() and content_md5(entry.path) == entry.md5
    # Of what git keeps, the cache may have a copy.
    broken = [(path, found) for path, found in _objects(entry.md5) if entry.is_cached or path.exists()]
    if not good:
        found = "is not what was recorded" if entry.path.exists() else "is missing"
        restore = entry.again if broken or not entry.is_cached else f"`dvc checkout --force {entry.path}`"
        yield Difference(str(entry.path), found, restore)
    for path, found in broken:
        repair = "`dvc commit --force`" if good else f"`dvc pull` or {entry.again}"
        yield Difference(f"{path} ({entry.path})", found, f"delete it, then {repair}" if path.exists() else repair)


def _objects(md5: str) -> Iterator[tuple[Path, str]]:
    """Objects of the cache that are missing or whose content is not their name."""
    path = cached(md5)
    assert path is not None  # noqa: S101 - `md5` is not empty
    if not path.is_file():
        yield path, "is not in the cache"
    elif content_md5(path) != md5.removesuffix(".dir"):
        yield path, "is damaged: its content is not its name"
    elif md5.endswith(".dir"):
        for listed in json.loads(path.read_text(encoding="utf-8")):
            yield from _objects(listed["md5"])


def _chain(recorded: list[Recorded]) -> Iterator[Difference]:
    """What a stage read is what another one wrote."""
    written = {entry.path.as_posix(): entry.md5 for entry in recorded}
    for name, stage in _read(LOCK, "stages").items():
        for dep in stage.get("deps", []):
            made = written.get(dep["path"])
            if made is not None and made != dep.get("md5"):
                yield Difference(f"{LOCK}, {name}", f"read another {dep['path']} than there is", f"`dvc repro {name}`")


def _indexes(recorded: list[Recorded]) -> Iterator[Difference]:
    """An index has the content hash that its manifest says."""
    for entry in recorded:
        if entry.path.parent != paths.I2I or not entry.path.is_dir():
            continue
        try:
            read_index(entry.path / "index.parquet", entry.path / "manifest.json")
        except LlmI2iError:
            yield Difference(str(entry.path), "index and manifest do not belong together", entry.again)


def _promoted(public_key: Path | None) -> Iterator[Difference]:
    """Every version that holds stage prod is in git and, whole, in the cache, and, given a key, as it was signed."""
    for name, model in registry.models().items():
        version = registry.champion(name)
        if version is None:
            continue
        where, path = f"{name} {version.name}", _resolved(model.get("path", ""), version.commit)
        md5 = outs_at(version.commit).get(path)
        if md5 is None:
            yield Difference(where, f"commit {version.commit[:12]} records no {path}", "promote another version")
            continue
        for place, found in _objects(md5):
            yield Difference(f"{where}, {place}", found, f"delete it, then `dvc pull` at {version.commit[:12]}")
        try:
            if public_key is not None:
                signatures.check(name, version, path, public_key)
        except ArtifactError as error:
            yield Difference(error.where, error.found, "promote it again, with `--signing-key`")


def _resolved(path: str, commit: str) -> str:
    """A path of dvc.yaml with `${gate.model}` and the like as a commit's params.yaml has them."""
    gate = registry.gate_at(commit)
    return re.sub(r"\$\{gate\.(\w+)\}", lambda found: str(gate.get(found[1])), path)


def _verdict() -> Iterator[Difference]:
    """The gate's answer is whole, and about the index of its commit; what serves is what passed."""
    again = "run `python -m pipelines gate` again"
    if not paths.GATE.is_file():
        return
    try:
        gate = read_json(paths.GATE)
    except ArtifactError as error:
        yield Difference(str(paths.GATE), error.found, again)
        return
    if not is_sealed(gate):
        yield Difference(str(paths.GATE), "is damaged or of an older release: its content is not its hash", again)
        return
    index = (paths.I2I / gate["model"]).as_posix()
    if not gate["uncommitted"] and outs_at(gate["commit"]).get(index) != gate["index_md5"]:
        yield Difference(str(paths.GATE), f"is about another {index} than its commit records", again)
    champion = registry.champion(next(iter(registry.models())))
    if champion is not None and champion.commit == gate["commit"] and not gate["passed"]:
        yield Difference(f"version {champion.name}", "serves, and the gate has not passed it", "roll back")


def _seeds() -> Iterator[Difference]:
    """Results under the gate's seeds are those that git keeps."""
    for line in (git("status", "--porcelain", "--", str(paths.SEEDS)) or "").splitlines():
        repair = f"`git checkout {line[3:]}`, or commit it if it is new"
        yield Difference(line[3:], "differs from the last commit", repair)


def _exported(place: str, prefix: str) -> Iterator[Difference]:
    """An export has the hashes that its manifest says, and so has the manifest."""
    again = "run `llm-i2i export` again"
    try:
        if "://" in place:
            index, manifest = load_redis(place, prefix=prefix)
        else:
            index, manifest = load_jsonl(Path(place)), read_json(manifest_of(Path(place)), fix="")
            if manifest["file_sha256"] != file_sha256(Path(place)):
                yield Difference(place, "is damaged: its content is not its hash", again)
    except (LlmI2iError, OSError, KeyError) as error:
        yield Difference(place, str(error), again)
        return
    if not is_sealed(manifest) or index_sha256(index) != manifest["content_sha256"]:
        yield Difference(place, "is damaged: index or manifest is not its hash", again)
