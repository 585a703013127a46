"""What the commands of `llm-i2i` do, each with the options that cli.py has parsed."""

import argparse
import csv
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_i2i.data.item_text import one_line
from llm_i2i.errors import DataError, needs_extra
from llm_i2i.files import read_json
from llm_i2i.git import git_revision
from llm_i2i.i2i.export import export_jsonl, export_redis, load_redis
from llm_i2i.i2i.lookup import Lookup
from llm_i2i.neighbours import own_query
from llm_i2i.schema import INDEX, INTERACTIONS, ITEM_ID, ITEMS, POSITION, USER_ID, read_table

if TYPE_CHECKING:
    from llm_i2i.serving.messages import Explained, Why


def serve(options: argparse.Namespace) -> None:
    """Answer over HTTP until told to stop."""
    with needs_extra("serve", "llm-i2i serve"):
        from llm_i2i.serving.server import serve  # noqa: PLC0415
    serve(options)


def explain(options: argparse.Namespace) -> None:
    """Print each recommended item and below it what each item of the history adds, separated by tabs."""
    from llm_i2i.serving.build import opened, source_of  # noqa: PLC0415 - half a second
    from llm_i2i.serving.chain import answer  # noqa: PLC0415
    from llm_i2i.serving.messages import MAX_K, Query  # noqa: PLC0415

    if not 1 <= options.top_k <= MAX_K:
        raise DataError("--top-k", f"is {options.top_k}", f"1 to {MAX_K}")
    with opened(source_of(options, options.index)) as index:
        ids = {index.item_id(place) for place in range(index.n_items)}
        history = _known(options.items, ids)
        found = answer(index, Query(history=history, k=options.top_k, explain=True))
    for rank, item in enumerate(found["items"], start=1):
        shown = (f"{item['score']:.6g}", item["source"], _one_column(item["item_id"]), one_line(item["title"] or ""))
        sys.stdout.write("\t".join([str(rank), *shown]) + "\n")
        for why in item["why"]:
            sys.stdout.write("\t".join(["", f"+{why['contribution']:.6g}", *_shown(why, index.explains)]) + "\n")


def _shown(why: "Why", known: list["Explained"]) -> list[str]:
    """The item, the edge and its supporters, and the edge in arm real's index."""
    real = "not in arm real" if why["real_rank"] is None else f"real {why['real_score']:.6g} #{why['real_rank']}"
    real = real if "real" in known else ""
    users = "" if why["users"] is None else f"{why['users']} users, {why['synthetic_users']} synthetic"
    return [
        _one_column(why["item_id"]), one_line(why["title"] or ""), f"{why['score']:.6g} #{why['rank']}", users, real
    ]  # fmt: skip


def ab_report(options: argparse.Namespace) -> None:
    """Print how often users of each arm click and buy."""
    from llm_i2i.serving.ab import lines, report  # noqa: PLC0415 - half a second
    from llm_i2i.serving.events import read_events  # noqa: PLC0415

    sys.stdout.writelines(f"{line}\n" for line in lines(report(read_events(options.events))))


def events_to_interactions(options: argparse.Namespace) -> None:
    """Print purchases as rows for the raw interactions."""
    from llm_i2i.serving.ab import interactions  # noqa: PLC0415 - half a second
    from llm_i2i.serving.events import read_events  # noqa: PLC0415

    interactions(read_events(options.events), options.data, sys.stdout, rating=options.rating)


def recommend(options: argparse.Namespace) -> None:
    """Print rank, score, id and title, separated by tabs."""
    items = read_table(options.catalogue, ITEMS)
    titles = dict(zip(items[ITEM_ID], items["title"], strict=True))
    history = _history(options.user, options.split) if options.user is not None else _known(options.items, titles)
    index, manifest = _index(options)
    last_m, decay = own_query(manifest)
    found = Lookup(index).recommend(
        history,
        top_k=options.top_k,
        last_m=last_m if options.last_m is None else options.last_m,
        decay=decay if options.decay is None else options.decay,
    )
    if not found:
        sys.stderr.write("no item of the query has a neighbour outside the history\n")
    for rank, (item, score) in enumerate(found, start=1):
        sys.stdout.write(f"{rank}\t{score:.6g}\t{_one_column(item)}\t{one_line(titles.get(item, ''))}\n")


def _known(text: str, known: Collection[str]) -> list[str]:
    """Ids separated by commas, all in the catalogue."""
    history = _parsed(text, known)
    unknown = [item for item in history if item not in known]
    if unknown or not history:
        raise DataError(
            "--items",
            f"not in the catalogue: {', '.join(unknown) or 'nothing given'}",
            "ids of items.parquet",
            """put an id that holds a comma into double quotes, as in --items '"a,b",c'""" if unknown else "",
        )
    return history


def _parsed(text: str, known: Collection[str]) -> list[str]:
    """Ids separated by commas. Blanks around one, commas in one and quotes belong to it where the catalogue says so.

    The first reading of which the catalogue knows every id counts: cells by commas alone, one id, a row of CSV.
    """
    readings = [
        [cell if cell in known else cell.strip() for cell in cells if cell in known or cell.strip()]
        for cells in (
            text.split(","),
            [text],
            next(csv.reader([text]), []),
            next(csv.reader([text], skipinitialspace=True), []),
        )
    ]
    return next((ids for ids in readings if ids and all(item in known for item in ids)), readings[0])


def _one_column(text: str) -> str:
    """An id with tabs, line feeds and the like spelled out, so that it stays in its column."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def _history(user: str, split: Path) -> list[str]:
    """A user's train and valid items, oldest first."""
    tables = [read_table(split / f"{part}.parquet", INTERACTIONS) for part in ("train", "valid")]
    taken = pd.concat(tables, ignore_index=True)
    taken = taken[taken[USER_ID] == user].sort_values(POSITION)
    if taken.empty:
        raise DataError("--user", f"user {user!r} has no interactions in {split}", "a user of the split tables")
    return [str(item) for item in taken[ITEM_ID]]


def _index(options: argparse.Namespace) -> tuple[pd.DataFrame, dict[str, Any]]:
    if "://" in options.index:
        return load_redis(options.index, prefix=options.prefix)
    folder = Path(options.index)
    return read_table(folder / "index.parquet", INDEX), _manifest(folder)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(folder / "manifest.json", fix="run `dvc repro train_i2i`")
    return manifest


def export(options: argparse.Namespace) -> None:
    """Export with the manifest and the git revision of this folder."""
    index = read_table(options.index / "index.parquet", INDEX)
    manifest = {**_manifest(options.index), "git_revision": git_revision()}
    if options.to.endswith(".jsonl"):
        export_jsonl(index, manifest, Path(options.to))
    elif "://" in options.to:
        export_redis(index, manifest, options.to, prefix=options.prefix)
    else:
        raise DataError("--to", f"is {options.to!r}", "redis://HOST:PORT/DB or FILE.jsonl")
