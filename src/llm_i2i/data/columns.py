"""Cast one raw column; rows that cannot be cast are returned by their places, never guessed."""

import datetime as dt
import re
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Places = NDArray[np.intp]

# Time units from coarse to fine: each is a thousandth of the one before.
UNITS: Final = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_DTYPES: Final = ("s", "ms", "us", "ns")  # of the same units, as numpy names them
# From which number on a count since 1970 is in that unit, so that each begins in March 1973. Smaller numbers fit all.
UNIT_BEGINS: Final = (10**8, 10**11, 10**14, 10**17)
_EXACT: Final = 2.0**53  # from here on floats skip integers
_INT64: Final = 2**63
LONGEST: Final = 10**18  # longer counts are read another, slower way
_BRIEF: Final = 100  # characters of a cell in a message


class MixedUnitsError(Exception):
    """Times in several units; the message counts them."""


def brief(value: object) -> str:
    """A cell as messages show it: one line, of at most about 100 characters."""
    text = re.sub(r"\s*\n\s*", " ", repr(value))  # of arrays
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}... ({len(text):,} characters)"


def as_text(column: pd.Series, *, joined: bool = False) -> tuple[pd.Series, Places]:
    """Cast to str: integers without a decimal point, missing stays missing.

    Args:
        column: Shape (n,), any dtype. Floats and decimals count only where integral and exact: tables turn integers
            with missing values into floats.
        joined: Whether a list of such values is a text too, its parts joined by ", ".

    Returns:
        The column as `str` dtype, and the places of values that are no text and no integer.
    """
    column = _decoded(column)
    if _is_plain_text(column) or pd.api.types.is_integer_dtype(column.dtype):
        return column.astype("str"), np.array([], dtype=np.intp)
    missing = column.map(_is_missing).to_numpy(dtype=bool)
    cells = column.astype(object).map(_joined if joined else _written)
    cells = cells.mask(cells.notna() & skips_integers(column))
    text = cells.mask(cells == "").astype("str") if joined else cells.astype("str")
    return text, np.flatnonzero(cells.isna().to_numpy() & ~missing)


def without_decimal_point(column: pd.Series) -> pd.Series:
    """Integers that a table wrote as floats, since some are missing: "1995.0" is "1995"."""
    return column.str.replace(r"^([+-]?[0-9]+)\.0+$", r"\1", regex=True)


def as_timestamps(column: pd.Series) -> tuple[pd.Series, str, Places]:
    """Cast to int64: integers, integral floats and decimals, ISO 8601 dates and times since 1970, UTC.

    Integers stay as they are. Dates and times are counted in the coarsest unit that loses nothing.

    Args:
        column: Shape (n,); str, numbers, dates or datetimes. A date without a zone counts as UTC.

    Returns:
        The column as int64 (0 where wrong), the unit of all of it, and the places of missing, non-finite or
        unreadable values.

    Raises:
        MixedUnitsError: Integers are in several units.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        moments = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        values, unit = _since_1970(moments)
        return pd.Series(values, index=column.index), UNITS[unit], np.flatnonzero(column.isna().to_numpy())
    plain_counts = _plain_integers(column)
    if plain_counts is not None:  # the rest takes fifty times as long
        return pd.Series(plain_counts, index=column.index), UNITS[_unit_of(plain_counts)], np.array([], dtype=np.intp)
    if not _is_plain_text(column):
        too_narrow = skips_integers(column) & (column.dtype != np.float64)
        column = column.astype(object).map(_moment).mask(too_narrow)
    text = column.astype("str")
    counts, is_count = _integers(text)
    unit = _unit_of(counts[is_count])
    # Words such as "now" are dates to pandas, and it cuts what is finer than a nanosecond.
    is_date = ~is_count & np.array(text.str.fullmatch(r"\s*[0-9]{4}(?!.*\.[0-9]{10}).*", na=False), dtype=bool)
    dates = pd.to_datetime(text[is_date], errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None)
    moments, date_unit = _since_1970(dates)
    is_date[is_date] = dates.notna().to_numpy()
    finer = max(unit, date_unit)
    values = np.zeros(len(text), dtype="int64")
    for which, found, own in (is_count, counts[is_count], unit), (is_date, moments[dates.notna()], date_unit):
        factor = 1000 ** (finer - own)
        which[which] = fits = np.abs(found) < _INT64 // factor
        values[which] = found[fits] * factor
    return pd.Series(values, index=column.index), UNITS[finer], np.flatnonzero(~is_count & ~is_date)


def as_numbers(column: pd.Series) -> tuple[pd.Series, Places]:
    """Cast to float64.

    Returns:
        The column, and the places of missing, non-finite or unreadable values.
    """
    column = _decoded(column)
    if column.dtype == object:
        column = column.map(lambda value: value if isinstance(value, str | int | float | Decimal) else None)
    elif not (_is_plain_text(column) or pd.api.types.is_numeric_dtype(column.dtype)):
        column = column.astype(object).mask(np.ones(len(column), dtype=np.bool_))  # dates would become counts
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    return numbers, np.flatnonzero(~np.isfinite(numbers.to_numpy()))


def _decoded(column: pd.Series) -> pd.Series:
    """The cells of a categorical column."""
    is_coded = isinstance(column.dtype, pd.CategoricalDtype)
    return column.astype(column.cat.categories.dtype) if is_coded else column


def skips_integers(column: pd.Series) -> NDArray[np.bool_]:
    """Which cells are floats so large that neighbours of their type are more than 1 apart, bool (n,)."""
    if column.dtype not in (np.float16, np.float32, np.float64):
        return np.zeros(len(column), dtype=np.bool_)
    found: NDArray[np.bool_] = np.abs(column.to_numpy()) > 2.0 ** (np.finfo(str(column.dtype)).nmant + 1)
    return found


def _is_plain_text(column: pd.Series) -> bool:
    return column.dtype != object and pd.api.types.is_string_dtype(column.dtype)


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty; a list or a dictionary never is."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _written(value: Any) -> str | None:
    """A cell as a CSV file would hold it; None for what is neither text nor an exact integer nor a date."""
    if isinstance(value, bool | np.bool_) or _is_missing(value):
        return None
    if isinstance(value, str | int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() and abs(float(value)) <= _EXACT else None
    if isinstance(value, Decimal):
        return f"{value:.0f}" if value.is_finite() and value == value.to_integral_value() else None
    return None


def _moment(value: Any) -> str | None:
    """The same of a time: dates in ISO 8601, and integral floats of any size."""
    if isinstance(value, dt.date) and not _is_missing(value):
        return value.isoformat()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return _written(value)


def _joined(value: Any) -> str | None:
    """The same, or the parts of a list, without empty ones, joined by a comma; an empty list is an empty text."""
    if not isinstance(value, list | tuple | np.ndarray):
        return _written(value)
    parts = [_written(part) for part in value if not _is_missing(part)]
    return None if None in parts else ", ".join(part for part in parts if part)


def _plain_integers(column: pd.Series) -> NDArray[np.int64] | None:
    """A column of nothing but integers of up to 18 digits, or of their plain texts; else None."""
    cells = pa.array(column, from_pandas=True) if _is_plain_text(column) else None
    if cells is None and pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        cells = pa.array(column)
        low, high = pc.min_max(cells).as_py().values() if len(cells) else (0, 0)
        cells = cells if low > -LONGEST and high < LONGEST else None
    elif cells is not None and not pc.all(pc.match_substring_regex(cells, "^-?[0-9]{1,18}$"), skip_nulls=False).as_py():
        cells = None
    if cells is None:
        return None
    values: NDArray[np.int64] = np.array(pc.cast(cells, pa.int64()))
    return values


def _integers(text: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Cells that are integers, exactly, and which these are; "13.0" and "1.5e9" are."""
    plain = np.array(text.str.fullmatch(r"\s*[+-]?[0-9]{1,18}(\.0*)?\s*", na=False), dtype=bool)
    values = np.zeros(len(text), dtype="int64")
    values[plain] = text[plain].str.strip().str.replace(r"\.0*$", "", regex=True).astype("int64").to_numpy()
    for place in np.flatnonzero(~plain & text.str.match(r"\s*[+-]?[0-9.]+([eE]|\s*$)", na=False).to_numpy()):
        try:
            number = Decimal(text.iloc[place].strip())
        except InvalidOperation:
            continue
        # The exponent first: 1e999999999 as an integer would fill the memory.
        if number.adjusted() < 19 and number == number.to_integral_value() and abs(number) < _INT64:
            values[place], plain[place] = int(number), True
    return values, plain


def _unit_of(counts: NDArray[np.int64]) -> int:
    """Place in UNITS of the unit that integers since 1970 are in, by their size."""
    return unit_of_sizes([int(np.count_nonzero((counts >= begin) | (counts <= -begin))) for begin in UNIT_BEGINS])


def unit_of_sizes(at_least: list[int]) -> int:
    """The same, if so many counts are at least as large as each of UNIT_BEGINS, whatever their sign.

    Raises:
        MixedUnitsError: They are in several units.
    """
    found = {unit: n - finer for unit, (n, finer) in enumerate(pairwise([*at_least, 0])) if n > finer}
    if len(found) > 1:
        raise MixedUnitsError(" and ".join(f"{n:,} row(s) in {UNITS[unit]}" for unit, n in found.items()))
    return next(iter(found), 0)


def _since_1970(moments: pd.Series) -> tuple[NDArray[np.int64], int]:
    """Datetimes without a zone as counts (0 where missing), and the coarsest unit that loses nothing."""
    unit = _DTYPES.index(np.datetime_data(moments.to_numpy().dtype)[0])
    values = moments.fillna(pd.Timestamp(0)).to_numpy().astype("int64")
    while unit and not (values % 1000).any():
        values, unit = values // 1000, unit - 1
    return values, unit
