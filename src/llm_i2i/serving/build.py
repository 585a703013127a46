"""From a source to the version that is served, and again whenever the source changes.

A version is made in a process of its own, so that neither its work nor its memory is felt where requests are answered.
"""

import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from llm_i2i import registry, signing
from llm_i2i.catalogue import read_text_vectors
from llm_i2i.dvc import Revision
from llm_i2i.errors import ArtifactError, LlmI2iError, one_message
from llm_i2i.files import file_sha256, json_sha256, remove
from llm_i2i.git import git_revision
from llm_i2i.i2i.export import current_version, load_redis, read_index
from llm_i2i.schema import FUSED, INTERACTIONS, ITEMS, SOURCE_REAL, read_table
from llm_i2i.serving.flat import FlatIndex
from llm_i2i.serving.state import DAMAGED, read_state, write_state
from llm_i2i.serving.write import HALF_LIFE, Content, write_version

log = logging.getLogger(__name__)

PROD = "prod"
INDEX_FILES = ("index.parquet", "manifest.json")
ITEMS_TABLE, VECTORS, TRAIN = "items/items.parquet", "text/vectors.npy", "split/train.parquet"  # in a run's folder
RETRY_SECONDS = 60.0
Place = Callable[[str], Path]  # of a table of a run
Part = TypeVar("Part")


@dataclass(frozen=True)
class Source:
    """Where an index comes from.

    Attributes:
        index: Folder artifacts/i2i/MODEL-ARM, redis://HOST:PORT/DB, or prod: the version that holds stage prod in the
            GTO registry, with all of its run's tables out of git and the DVC cache.
        prefix: First part of the Redis keys.
        artifacts: Folder artifacts of the run. What explains an edge lies there: the table that the index was trained
            on, and the same model's index of arm real; and the training interactions, with their times.
        half_life: After so many days an interaction counts half as popularity.
        catalogue: items.parquet; empty = that of the run.
        vectors: vectors.npy of stage encode_text; empty = that of the run. Without the file there are no
            recommendations by text.
        public_key: File of the key by which all that is served must be signed; empty = nothing is checked.
    """

    index: str
    prefix: str
    artifacts: str
    half_life: float = HALF_LIFE
    catalogue: str = ""
    vectors: str = ""
    public_key: str = ""

    @property
    def name(self) -> str:
        """What tells it from other sources; a hash, since an address may hold a password.

        With a key it is another source: what was built unchecked does not go on.
        """
        keys = [file_sha256(Path(self.public_key))] if self.public_key else []
        return json_sha256([self.index, self.prefix, *keys])

    def stamp(self) -> str:
        """What changes whenever the source does.

        Raises:
            ArtifactError: Redis cannot be reached.
        """
        files = [Path(path) for path in (self.catalogue, self.vectors, self.public_key) if path]
        version: str | None = None
        if self.index == PROD:
            version = registry.tags(next(iter(registry.models())))
        else:
            run = Path(self.artifacts)
            files += [run / name for name in (ITEMS_TABLE, VECTORS, TRAIN)]
            # Of which arm an index is, only reading it tells: any change of what could explain it counts.
            files += [*run.glob("fused/*.parquet"), *run.glob(f"i2i/*-{SOURCE_REAL}/*")]
            if "://" in self.index:
                version = current_version(self.index, prefix=self.prefix)
            else:
                files += [Path(self.index, name) for name in ("index.parquet", "manifest.json")]
                files.append(signature_of(Path(self.index)))
        return json_sha256([astuple(self), version, *map(_file_stamp, sorted(files))])

    def read(self) -> Content:
        """Everything that a version is made of.

        Raises:
            LlmI2iError: A part is missing or damaged; what only explains is left out instead, with a warning.
        """
        if "://" in self.index:
            if self.public_key:
                found = "is no source that can be checked with --public-key"
                raise ArtifactError(re.sub(r"//[^@/]*@", "//***@", self.index), found, "prod, or an index's folder")
            index, manifest = load_redis(self.index, prefix=self.prefix)
            return self._content(self._place(Path(self.artifacts).joinpath), index, manifest)
        place, run, facts, signature = _promoted() if self.index == PROD else self._of_folder()
        place = self._place(place)
        if not self.public_key:
            return self._content(place, *_index(place, run, facts))
        with signing.copied(run, _there(place, parts(run))) as folder:
            signing.check(folder, signature, Path(self.public_key), where=f"--index {self.index}")
            return self._content(folder.joinpath, *_index(folder.joinpath, run, facts))

    def _of_folder(self) -> tuple[Place, str, dict[str, Any], str]:
        """As `_promoted`, of an index's folder."""
        folder, signature = Path(self.index), signature_of(Path(self.index))

        def place(path: str) -> Path:
            parent, _, name = path.rpartition("/")
            return folder / name if parent == f"i2i/{folder.name}" else Path(self.artifacts, path)

        text = signature.read_text(encoding="utf-8", errors="replace") if signature.is_file() else ""
        return place, folder.name, {"git_revision": git_revision()}, text

    def _place(self, place: Place) -> Place:
        """Where tables are, of which some have a place of their own."""
        own = {ITEMS_TABLE: self.catalogue, VECTORS: self.vectors}
        return lambda path: Path(own[path]) if own.get(path) else place(path)

    def _content(self, place: Place, index: pd.DataFrame, manifest: dict[str, Any]) -> Content:
        items = read_table(place(ITEMS_TABLE), ITEMS)
        fused = _optional("explanations name no users", lambda: _fused(place, manifest))
        real = _optional("explanations do not compare with arm real", lambda: _real(place, manifest))
        train = _optional("popularity does not decay", lambda: read_table(place(TRAIN), INTERACTIONS))
        vectors = _optional("new items have no neighbours by text", lambda: _vectors(place))
        return Content(
            index, manifest, items, None if vectors is None else read_text_vectors(vectors, items),
            fused, real, train, self.half_life,
        )  # fmt: skip


def parts(run: str) -> list[str]:
    """Paths, in a run's folder artifacts, of all that is served with the index MODEL-ARM: what a signature covers."""
    model, _, arm = run.partition("-")
    indexes = {f"i2i/{name}/{file}" for name in (run, f"{model}-{SOURCE_REAL}") for file in INDEX_FILES}
    return sorted(indexes | {ITEMS_TABLE, VECTORS, TRAIN, f"fused/{arm}.parquet"})


def signature_of(folder: Path) -> Path:
    """Where the signature of an index's folder lies: beside it, since the folder is DVC's."""
    return folder.with_name(f"{folder.name}.sig")


def _there(place: Place, names: list[str]) -> dict[str, Path]:
    """Those of some tables that there are."""
    found: dict[str, Path] = {}
    for name in names:
        with suppress(ArtifactError):
            if (path := place(name)).is_file():
                found[name] = path
    return found


def _index(place: Place, run: str, facts: Mapping[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """An index and its manifest, to which facts are added."""
    index, manifest = read_index(*(place(f"i2i/{run}/{name}") for name in INDEX_FILES))
    return index, {**manifest, **facts}


def _vectors(place: Place) -> Path:
    path = place(VECTORS)
    if not path.exists():
        raise ArtifactError(str(path), "no such file", fix="run `dvc repro encode_text`")
    return path


def _promoted() -> tuple[Place, str, dict[str, Any], str]:
    """The version that holds stage prod, as git and the DVC cache have it.

    Returns:
        Where its tables are; name of its run; what its manifest does not tell; its signature.
    """
    model = next(iter(registry.models()))
    champion = registry.champion(model)
    if champion is None:
        raise ArtifactError("--index prod", "no version holds stage prod", fix="run `python -m pipelines promote`")
    revision, run = Revision(champion.commit), registry.run_at(champion.commit)

    def place(path: str) -> Path:
        return revision.output(f"artifacts/{path}")

    metrics = revision.json(f"reports/metrics/{run}.json")
    facts = {"registered": champion.name, "git_revision": champion.commit, "metrics": metrics}
    return place, run, facts, registry.signature(model, champion.name)


def _fused(place: Place, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The table that the index was trained on."""
    path = place(f"fused/{manifest.get('arm')}.parquet")
    table = read_table(path, FUSED)
    if file_sha256(path) != manifest.get("fused_sha256"):
        raise ArtifactError(str(path), "is not what the index was trained on", fix="run `dvc repro train_i2i`")
    return table


def _real(place: Place, manifest: Mapping[str, Any]) -> pd.DataFrame | None:
    """The same model's index of arm real; none is needed for arm real itself."""
    if manifest.get("arm") == SOURCE_REAL:
        return None
    folder = f"i2i/{manifest.get('model')}-{SOURCE_REAL}"
    index, facts = read_index(place(f"{folder}/index.parquet"), place(f"{folder}/manifest.json"))
    for name in ("params", "items_sha256"):
        if facts.get(name) != manifest.get(name):
            raise ArtifactError(folder, f"has other {name}", "those of the index", "run `dvc repro train_i2i`")
    return index


def source_of(options: Namespace, index: str) -> Source:
    """The source that a command line names for an index.

    Raises:
        LlmI2iError: An option is out of range.
    """
    if not options.half_life > 0:
        raise LlmI2iError("--half-life", f"is {options.half_life}", "more than 0 days")
    if options.public_key and not Path(options.public_key).is_file():
        raise LlmI2iError("--public-key", f"no file {options.public_key}", "a public key in PEM")
    tables = (options.artifacts, options.half_life, options.catalogue, options.vectors)
    return Source(index, options.prefix, *tables, options.public_key)


def build(source: Source, store: Path) -> None:
    """Make the source's version the one that counts; the one before stays for requests that still use it.

    Raises:
        LlmI2iError: The source is missing or damaged; what counted before still does.
    """
    stamp = source.stamp()
    before = read_state(store).get("version")
    version = write_version(source.read(), store / "versions")
    built = str(time.time_ns())  # tells workers of a version that has been repaired
    write_state(store, version=version, built=built, stamp=stamp, source=source.name, refused="")
    for folder in (store / "versions").iterdir():
        if folder.name not in (version, before):
            remove(folder)


@contextmanager
def opened(source: Source) -> Iterator[FlatIndex]:
    """The source's version for this process alone.

    Raises:
        ArtifactError: The source is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield FlatIndex(Path(folder) / write_version(source.read(), Path(folder)))


class Follower:
    """Makes a version whenever the source has changed.

    Args:
        source: Where the index comes from.
        store: Folder of the versions.
        build: Makes the version; by default in another process.
    """

    def __init__(self, source: Source, store: Path, build: Callable[[Source, Path], None] | None = None) -> None:
        self._source, self._store, self._build = source, store, build or build_apart
        self._refused, self._refused_at = "", 0.0

    def update(self) -> None:
        """Look once. A source that was refused is tried again when it has changed, or after a while."""
        state, damaged, stamp = read_state(self._store), self._store / DAMAGED, ""
        try:
            stamp = self._source.stamp()
            if stamp == state.get("stamp") and not damaged.exists():
                if state["refused"]:
                    write_state(self._store, refused="")
            elif stamp != self._refused or time.monotonic() > self._refused_at + RETRY_SECONDS:
                self._build(self._source, self._store)
                damaged.unlink(missing_ok=True)
        except LlmI2iError as error:
            self._refused, self._refused_at = stamp, time.monotonic()
            reason = re.sub(r"//[^@/\s]*@", "//***@", str(error))  # no password of Redis
            if reason != state.get("refused"):
                log.error("serve: the index is refused, the one before goes on: %s", reason)  # noqa: TRY400
                write_state(self._store, refused=reason)

    def start(self, *, needed: bool = True) -> None:
        """Look for the first time.

        Raises:
            LlmI2iError: The source is needed and cannot be used, and there is no earlier version of it.
        """
        self.update()
        state = read_state(self._store)
        if needed and (state.get("version") is None or state["source"] != self._source.name):
            raise LlmI2iError("serve", state["refused"])

    def run(self, seconds: float) -> None:
        """Look every so many seconds, for ever."""
        while True:
            time.sleep(seconds)
            try:
                with one_message("serve"):
                    self.update()
            except LlmI2iError as error:  # a full disk, say; the next look may succeed
                log.error("serve: looking for another index failed: %s", error)  # noqa: TRY400
            except Exception:
                log.exception("serve: looking for another index failed")


def build_apart(source: Source, store: Path) -> None:
    """`build` in a process of its own.

    Raises:
        LlmI2iError: As `build`, or the process died.
    """
    command = [sys.executable, "-m", "llm_i2i.serving.build", json.dumps(astuple(source)), str(store)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)  # noqa: S603 - no shell
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with exit status {done.returncode}"]
        raise LlmI2iError("build", lines[-1].removeprefix("error: ").removeprefix("build: "))
    sys.stderr.write(done.stderr)


def _file_stamp(path: Path) -> list[str | int]:
    """A file's name, size and time; only its name if there is none."""
    try:
        found = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns]


def _optional(without: str, read: Callable[[], Part]) -> Part | None:
    """What a version can do without; a warning says what it then cannot do, and why."""
    try:
        return read()
    except ArtifactError as error:
        log.warning("serve: %s: %s", without, error)
        return None


def main() -> int:
    """Build as told by two arguments: the source as JSON, and the store."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        with one_message("build"):
            build(Source(*json.loads(sys.argv[1])), Path(sys.argv[2]))
    except LlmI2iError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
