"""`llm-i2i`: recommend from an index, explain why, serve it, and export it to those who serve it themselves."""

import argparse
import csv
import io
import logging
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_i2i.data.item_text import one_line
from llm_i2i.errors import DataError, LlmI2iError, needs_extra, one_message
from llm_i2i.files import read_json
from llm_i2i.git import git_revision
from llm_i2i.i2i.export import export_jsonl, export_redis, load_redis
from llm_i2i.i2i.lookup import Lookup, own_query
from llm_i2i.schema import INDEX, INTERACTIONS, ITEM_ID, ITEMS, POSITION, USER_ID, read_table

if TYPE_CHECKING:
    from llm_i2i.serving.messages import Explained, Why

PREFIX = "llm-i2i"
SOURCE = "folder artifacts/i2i/MODEL-ARM, or redis://HOST:PORT/DB"
SERVED = f"{SOURCE}, or prod: what holds stage prod in the registry"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; an error of ours is one message and exit status 2.

    Args:
        arguments: Command line without the program; None = the process's own.

    Returns:
        Exit status.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a title gets its code points
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with one_message(f"llm-i2i {options.command}"):
            {
                "recommend": _recommend, "explain": _explain, "export": _export, "serve": _serve,
                "ab-report": _ab_report, "events-to-interactions": _events_to_interactions,
            }[options.command](options)  # fmt: skip
            sys.stdout.flush()
    except LlmI2iError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except BrokenPipeError:  # the reader has enough, as `head` does
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the flush at the exit
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llm-i2i", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("recommend", help="print the best items for a user or for some items")
    whom = command.add_mutually_exclusive_group(required=True)
    whom.add_argument("--user", help="a user of the split tables")
    whom.add_argument(
        "--items", help="item ids separated by commas, oldest first; --items=-1 for one that begins with a dash"
    )
    command.add_argument("--top-k", type=int, default=10)
    command.add_argument("--last-m", type=int, help="query: the last M items, 0 = all (default: the index's own)")
    command.add_argument("--decay", type=float, help="weight of a query item = decay^age (default: the index's own)")
    command.add_argument("--catalogue", type=Path, default=Path("artifacts/items/items.parquet"))
    command.add_argument("--split", type=Path, default=Path("artifacts/split"))
    command.add_argument("--index", required=True, help=SOURCE)
    command.add_argument("--prefix", default=PREFIX, help=f"first part of the Redis keys (default {PREFIX})")
    command = commands.add_parser("export", help="write an index to Redis or as JSON lines, exactly")
    command.add_argument("--index", required=True, type=Path, help="folder artifacts/i2i/MODEL-ARM")
    command.add_argument("--to", required=True, help="redis://HOST:PORT/DB or FILE.jsonl")
    command.add_argument("--prefix", default=PREFIX, help=f"first part of the Redis keys (default {PREFIX})")
    _add_serving(commands)
    return parser


def _add_serving(commands: Any) -> None:
    """The commands of `llm_i2i.serving`."""
    command = commands.add_parser("explain", help="print why items are recommended, as the service tells it")
    command.add_argument("--items", required=True, help="the history: item ids separated by commas, oldest first")
    command.add_argument("--top-k", type=int, default=10)
    command.add_argument("--index", required=True, help=SERVED)
    _add_tables(command)
    command = commands.add_parser("serve", help="answer over HTTP, and follow the index when it changes")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--index", help=SERVED)
    what.add_argument("--arm", action="append", metavar="NAME=SOURCE", help="several indexes, the option for each")
    command.add_argument("--split", default="", help="shares of the users, such as 50:50 (default: equal)")
    command.add_argument("--salt", default="", help="another salt splits the users in another way")
    _add_tables(command)
    command.add_argument(
        "--store", type=Path, default=Path(".serving"), help="folder for what is served (default .serving)"
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    command.add_argument("--port", type=int, default=8080, help="port to listen at (default 8080)")
    command.add_argument("--workers", type=int, default=1, help="processes that answer (default 1)")
    command.add_argument(
        "--api-key-file", type=Path, help="file with the key that clients send as X-API-Key (default: none)"
    )
    command.add_argument("--poll", type=float, default=5.0, help="seconds between two looks at the index (default 5)")
    for name, text in (
        ("ab-report", "print how often users of each arm click and buy"),
        ("events-to-interactions", "print purchases as rows for the raw interactions"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--events", type=Path, default=Path(".serving/events"), help="folder STORE/events (default .serving/events)"
        )
    command.add_argument("--data", type=Path, default=Path("data"), help="folder of the raw tables (default data)")
    command.add_argument("--rating", default="", help="what a purchase counts as, where the raw table has ratings")


def _add_tables(command: argparse.ArgumentParser) -> None:
    """The options of `llm_i2i.serving.build.Source`, but for the index."""
    command.add_argument("--prefix", default=PREFIX, help=f"first part of the Redis keys (default {PREFIX})")
    command.add_argument(
        "--artifacts", default="artifacts", help="folder of the run's other tables (default artifacts)"
    )
    command.add_argument(
        "--half-life", type=float, default=90.0, help="days after which an interaction counts half as popularity (90)"
    )
    command.add_argument("--catalogue", default="", help="(default ARTIFACTS/items/items.parquet)")
    command.add_argument(
        "--vectors", default="", help="what the items' words mean (default ARTIFACTS/text/vectors.npy)"
    )


def _serve(options: argparse.Namespace) -> None:
    with needs_extra("serve", "llm-i2i serve"):
        from llm_i2i.serving.server import serve  # noqa: PLC0415
    serve(options)


def _explain(options: argparse.Namespace) -> None:
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


def _ab_report(options: argparse.Namespace) -> None:
    from llm_i2i.serving.ab import lines, report  # noqa: PLC0415 - half a second
    from llm_i2i.serving.events import read_events  # noqa: PLC0415

    sys.stdout.writelines(f"{line}\n" for line in lines(report(read_events(options.events))))


def _events_to_interactions(options: argparse.Namespace) -> None:
    from llm_i2i.serving.ab import interactions  # noqa: PLC0415 - half a second
    from llm_i2i.serving.events import read_events  # noqa: PLC0415

    interactions(read_events(options.events), options.data, sys.stdout, rating=options.rating)


def _recommend(options: argparse.Namespace) -> None:
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


def _export(options: argparse.Namespace) -> None:
    """Export with the manifest and the git revision of this folder."""
    index = read_table(options.index / "index.parquet", INDEX)
    manifest = {**_manifest(options.index), "git_revision": git_revision()}
    if options.to.endswith(".jsonl"):
        export_jsonl(index, manifest, Path(options.to))
    elif "://" in options.to:
        export_redis(index, manifest, options.to, prefix=options.prefix)
    else:
        raise DataError("--to", f"is {options.to!r}", "redis://HOST:PORT/DB or FILE.jsonl")


if __name__ == "__main__":
    sys.exit(main())
