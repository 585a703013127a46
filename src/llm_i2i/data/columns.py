"""Cast one raw column; rows that cannot be cast are returned by their places, never guessed."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Places = NDArray[np.intp]


def as_text(column: pd.Series) -> tuple[pd.Series, Places]:
    """Cast to str: integers without a decimal point, missing stays missing.

    Args:
        column: Shape (n,), any dtype. Floats count only where integral: Parquet turns integers with
            missing values into floats.

    Returns:
        The column as `str` dtype, and the places of values that are no text and no integer.
    """
    if pd.api.types.is_float_dtype(column.dtype):
        values = column.to_numpy(dtype="float64", na_value=np.nan)
        wrong = ~np.isnan(values) & ~(np.isfinite(values) & (np.floor(values) == values))
        whole = column.mask(pd.Series(wrong, index=column.index))
        return whole.astype("Int64").astype("str"), np.flatnonzero(wrong)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_string_dtype(column.dtype) or pd.api.types.is_integer_dtype(column.dtype):
        return column.astype("str"), np.array([], dtype=np.intp)
    kept = column.map(lambda value: isinstance(value, str | int) or pd.isna(value)).astype(bool)
    text = column.where(kept).map(lambda value: value if pd.isna(value) else str(value))
    return text.astype("str"), np.flatnonzero(~kept.to_numpy())


def as_timestamps(column: pd.Series) -> tuple[pd.Series, Places]:
    """Cast to int64: integers, integral floats, ISO 8601 dates and times (as seconds since 1970, UTC).

    Args:
        column: Shape (n,); str, numbers or datetimes. A date without a zone counts as UTC.

    Returns:
        The column as int64 (0 where wrong), and the places of missing, non-finite or unreadable values.
    """
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        return column.astype("int64"), np.array([], dtype=np.intp)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _epoch_seconds(column)
    try:  # the usual file: every cell an integer; exact beyond 2^53, unlike a detour through floats
        return column.astype("int64"), np.array([], dtype=np.intp)
    except (ValueError, TypeError, OverflowError):
        pass
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
    whole = np.isfinite(values) & (np.floor(values) == values) & (np.abs(values) < 2.0**62)
    if whole.all():
        return pd.Series(values.astype("int64"), index=column.index), np.array([], dtype=np.intp)
    # Only what is no number at all is tried as a date: 1.5 or inf never becomes one.
    dates, unreadable = _epoch_seconds(column.mask(~np.isnan(values)))
    result = np.where(whole, np.where(whole, values, 0).astype("int64"), dates.to_numpy())
    wrong = ~whole
    wrong[np.setdiff1d(np.arange(len(column)), unreadable)] = False
    return pd.Series(result, index=column.index), np.flatnonzero(wrong)


def as_numbers(column: pd.Series) -> tuple[pd.Series, Places]:
    """Cast to float64.

    Returns:
        The column, and the places of missing, non-finite or unreadable values.
    """
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    return numbers, np.flatnonzero(~np.isfinite(numbers.to_numpy()))


def _epoch_seconds(column: pd.Series) -> tuple[pd.Series, Places]:
    """Whole seconds since 1970 (rounded down), and the places of values that are no ISO 8601 date."""
    dates = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    seconds = dates.dt.tz_localize(None).astype("datetime64[s]")
    wrong = seconds.isna().to_numpy()
    whole = seconds.mask(wrong, pd.Timestamp(0)).astype("datetime64[s]").astype("int64")
    return whole, np.flatnonzero(wrong)
