"""The index for those who serve it: JSON lines or Redis, exact to the last bit of every score.

An export appears whole or not at all, and is read back and compared before it counts as done.
A float32 score is written as the shortest decimal of the equal float64; reading it as a double and
narrowing it to float32 gives the same bits.

JSON lines: `{"item_id": ..., "neighbours": [[neighbour_id, score], ...]}`, best first; FILE.manifest.json beside.
Redis: PREFIX:VERSION:item:ITEM_ID holds `[[neighbour_id, score], ...]` as JSON, PREFIX:VERSION:items the ids,
PREFIX:VERSION:manifest the manifest; PREFIX:current names the version that counts and is set last.
A reader takes PREFIX:current once per request, so that it never mixes two versions.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pandas as pd

from llm_i2i.errors import ArtifactError, needs_extra
from llm_i2i.files import file_sha256, read_json, sealed, staged, write_json, writing
from llm_i2i.i2i.index import index_sha256
from llm_i2i.schema import INDEX, ITEM_ID, read_table

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

BATCH = 1_000
Neighbours = list[list[Any]]
Entry = TypeVar("Entry")


def read_index(table: Path, manifest: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """An index and its manifest, as stage train_i2i writes them.

    Args:
        table: index.parquet.
        manifest: manifest.json.

    Raises:
        ArtifactError: One is missing or unreadable, or they do not fit each other.
    """
    facts = read_json(manifest, fix="run `dvc repro train_i2i`")
    index = read_table(table, INDEX)
    if index_sha256(index) != facts.get("content_sha256"):
        raise ArtifactError(str(table), "is not what manifest.json says", fix="run `dvc repro train_i2i`")
    return index, facts


def export_jsonl(index: pd.DataFrame, manifest: Mapping[str, Any], path: Path) -> None:
    """Write an index as JSON lines and its manifest beside it.

    Args:
        index: `schema.INDEX`.
        manifest: What to tell about it; `content_sha256` and `rows` are added.
        path: File to write; it changes only once the whole export has been verified.

    Raises:
        ArtifactError: What was written does not read back as the index.
        WriteError: The disk refuses.
    """
    index = _ordered(index)
    with staged(path, is_folder=False) as lines:
        with writing(path), lines.open("w", encoding="utf-8") as file:
            for item, neighbours in _by_item(index):
                file.write(_json({ITEM_ID: item, "neighbours": neighbours}) + "\n")
        _verify(index, load_jsonl(lines), str(path))
    # A reader that finds another hash in it than that of the lines has come between the two files.
    write_json(sealed({**_described(index, manifest), "file_sha256": file_sha256(path)}), manifest_of(path))
    log.info("export: %s neighbours -> %s", f"{len(index):,}", path)


def manifest_of(path: Path) -> Path:
    """Where an export keeps its manifest."""
    return path.with_name(path.name + ".manifest.json")


def load_jsonl(path: Path) -> pd.DataFrame:
    """Read what `export_jsonl` wrote.

    Returns:
        `schema.INDEX`, in the order of the lines.

    Raises:
        ArtifactError: A line is no item with its neighbours.
    """
    entries: list[tuple[str, Neighbours]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                entries.append((entry[ITEM_ID], entry["neighbours"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ArtifactError(f"{path}, line {number}", f"is no item ({error!r})") from error
    return _table(entries, str(path))


def export_redis(index: pd.DataFrame, manifest: Mapping[str, Any], url: str, *, prefix: str) -> str:
    """Write an index to Redis as a new version, verify it, and only then let PREFIX:current name it.

    The version replaced stays for readers that have just begun and for a roll-back; older ones are deleted. An
    export of the version that already counts is verified and written again.

    Args:
        index: `schema.INDEX`.
        manifest: As of `export_jsonl`.
        url: `redis://HOST:PORT/DB`.
        prefix: First part of every key.

    Returns:
        The version: the first 16 digits of the index's content hash.

    Raises:
        ArtifactError: Redis cannot be reached or refuses, or what it holds does not read back as the index.
    """
    index = _ordered(index)
    described = _described(index, manifest)
    version = str(described["content_sha256"])[:16]
    with _connected(url) as client:
        before = client.get(f"{prefix}:current")
        _delete_old(client, prefix)  # what a killed export has left takes the room of this one
        try:
            _write(client, f"{prefix}:{version}", index, described)
            _verify(index, _read(client, f"{prefix}:{version}", url)[0], url)
        except Exception:
            with suppress(Exception):  # a full server has room again; one that is gone says so by the first error
                _delete_old(client, prefix)
            raise
        pipeline = client.pipeline(transaction=True)
        if before not in (None, version):
            pipeline.set(f"{prefix}:previous", cast("str", before))
        pipeline.set(f"{prefix}:current", version).execute()
        _delete_old(client, prefix)
    log.info("export: %s neighbours -> %s, %s:%s", f"{len(index):,}", url, prefix, version)
    return version


def load_redis(url: str, *, prefix: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the version that counts.

    Returns:
        `schema.INDEX` sorted by item id and rank, and its manifest.

    Raises:
        ArtifactError: Redis cannot be reached, has no index under the prefix, or lost a part of it.
    """
    with _connected(url) as client:
        version = client.get(f"{prefix}:current")
        if version is None:
            raise ArtifactError(url, f"has no key {prefix}:current", fix="run `llm-i2i export`")
        try:
            index, values = _read(client, f"{prefix}:{version}", url)
            manifest: dict[str, Any] = json.loads(cast("str", client.get(f"{prefix}:{version}:manifest")))
        except (TypeError, ValueError) as error:  # no JSON, or no UTF-8
            raise ArtifactError(url, f"{prefix}:{version} is damaged ({error})", fix="export again") from error
    if index_sha256(index) != manifest.get("content_sha256") or values != manifest.get("values_sha256", values):
        raise ArtifactError(
            url, f"{prefix}:{version} is damaged: other content than its manifest says", fix="export again"
        )
    return index, manifest


def current_version(url: str, *, prefix: str) -> str | None:
    """Name of the version that counts; None if there is none.

    Raises:
        ArtifactError: Redis cannot be reached.
    """
    with _connected(url) as client:
        return cast("str | None", client.get(f"{prefix}:current"))


def _write(client: "Redis", base: str, index: pd.DataFrame, manifest: Mapping[str, Any]) -> None:
    """Write all keys of one version, last the list of its items and its manifest, with the hash of the stored values.

    Where the version counts already, what readers need stays until it is replaced by the same.
    """
    listed = f"{base}:unfinished-items"
    client.delete(listed)
    digest = hashlib.sha256()
    for entries in _batches(_by_item(index)):
        # First, by itself, so that what a failure leaves can be found: a full server may refuse this and take the rest.
        client.rpush(listed, *(item for item, _ in entries))
        pipeline = client.pipeline(transaction=False)
        for item, neighbours in entries:
            value = _json(neighbours)
            digest.update(value.encode())
            pipeline.set(f"{base}:item:{item}", value)
        pipeline.execute()
    pipeline = client.pipeline(transaction=True)
    if len(index):
        pipeline.rename(listed, f"{base}:items")
    pipeline.set(f"{base}:manifest", _json(sealed({**manifest, "values_sha256": digest.hexdigest()})))
    pipeline.execute()


def _read(client: "Redis", base: str, url: str) -> tuple[pd.DataFrame, str]:
    """Read all items of one version, and the hash of their values as they are stored."""
    digest = hashlib.sha256()
    items = cast("list[str]", client.lrange(f"{base}:items", 0, -1))
    entries: list[tuple[str, Neighbours]] = []
    for part in _batches(items):
        values = cast("list[str | None]", client.mget([f"{base}:item:{item}" for item in part]))
        for item, value in zip(part, values, strict=True):
            if value is None:
                raise ArtifactError(url, f"{base}:item:{item} is gone", fix="export again")
            digest.update(value.encode())
            entries.append((item, json.loads(value)))
    return _table(entries, url), digest.hexdigest()


def _delete_old(client: "Redis", prefix: str) -> None:
    """Delete every version but the current and the previous one, and what unfinished exports have left."""
    kept = {client.get(f"{prefix}:current"), client.get(f"{prefix}:previous")}
    # An item's id or another prefix may end like one of our keys: a version is 16 hexadecimal digits.
    own = re.compile(f"({re.escape(prefix)}:([0-9a-f]{{16}})):(unfinished-)?items")
    for key in client.scan_iter(match=f"{_literal(prefix)}:{'?' * 16}:*items", count=BATCH):
        found = own.fullmatch(cast("str", key))
        if found and found[2] in kept and found[3]:
            client.unlink(key)
        elif found and found[2] not in kept:
            items = cast("list[str]", client.lrange(key, 0, -1))
            for part in _batches(items):
                client.unlink(*(f"{found[1]}:item:{item}" for item in part))
            client.unlink(key, f"{found[1]}:manifest")


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Split into lists of `BATCH`, the last one shorter."""
    iterator = iter(entries)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _literal(text: str) -> str:
    """A text as a Redis pattern that matches only itself."""
    return "".join(f"\\{c}" if c in "*?[]\\^" else c for c in text)


@contextmanager
def _connected(url: str) -> Iterator[Any]:  # its own types know no `decode_responses`
    """A client of Redis; what fails there is told as an error of ours."""
    with needs_extra("serve", url):
        from redis import Redis, RedisError  # noqa: PLC0415
    try:
        client = Redis.from_url(url, decode_responses=True, socket_timeout=30)
    except ValueError as error:
        raise ArtifactError(url, f"is no Redis address ({error})", "redis://HOST:PORT/DB") from error
    try:
        with client:
            yield client
    except RedisError as error:
        raise ArtifactError(
            url, f"Redis failed ({error})", "a Redis server that can be reached and written to"
        ) from error


def _by_item(index: pd.DataFrame) -> Iterator[tuple[str, Neighbours]]:
    """Give each item with its neighbours, best first; `index` is in order."""
    ids, scores = index["neighbour_id"].tolist(), index["score"].tolist()
    sizes = index.groupby(ITEM_ID, sort=False).size()
    start = 0
    for item, size in zip(sizes.index, sizes.tolist(), strict=True):
        yield (item, [list(pair) for pair in zip(ids[start : start + size], scores[start : start + size], strict=True)])
        start += size


def _table(entries: Iterable[tuple[str, Neighbours]], where: str) -> pd.DataFrame:
    """Turn items and their neighbours into `schema.INDEX`."""
    try:
        rows = [(item, n, s, r) for item, found in entries for r, (n, s) in enumerate(found, start=1)]
        return pd.DataFrame(rows, columns=list(INDEX)).astype(INDEX)
    except (TypeError, ValueError) as error:
        raise ArtifactError(where, f"holds no neighbours ({error})", "pairs of id and score") from error


def _ordered(index: pd.DataFrame) -> pd.DataFrame:
    return index.sort_values([ITEM_ID, "rank"], kind="stable", ignore_index=True)


def _described(index: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {**manifest, "rows": len(index), "content_sha256": index_sha256(index)}


def _verify(index: pd.DataFrame, back: pd.DataFrame, where: str) -> None:
    """Raise unless what was read back is the index, bit by bit."""
    if index_sha256(back) != index_sha256(index):
        found = f"read back {len(back):,} rows that differ from the {len(index):,} written"
        raise ArtifactError(where, found, "the same index")


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
