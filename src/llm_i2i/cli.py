"""`llm-i2i`: recommend from an index, explain why, serve it, and export it to those who serve it themselves.

Here are the options. What the commands do is imported once it is known which is wanted: that takes half a second, and
every worker of the service imports this module again.
"""

import argparse
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any

from llm_i2i.errors import LlmI2iError, one_message, told

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
            from llm_i2i import commands  # noqa: PLC0415

            getattr(commands, options.command.replace("-", "_"))(options)
            sys.stdout.flush()
    except LlmI2iError as error:
        sys.stderr.write(told(error))
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
    command.add_argument(
        "--public-key", default="", help="refuse what is not signed by this key (default: nothing is checked)"
    )


if __name__ == "__main__":
    sys.exit(main())
