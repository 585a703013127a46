"""Column names and dtypes of every table, once.

Identifiers are strings everywhere (`str` dtype of pandas 3). Large tables may hold them encoded instead: as a
categorical of these strings in sorted order, 4 bytes per row, so that codes sort and compare like the strings.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
    encoded = [name for name in columns if is_encoded(table[name])]
    plain = {name: dtype for name, dtype in columns.items() if name not in encoded}
    with staged(path) as partial, writing(path, kinds=Exception):
        schema = pa.Schema.from_pandas(table.iloc[:0].astype(columns), preserve_index=False)
        texts = {name: texts_of(table[name]) for name in encoded}
        with pq.ParquetWriter(partial, schema) as writer:
            # Group by group: strings of the whole table at once would take many times the codes' memory.
            for start in range(0, max(len(table), 1), _GROUP):
                group = table.iloc[start : start + _GROUP]
                rest = pa.Table.from_pandas(group.drop(columns=encoded).astype(plain), preserve_index=False)
                cells = {name: texts[name].take(_indices(group[name])) for name in encoded}
                cells |= {name: rest[name].cast(schema.field(name).type) for name in rest.column_names}
                writer.write_table(pa.table(cells, schema=schema))


def _indices(column: pd.Series) -> pa.Array:
    """The codes of an encoded column, null where it is missing."""
    codes = column.cat.codes.to_numpy()
    return pa.array(codes, mask=codes < 0)


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


def texts_of(column: pd.Series) -> pa.LargeStringArray:
    """The distinct strings of an encoded column in Arrow, one per code."""
    return _as_arrow(column.cat.categories)


def _as_arrow(texts: pd.Index) -> pa.LargeStringArray:
    found = pa.array(texts, pa.large_string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def text_bytes(column: pd.Series, *, end: str = "") -> Iterator[memoryview]:
    """The strings of an encoded column as UTF-8, end to end, a million rows at a time; none is missing.

    Args:
        column: Shape (n,).
        end: What follows each string.
    """
    texts = texts_of(column)
    texts = pc.binary_join_element_wise(texts, pa.scalar(end, texts.type), pa.scalar("", texts.type)) if end else texts
    codes = column.cat.codes.to_numpy()
    for start in range(0, len(codes), _GROUP):
        part = texts.take(pa.array(codes[start : start + _GROUP]))
        _, offsets, joined = part.buffers()
        if joined is not None:
            yield memoryview(joined)[: np.frombuffer(offsets, np.int64)[len(part)]]


def common_codes(*columns: pd.Series) -> list[pd.Categorical]:
    """Encoded columns with one set of categories, so that equal codes mean equal strings in all of them."""
    texts = [texts_of(column) for column in columns]
    union = max(texts, key=len)
    others = [text for text in texts if len(text) and not text.equals(union)]
    further = [text.filter(pc.invert(pc.is_in(text, value_set=union))) for text in others]
    if any(len(text) for text in further):
        union = pa.chunked_array([union, *further]).unique()
        union = union.take(pc.array_sort_indices(union))
    dtype = pd.CategoricalDtype(pd.Index(union.to_pandas(), dtype="str"))
    common = []
    for column, own in zip(columns, texts, strict=True):
        codes = column.cat.codes.to_numpy()
        if len(own) and not own.equals(union):
            places = np.asarray(pc.index_in(own, value_set=union), dtype=np.int32)
            codes = np.append(places, np.int32(-1))[codes]  # the last: of code -1, a missing value
        common.append(pd.Categorical.from_codes(codes, dtype=dtype, validate=False))
    return common


def stack(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables of the same columns below one another, rows numbered anew; encoded columns stay encoded."""
    stacked: dict[Any, pd.Series] = {}
    for name in tables[0]:
        parts = [table[name] for table in tables]
        if all(is_encoded(part) for part in parts):
            common = common_codes(*parts)
            codes = np.concatenate([part.codes for part in common])
            stacked[name] = pd.Series(pd.Categorical.from_codes(codes, dtype=common[0].dtype, validate=False))
        else:
            stacked[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(stacked, copy=False)


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
                is_text = dtype == "str" and pa.types.is_large_string(column.type)
                found[name] = encoded_from_arrow(column) if is_text else column.to_pandas()
                del column  # before the next is read
    return pd.DataFrame(found, copy=False)


def encoded_from_arrow(column: pa.ChunkedArray) -> pd.Series:
    """Encode a column of Arrow (see above), without an object of Python per string; null is missing.

    Args:
        column: Shape (n,), strings or integers, which count as their decimals.
    """
    coded = column.dictionary_encode().combine_chunks()
    codes = coded.indices.fill_null(-1).to_numpy()
    return pd.Series(_in_order(codes, pd.Index(coded.dictionary.cast(pa.large_string()).to_pandas(), dtype="str")))


def _in_order(codes: Array, categories: pd.Index) -> pd.Categorical:
    """A categorical whose categories are sorted."""
    texts = _as_arrow(categories)
    if not pc.all(pc.less_equal(texts[:-1], texts[1:])).as_py():
        order = np.asarray(pc.array_sort_indices(texts))
        place = np.full(len(order) + 1, -1, dtype=np.int32)  # the last: of code -1, a missing value
        place[order] = np.arange(len(order), dtype=np.int32)
        codes, categories = place[codes], categories.take(order)
    return pd.Categorical.from_codes(codes, categories, validate=False)


def _dtype_of_values(column: pd.Series) -> str:
    return str(column.cat.categories.dtype if is_encoded(column) else column.dtype)
