"""Column names and dtypes of every table, once.

Identifiers are strings everywhere (`str` dtype of pandas 3). Large tables may hold them encoded instead: as a
categorical of these strings in sorted order, 4 bytes per row, so that codes sort and compare like the strings.
"""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import union_categoricals

from llm_i2i.arrays import Array
from llm_i2i.errors import ArtifactError
from llm_i2i.files import staged, staged_text, writing

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
TIMESTAMP: Final = "timestamp"
RATING: Final = "rating"
POSITION: Final = "position"

# Two ways to say which items are rare, both on training counts alone and never mixed:
# the bucket "tail" (column `bucket`), items with 1 to tag.tail_max_count interactions;
# the "long tail" (column `is_long_tail`), the least frequent tag.long_tail_share of the trained items, as in the paper.
BUCKETS: Final = ("head", "mid", "tail", "cold")  # most frequent first; cold: no training interaction
TAIL: Final = "tail"
IS_LONG_TAIL: Final = "is_long_tail"
# Slices of the test users, by their target: everyone, each bucket, the long tail.
OVERALL: Final = "overall"
LONG_TAIL: Final = "long_tail"
SLICES: Final = (OVERALL, *BUCKETS, LONG_TAIL)
SOURCE_REAL: Final = "real"
SOURCE_SYNTHETIC: Final = "synthetic"
SOURCE_HELD_OUT: Final = "held_out"
# Cheap recommenders whose pairs stand in for the generator's: what an LLM must beat at equal volume.
CONTROLS: Final = ("random", "popularity", "item_knn", "compact")
# The model under which metrics of the generator as a recommender of its own stand; its arms: llm_only, untuned.
GENERATOR: Final = "generator"

# split/{train,valid,test}.parquet: sorted by (user_id, position).
# position: 0-based place in the user's whole history in time order (ties by seeded hash).
INTERACTIONS: Final = {USER_ID: "str", ITEM_ID: "str", TIMESTAMP: "int64", POSITION: "int32"}

# items/items.parquet: the catalogue, sorted by item_id; the row number is the item index everywhere.
# text: unique, non-empty, one line; the words by which an LLM knows the item.
ITEMS: Final = {
    ITEM_ID: "str",
    "title": "str",
    "text": "str",
    "n_train": "int64",
    "bucket": "str",
    IS_LONG_TAIL: "bool",
}

# identifiers/identifiers.parquet: how the LLM names an item; unique, one line, same rows as items.parquet.
# Beside it tokens.json: the tokens to add to the tokenizer, [] where identifiers are words.
IDENTIFIERS: Final = {ITEM_ID: "str", "identifier": "str"}

# split/held_out.parquet: the last training item of some users, in train.parquet too. No LLM trains on it: early
# stopping reads it, and what the generator proposes just before it tells stage judge how far proposals come true.
HELD_OUT: Final = {USER_ID: "str", ITEM_ID: "str"}

# proposed/generator.parquet: rank 1..n per user; logprob: natural log of P(item | prompt).
# held_out: proposed after all training items but the held-out one, to compare with it; else after all of them.
SYNTHETIC: Final = {
    USER_ID: "str",
    ITEM_ID: "str",
    "rank": "int32",
    "logprob": "float32",
    "held_out": "bool",
    "prompt_sha256": "str",
    "template_sha256": "str",
    "adapter_sha256": "str",
}

# proposed/NAME.parquet of a control: SYNTHETIC too; logprob NaN and empty hashes, since no LLM wrote them.

# scored/SOURCE.parquet: the proposed rows of one source. generator: its rows (source `synthetic`) and the real training
# rows that were asked about, and where judge.by is head those of held-out moments (source `held_out`); a control: its
# rows (source = the control's name).
# p_yes in [0, 1]: calibrated probability of Yes; NaN never occurs.
SCORED: Final = {USER_ID: "str", ITEM_ID: "str", "source": "str", "p_yes": "float32"}

# judged/pairs.parquet: what fuse chooses from, scored/generator.parquet without its held-out rows. p_yes: as judge.by
# says; rank and logprob: the generator's, 0 and NaN for real rows.
JUDGED: Final = {**SCORED, "rank": "int32", "logprob": "float32"}

# fused/ARM.parquet: what the I2I models train on. weight 1.0 = one interaction.
FUSED: Final = {USER_ID: "str", ITEM_ID: "str", "source": "str", "weight": "float32"}

# i2i/MODEL-ARM/index.parquet: rank 1..top_k per item, score descending, ties by item index.
INDEX: Final = {ITEM_ID: "str", "neighbour_id": "str", "score": "float32", "rank": "int32"}

# evaluation/MODEL-ARM.parquet: one row per test user; rank 1-based among all unseen items,
# 0 = the target got no score at all (not reachable). bucket: of the target.
PER_USER: Final = {USER_ID: "str", ITEM_ID: "str", "bucket": "str", "rank": "int32"}


_GROUP: Final = 1 << 20  # rows per row group, what pyarrow takes by default


def read_table(path: Path, columns: dict[str, str], *, encoded: bool = False) -> pd.DataFrame:
    """Read a parquet table written by a stage and check its columns and dtypes.

    Args:
        path: Parquet file.
        columns: Required columns and their dtypes, one of the constants above.
        encoded: Whether columns of str come encoded (see above), and no other columns than `columns`.

    Returns:
        The table, extra columns kept unless `encoded`.

    Raises:
        ArtifactError: The file is missing or unreadable, or a column is missing or has another dtype.
    """
    if not path.is_file():
        raise ArtifactError(str(path), "no such file", fix="run `dvc repro`")
    try:
        table = _read_encoded(path, columns) if encoded else _read_plain(path)
    except MemoryError:
        raise
    except Exception as error:  # pyarrow raises several unrelated classes for a broken file
        raise ArtifactError(str(path), f"unreadable ({error})", "a parquet file", "run `dvc repro`") from error
    found = {name: _dtype_of_values(column) for name, column in table.items()}
    wrong = {name: found.get(name, "missing") for name, dtype in columns.items() if found.get(name) != dtype}
    if wrong:
        raise ArtifactError(str(path), f"columns {wrong}", str({k: columns[k] for k in wrong}), "run `dvc repro`")
    return table


def write_frame(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people as CSV, line feeds at line ends on every system."""
    with staged_text(path) as file:
        table.to_csv(file, index=False, lineterminator="\n")


def write_table(table: pd.DataFrame, path: Path, columns: dict[str, str]) -> None:
    """Write `table` as parquet, its columns cast to `columns`, extra columns kept.

    Bytes depend on the content only (no pandas index, no timestamps), not on whether columns are encoded.
    """
    plain = {name: dtype for name, dtype in columns.items() if not is_encoded(table[name])}
    with staged(path) as partial, writing(path, kinds=Exception):
        schema = pa.Schema.from_pandas(table.iloc[:0].astype(columns), preserve_index=False)
        with pq.ParquetWriter(partial, schema) as writer:
            # Group by group: strings of the whole table at once would take many times the codes' memory.
            for start in range(0, max(len(table), 1), _GROUP):
                group = table.iloc[start : start + _GROUP].astype(plain)
                writer.write_table(pa.Table.from_pandas(group, preserve_index=False).cast(schema))


def is_encoded(column: pd.Series) -> bool:
    """Whether a column is a categorical."""
    return isinstance(column.dtype, pd.CategoricalDtype)


def encode(column: pd.Series) -> pd.Series:
    """Encode strings (see above); of what is a categorical already the categories are sorted.

    Args:
        column: Shape (n,), str or a categorical of str; missing values stay missing.
    """
    if not is_encoded(column):
        return column.astype("category")
    return pd.Series(_in_order(column.cat.codes.to_numpy(), column.cat.categories), column.index)


def decode(column: pd.Series) -> pd.Series:
    """Undo `encode`; a column of str stays as it is."""
    if not is_encoded(column):
        return column
    texts = column.cat.categories.array.take(column.cat.codes.to_numpy(), allow_fill=True)
    return pd.Series(texts, column.index, name=column.name)


def stack(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables of the same columns below one another, rows numbered anew; encoded columns stay encoded."""
    stacked = {}
    for name in tables[0]:
        parts = [table[name] for table in tables]
        if all(is_encoded(part) for part in parts):
            stacked[name] = pd.Series(union_categoricals(parts, sort_categories=True))
        else:
            stacked[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(stacked)


def _read_plain(path: Path) -> pd.DataFrame:
    """The whole table. Not by pandas: the scanner that it uses waits for ever where a thread of it gets no memory."""
    with pq.ParquetFile(path) as file:
        table: pd.DataFrame = file.read(use_threads=False).to_pandas()
    return table


def _read_encoded(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Column by column, so that the strings of one column at most are in memory."""
    found = {}
    with pq.ParquetFile(path) as file:
        for name, dtype in columns.items():
            if name in file.schema_arrow.names:
                column = file.read([name], use_threads=False)[name]
                if dtype == "str" and pa.types.is_large_string(column.type):
                    coded = column.dictionary_encode().combine_chunks()
                    texts = pd.Index(coded.dictionary.to_pandas(), dtype="str")
                    found[name] = pd.Series(_in_order(coded.indices.fill_null(-1).to_numpy(), texts))
                else:
                    found[name] = column.to_pandas()
    return pd.DataFrame(found)


def _in_order(codes: Array, categories: pd.Index) -> pd.Categorical:
    """A categorical whose categories are sorted."""
    if not categories.is_monotonic_increasing:
        order = categories.argsort()
        place = np.full(len(order) + 1, -1)  # the last: of code -1, a missing value
        place[order] = np.arange(len(order))
        codes, categories = place[codes], categories[order]
    return pd.Categorical.from_codes(codes, categories, validate=False)


def _dtype_of_values(column: pd.Series) -> str:
    return str(column.cat.categories.dtype if is_encoded(column) else column.dtype)
