"""What raw tables must hold, checked with Great Expectations.

Severity "error" stops the run (`raise_on_errors`), "warning" goes into the report.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llm_i2i.data.columns import UNIT_BEGINS, UNITS, brief
from llm_i2i.data.item_text import one_line
from llm_i2i.data.repeats import Codes, Order, in_pair_order, in_time_order
from llm_i2i.data.sources import RawTables
from llm_i2i.errors import DataError
from llm_i2i.params import ValidateParams
from llm_i2i.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID, decode, encode, is_encoded

logger = logging.getLogger(__name__)

SAMPLE_ROWS: Final = 5
# 2100-01-01: a later time is nearly always one in a finer unit. An earlier one than columns.UNIT_BEGINS is none: a day
# written as 20200131, a spreadsheet's count of days, a 0 for a time that nobody knows.
_MAX_SECONDS: Final = 4_102_444_800
_MAX_SHOWN: Final = 100  # characters of a cell in a sample
_MAX_DROPPED: Final = 0.1  # share of rows that may go without a warning
_MAX_TIED: Final = 0.5  # share of users whose last item a hash may choose without a warning
_MIN_HISTORY: Final = 3  # items of a user who can be tested
_OF_TYPE: Final = "ExpectColumnValuesToBeOfType"

# What the checks read; a computed column never meets another one of its name.
_READ: Final = (USER_ID, ITEM_ID, TIMESTAMP, RATING, "title")
COMPUTED: Final = ("item_is_known", "is_repeated", "is_repeated_pair", "last_is_tied", "has_text", "is_tail")
ROW: Final = "row"  # the place in the file from 1, the first below the header

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """One expectation.

    Attributes:
        name: What must hold, in the words of the report.
        severity: "error" or "warning".
        kind: Class name in `great_expectations.expectations`.
        options: Its keyword arguments.
    """

    name: str
    severity: Severity
    kind: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Checks of one table that Great Expectations runs on one frame.

    Attributes:
        name: Of its page.
        table: "interactions" or "items".
        frame: What is checked, of pandas or of Spark.
        checks: By their places among all checks of the table.
    """

    name: str
    table: str
    frame: Any
    checks: dict[int, Check]


@dataclass(frozen=True)
class Interactions:
    """The interactions with what the checks compute, wherever they lie.

    Attributes:
        frame: The columns read, and item_is_known, is_repeated, is_repeated_pair, last_is_tied; of pandas, rows in
            file order, or of Spark, sorted by a first column ROW.
        head: No row, and the columns read with their types.
        n_rows: How many interactions.
        n_users: How many users.
        per_item: Interactions of each item by its id, int64.
        order: As of RawTables.
        unit: As of RawTables.
    """

    frame: Any
    head: pd.DataFrame
    n_rows: int
    n_users: int
    per_item: pd.Series
    order: str
    unit: str


def validate_tables(
    raw: RawTables, *, params: ValidateParams, tail_max_count: int, docs_dir: Path | None
) -> dict[str, Any]:
    """Check both raw tables.

    Args:
        raw: The tables as read.
        params: Limits.
        tail_max_count: An item with at most so many interactions counts as a tail item.
        docs_dir: Folder for Great Expectations' Data Docs (HTML); None = no pages.

    Returns:
        success (of all checks with severity error), expectations (name, table, severity, success,
        unexpected_count, unexpected_percent, sample: up to 5 rows) and counts, ready for JSON, equal for
        equal input.
    """
    frame = with_computed_columns(raw.interactions, raw.items[ITEM_ID])
    ids = raw.interactions[ITEM_ID]
    interactions = Interactions(
        frame=frame,
        head=frame.head(0),
        n_rows=len(frame),
        n_users=int(frame[USER_ID].nunique()),
        per_item=ids.value_counts(),
        order=raw.order,
        unit=raw.unit,
    )
    return validate_interactions(
        interactions, raw.items, params=params, tail_max_count=tail_max_count, docs_dir=docs_dir
    )


def validate_interactions(
    interactions: Interactions,
    items: pd.DataFrame,
    *,
    params: ValidateParams,
    tail_max_count: int,
    docs_dir: Path | None,
) -> dict[str, Any]:
    """The same where the interactions may lie elsewhere.

    Args:
        interactions: With computed columns.
        items: The raw catalogue.
        params: Limits.
        tail_max_count: As of `validate_tables`, and what follows.
        docs_dir: See there.
    """
    items = _with_counts(items, interactions.per_item, tail_max_count)
    batches = [
        *_batches("interactions", interactions.frame, interactions.head, interaction_checks(interactions, params)),
        *_batches("items", items, items.head(0), item_checks(params, tail_max_count)),
    ]
    expectations = _run(batches, docs_dir)
    for row in expectations:
        if not row["success"]:
            logger.warning("%s", describe(row))
    return {
        "success": all(row["success"] for row in expectations if row["severity"] == "error"),
        "expectations": expectations,
        "counts": {
            "interactions": interactions.n_rows,
            "users": interactions.n_users,
            "items": len(items),
            "items_with_interactions": int((items["n_interactions"] > 0).sum()),
            "items_with_text": int(items["has_text"].sum()),
            "tail_items": int(items["is_tail"].sum()),
            "order": interactions.order,
        },
    }


def raise_on_errors(result: dict[str, Any]) -> None:
    """Stop on a failed check of severity error.

    Args:
        result: What `validate_tables` returned.

    Raises:
        DataError: At least one such check failed; each is named with its count and sample rows.
    """
    failed = [row for row in result["expectations"] if row["severity"] == "error" and not row["success"]]
    if failed:
        lines = "".join(f"\n  {describe(row)}" for row in failed)
        fix = "correct the raw tables, or the limits under `validate` in params.yaml"
        raise DataError("data/", f"{len(failed)} expectation(s) failed{lines}", fix=fix)


def describe(row: dict[str, Any]) -> str:
    """One line about a failed check: table, rule, count, first rows."""
    count = (
        f", {row['unexpected_count']:,} row(s) ({row['unexpected_percent']:.2f} %)" if row["unexpected_count"] else ""
    )
    sample = "; ".join(", ".join(f"{key} {value!r}" for key, value in example.items()) for example in row["sample"][:3])
    return f"{row['table']}: not so: {row['name']}{count}" + (f" [{sample}]" if sample else "")


def interaction_checks(raw: Interactions, params: ValidateParams) -> list[Check]:
    """The checks of the interactions table; those of a column that is optional only where it is there."""
    checks = [
        *_column_checks({USER_ID: "str", ITEM_ID: "str", TIMESTAMP: "int64"}),
        _at_least(params.min_interactions, "interactions"),
        Check(f"at least {params.min_users:,} users", "error", "ExpectColumnUniqueValueCountToBeBetween",
              {"column": USER_ID, "min_value": params.min_users}),
        _is("item_is_known", True, "every item_id is in the items table"),
        _is("is_repeated", False, "no interaction occurs twice (the split keeps the first)", "warning"),
        _is("is_repeated_pair", False, f"at most {100 * _MAX_DROPPED:g} % of rows repeat a user's item at another "
            "time (the split drops them)", "warning", mostly=1.0 - _MAX_DROPPED),
        _is("last_is_tied", False, f"at most {100 * _MAX_TIED:g} % of users took their last item at the same "
            f"{raw.order} as another (a hash chooses the test item)", "warning", mostly=1.0 - _MAX_TIED),
        _between(TIMESTAMP, f"{raw.order} is not negative", min_value=0),
    ]  # fmt: skip
    if raw.order == TIMESTAMP:
        name = f"timestamp is in {raw.unit}, of the years 1973 to 2099"
        unit = UNITS.index(raw.unit)
        limits = {"min_value": UNIT_BEGINS[unit], "max_value": _MAX_SECONDS * 1000**unit}
        checks.append(_between(TIMESTAMP, name, "warning", **limits))
    if RATING in raw.head:
        low, high = params.rating_min, params.rating_max
        checks.append(_between(RATING, f"rating lies in {low:g}..{high:g}", min_value=low, max_value=high))
    return checks


def item_checks(params: ValidateParams, tail_max_count: int) -> list[Check]:
    """The checks of the items table."""
    with_text, tail = f"{100 * params.min_text_share:g} %", f"{100 * params.max_tail_share:g} %"
    return [
        *_column_checks({ITEM_ID: "str", "title": "str"}, may_be_null=("title",)),
        Check("every item_id occurs once", "error", "ExpectColumnValuesToBeUnique", {"column": ITEM_ID}),
        _at_least(params.min_items, "items"),
        _is("has_text", True, f"at least {with_text} of items have a title", mostly=params.min_text_share),
        Check(f"titles have at most {params.max_text_length:,} characters", "warning",
              "ExpectColumnValueLengthsToBeBetween", {"column": "title", "max_value": params.max_text_length}),
        _is("is_tail", False, f"at most {tail} of items have {tail_max_count} or fewer interactions",
            "warning", mostly=1.0 - params.max_tail_share),
    ]  # fmt: skip


def _column_checks(columns: dict[str, str], may_be_null: tuple[str, ...] = ()) -> list[Check]:
    checks = []
    for column, dtype in columns.items():
        options = {"column": column, "type_": dtype}
        checks.append(Check(f"{column} has type {dtype}", "error", _OF_TYPE, options))
        if column not in may_be_null:
            name = f"{column} is never missing"
            checks.append(Check(name, "error", "ExpectColumnValuesToNotBeNull", {"column": column}))
    return checks


def _at_least(rows: int, what: str) -> Check:
    return Check(f"at least {rows:,} {what}", "error", "ExpectTableRowCountToBeBetween", {"min_value": rows})


def _between(column: str, name: str, severity: Severity = "error", **limits: float) -> Check:
    return Check(name, severity, "ExpectColumnValuesToBeBetween", {"column": column, **limits})


def _is(column: str, value: bool, name: str, severity: Severity = "error", **share: float) -> Check:
    """A computed column has one value, in every row or in the share `mostly`."""
    return Check(name, severity, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": [value], **share})


def with_computed_columns(interactions: pd.DataFrame, known: pd.Series) -> pd.DataFrame:
    """Rules between rows or tables as boolean columns: one column-wise check each can name its rows.

    Args:
        interactions: As read, all rows of each user.
        known: Ids of the items table.
    """
    table = interactions[[column for column in interactions if column in _READ]]
    users, items = (encode(table[name]) for name in (USER_ID, ITEM_ID))
    user, item, time = users.cat.codes.to_numpy(), items.cat.codes.to_numpy(), table[TIMESTAMP].to_numpy()
    order, again, exact = in_pair_order(user, item, time)
    repeated, repeated_pair = np.zeros((2, len(table)), dtype=np.bool_)
    repeated[order] = exact
    repeated_pair[order] = again & ~exact
    is_known = np.append(items.cat.categories.isin(known), True)  # the last: of code -1, a missing item
    order = np.sort(order[~again])
    last = order[in_time_order(user[order], time[order])]
    return table.assign(
        item_is_known=is_known[item],
        is_repeated=repeated,
        is_repeated_pair=repeated_pair,
        last_is_tied=_last_is_tied(user, time, last),
    )


def _last_is_tied(user: Codes, time: NDArray[np.int64], order: Order) -> pd.arrays.BooleanArray:
    """Whether the last item of each user with a history shares its time with another; missing in all other rows.

    Args:
        user: Codes (n,).
        time: int64 (n,).
        order: Rows without repeated pairs, by user and time.
    """
    ends = np.flatnonzero(np.diff(user[order], append=-2))
    tested = (np.diff(ends, prepend=-1) >= _MIN_HISTORY) & (user[order[ends]] >= 0)
    ends = ends[tested]
    tied, is_missing = np.zeros(len(user), dtype=np.bool_), np.ones(len(user), dtype=np.bool_)
    tied[order[ends]] = time[order[ends]] == time[order[ends - 1]]
    is_missing[order[ends]] = False
    return pd.arrays.BooleanArray(tied, is_missing)


def _with_counts(raw: pd.DataFrame, per_item: pd.Series, tail_max_count: int) -> pd.DataFrame:
    """The items with their words and numbers of interactions."""
    items = raw[[column for column in raw if column in _READ]]
    n_interactions = items[ITEM_ID].map(per_item).fillna(0).astype("int64")
    return items.assign(
        has_text=items["title"].fillna("").map(one_line) != "",
        n_interactions=n_interactions,
        is_tail=n_interactions <= tail_max_count,
    )


def _batches(table: str, frame: Any, head: pd.DataFrame, checks: list[Check]) -> list[Batch]:
    """The checks of a table; those of types read encoded columns, and Spark's, as the text that they stand for."""
    numbered = dict(enumerate(checks))
    coded = [str(name) for name, column in head.items() if is_encoded(column)]
    if isinstance(frame, pd.DataFrame) and not coded:
        return [Batch(table, table, frame, numbered)]
    types = {place: check for place, check in numbered.items() if check.kind == _OF_TYPE}
    return [
        Batch(f"{table}, types", table, head.assign(**{name: decode(head[name]) for name in coded}), types),
        Batch(table, table, frame, {place: check for place, check in numbered.items() if place not in types}),
    ]


def _run(batches: list[Batch], docs_dir: Path | None) -> list[dict[str, Any]]:
    """Run Great Expectations on each batch, in memory, and write its pages; results in the order of the checks."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
    import great_expectations as gx  # noqa: PLC0415 - takes seconds, and must come after the line above
    from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: PLC0415

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    _set_docs_site(context, docs_dir)
    here = context.data_sources.add_pandas("raw")
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for batch in batches:
        expectations = [
            getattr(gx.expectations, check.kind)(**check.options, meta={"place": place})
            for place, check in batch.checks.items()
        ]
        is_here = isinstance(batch.frame, pd.DataFrame)
        source = here if is_here else context.data_sources.add_spark("raw on Spark")
        data = source.add_dataframe_asset(batch.name).add_batch_definition_whole_dataframe("all rows")
        suite = context.suites.add(gx.ExpectationSuite(name=batch.name, expectations=expectations))
        definition = gx.ValidationDefinition(name=batch.name, data=data, suite=suite)
        result = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": batch.frame},
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLE_ROWS}
            | ({} if is_here else {"unexpected_index_column_names": batch.frame.columns}),
        )
        # Results come grouped by column.
        for one in result.results:
            place = one.expectation_config.meta["place"]
            rows.setdefault(batch.table, {})[place] = _as_row(batch, batch.checks[place], one)
    if docs_dir is not None:
        context.build_data_docs()
    return [found[place] for found in rows.values() for place in sorted(found)]


def _as_row(batch: Batch, check: Check, result: Any) -> dict[str, Any]:
    """One result as plain values; a check that could not run counts as failed and says why."""
    found = result.result or {}
    if not result.success and not found:
        sample = [{"problem": "the check could not run: is the column there?"}]
    elif "partial_unexpected_index_list" in found:
        sample = [{k: v for k, v in row.items() if k not in COMPUTED} for row in _rows(batch.frame, found)]
    else:
        sample = [{"found": found["observed_value"]}] if "observed_value" in found else []
    return {
        "name": check.name,
        "table": batch.table,
        "severity": check.severity,
        "success": bool(result.success),
        "unexpected_count": int(found.get("unexpected_count", 0)),
        "unexpected_percent": round(float(found.get("unexpected_percent") or 0.0), 4),
        "sample": [{str(key): _plain(value) for key, value in row.items()} for row in sample],
    }


def _rows(frame: Any, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a result names, with their places."""
    places = found["partial_unexpected_index_list"]
    if not isinstance(frame, pd.DataFrame):
        return [{column: row[column] for column in frame.columns} for row in places]
    shown = frame.iloc[places]
    shown.insert(0, ROW, [place + 1 for place in places])
    rows: list[dict[str, Any]] = shown.to_dict("records")
    return rows


def _plain(value: Any) -> str | int | float | bool | None:
    """A value that JSON knows, cut where it is long; missing is None."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}... ({len(value):,} characters)"
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, int | float | bool) else brief(value)


def _set_docs_site(context: Any, docs_dir: Path | None) -> None:
    """Let Data Docs go to `docs_dir` only, without the pages of earlier runs (their names carry times)."""
    context.delete_data_docs_site("local_site")  # the default: a temporary folder
    if docs_dir is None:
        return
    for name in ("expectations", "validations", "static"):
        shutil.rmtree(docs_dir / name, ignore_errors=True)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir.resolve())}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": store,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site("validation", site)
