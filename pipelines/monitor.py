"""`python -m pipelines monitor`: this run's facts beside earlier runs'; exit status 1 = one is beyond its limit."""

import sys

from llm_i2i.monitoring.drift import FACTS, Found, shown
from llm_i2i.monitoring.run import watch_run
from llm_i2i.params import load_params

_HEADER = ("fact", "this run", "median", "at least", "at most", "", "what it is")


def monitor() -> bool:
    """Print every fact with its limits, then what lies beyond; whether nothing does.

    Raises:
        ArtifactError: Stage report has not run.
        ParamsError: params.yaml breaks its schema.
    """
    watched = watch_run(load_params())
    rows = [_HEADER, *map(_row, watched.found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
    told = "".join(f"ALARM {text}\n" for text in watched.alarms) or "no alarm\n"
    sys.stdout.write(f"{table}\nagainst {watched.against}\n{told}")
    return not watched.alarms


def _row(one: Found) -> tuple[str, ...]:
    values = ("-" if value is None else shown(value) for value in (one.value, one.median, one.low, one.high))
    mark = "ALARM" if one.alarms else "ignored" if one.drifts else ""
    return (one.name, *values, mark, FACTS[one.name].words)
