"""What data gain from the method: sub-samples of three data sets, their facts and their measured gain.

    python -m benchmarks.forecast [--movielens data] [--ard ../shared/ard] [--work .bench/forecast] [--seconds N]

Every sub-sample runs profile compact as it is, on one thread, by the stages' own steps: split to evaluate, arms real,
llm_i2i and item_knn with Swing. One JSON file per sub-sample in the work folder: what is there is not run again. When
all are there, the basis of `python -m pipelines forecast` is written, benchmarks/results/forecast.json, and the plot of
docs/your-data.md. Its line goes through part fit; part check was held back until the line's fact was chosen.
"""

import argparse
import logging
import os
import tempfile
import time
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.forecast_plot import plot_gains
from benchmarks.gpu_context import ROOT
from benchmarks.gpu_graph import matrix_of
from llm_i2i.data.hashing import seeded_hash
from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import split_interactions
from llm_i2i.evaluation.bootstrap import pooled_difference
from llm_i2i.evaluation.forecast import Basis, data_facts
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.files import read_json, write_array, write_json, write_text
from llm_i2i.llm.text_vectors import encode_items
from llm_i2i.params import Params, read_profile
from llm_i2i.params.reading import overlay
from llm_i2i.params.rendering import HEAD, yaml_text
from llm_i2i.schema import ITEM_ID, ITEMS, PER_USER, TIMESTAMP, USER_ID, read_table
from pipelines.forecast import BASIS, WORDS
from pipelines.stages import stage_pipeline
from steps import paths

STAGES_RUN = (
    "split", "tag", "encode_text", "identify", "base_model", "train_generator", "train_discriminator", "synthesize",
    "controls", "score", "judge", "fuse", "train_i2i", "evaluate",
)  # fmt: skip
CHANGES = {
    "runtime": {"device": "cpu", "precision": "fp32", "threads": 1},  # the same on every CPU
    "train_i2i": {"models": ["swing"]},
    "controls": {"names": ["item_knn"]},
    "fuse": {"arms": ["real", "llm_i2i", "item_knn"]},
}
RESAMPLES = 10_000
FACT = "reachable"  # chosen on part fit alone


class Sample(NamedTuple):
    """A sub-sample of a data set; of what is 0 everything stays.

    Attributes:
        data: Name of the data set.
        part: fit: the rule is fitted on it. check: held back.
        half: Which half of the users, by seeded hash: 1 or 2.
        users: So many users of these.
        top_items: The most frequent items.
        last: Each user's last items.
        first: Each user's first items.
        core: Items with at least so many interactions.
    """

    data: str
    part: str
    half: int = 0
    users: int = 0
    top_items: int = 0
    last: int = 0
    first: int = 0
    core: int = 0

    @property
    def name(self) -> str:
        """Such as `toys half1 top_items1000`."""
        drawn = [f"{field}{value}" for field, value in self._asdict().items() if value and isinstance(value, int)]
        return " ".join([self.data, *drawn])


def draw(table: pd.DataFrame, sample: Sample) -> pd.DataFrame:
    """The sample's interactions, of users with at least 5 of them, in time order."""
    table = table.sort_values([USER_ID, TIMESTAMP], kind="stable").drop_duplicates([USER_ID, ITEM_ID])
    names = np.sort(table[USER_ID].unique().astype(object))
    names = names[np.argsort(seeded_hash(0, names), kind="stable")]
    if sample.half:
        names = names[sample.half - 1 :: 2]
    table = table[table[USER_ID].isin(names[: sample.users or None])]
    if sample.top_items:
        table = table[table[ITEM_ID].isin(table[ITEM_ID].value_counts().index[: sample.top_items])]
    by_user = table.groupby(USER_ID, sort=False)
    table = by_user.tail(sample.last) if sample.last else by_user.head(sample.first) if sample.first else table
    while True:
        enough = table.groupby(USER_ID)[ITEM_ID].transform("size") >= 5
        enough &= table.groupby(ITEM_ID)[USER_ID].transform("size") >= sample.core
        if enough.all():
            return table
        table = table[enough]


def text_of(data: Path, params: Params, *, keep: Path, downloads: Path) -> pd.DataFrame:
    """The text vectors of a data set's catalogue, one row per item_id: encoded once for all of its sub-samples."""
    if not keep.is_file():
        raw = read_raw(data)
        vectors, _ = encode_items(
            tag_items(raw.items, raw.interactions.iloc[:0], params=params.tag, seed=params.seed), params.encode_text,
            runtime=params.runtime, downloads=downloads,
        )  # fmt: skip
        pd.DataFrame(vectors, index=sorted(raw.items[ITEM_ID])).rename(columns=str).to_parquet(keep)
    return pd.read_parquet(keep)


def run_stages(whole: dict[str, Any], vectors: pd.DataFrame) -> dict[str, float]:
    """Run every stage in the working folder, which holds data/; returns seconds by stage."""
    params = Params.model_validate(whole)
    Path("params.yaml").write_text(yaml_text({**whole, "profile": ""}, HEAD), encoding="utf-8")
    seconds = {}
    for stage in STAGES_RUN:
        began = time.perf_counter()
        if stage == "encode_text":
            items = read_table(paths.ITEMS, ITEMS)
            write_array(vectors.loc[items[ITEM_ID]].to_numpy(dtype=np.float32), paths.TEXT_VECTORS)
        else:
            for keys in matrix_of(stage, params):
                stage_pipeline(stage)(**keys)
        seconds[stage] = round(time.perf_counter() - began, 1)
    return seconds


def gain_of(arm: str) -> dict[str, float]:
    """Relative gain of an arm's Recall@10 over arm real, with the 95 % interval of the difference of the same users."""
    of, to = (
        per_user_metric("recall@10", read_table(paths.EVALUATION / f"swing-{name}.parquet", PER_USER)["rank"])
        for name in (arm, "real")
    )
    found = pooled_difference([of - to], resamples=RESAMPLES, seed=0)
    return {name: round(float(value / to.mean()), 4) for name, value in found._asdict().items()}


def measure(sample: Sample, data: Path, whole: dict[str, Any], vectors: pd.DataFrame) -> dict[str, Any]:
    """Draw the sample, compute its facts, run the method and compare."""
    raw, params = read_raw(data), Params.model_validate(whole)
    drawn = draw(raw.interactions, sample)
    items = raw.items[raw.items[ITEM_ID].isin(drawn[ITEM_ID])]
    with tempfile.TemporaryDirectory() as name, chdir(name):
        Path("data").mkdir()
        drawn.rename(columns={TIMESTAMP: raw.order}).to_csv("data/interactions.csv", index=False)
        items.to_csv("data/items.csv", index=False)
        seconds = run_stages(whole, vectors)
        gains = {arm: gain_of(arm) for arm in ("llm_i2i", "item_knn")}
        metrics = {arm: read_json(paths.METRICS / f"swing-{arm}.json") for arm in ("real", *gains)}
        facts = facts_of(Path("data"), params)
    return {
        "name": sample.name, "data": sample.data, "part": sample.part, "facts": facts, "gain": gains["llm_i2i"],
        "gain_item_knn": gains["item_knn"], "test_users": metrics["real"]["n_users"],
        "recall@10": {arm: round(found["overall"]["recall@10"], 6) for arm, found in metrics.items()},
        "seconds": round(sum(seconds.values()), 1),
    }  # fmt: skip


# Held back: other users of Toys and Beauty, other interactions of MovieLens-100K's, other sizes.
SAMPLES = (
    Sample("toys", "fit", half=1, users=3000),
    Sample("toys", "fit", half=1, users=1500),
    Sample("toys", "fit", half=1, top_items=2000),
    Sample("toys", "fit", half=1, top_items=1000),
    Sample("toys", "fit", half=1, top_items=500),
    Sample("beauty", "fit", half=1, users=2500),
    Sample("beauty", "fit", half=1, top_items=1000),
    Sample("beauty", "fit", half=1, top_items=300),
    Sample("ml100k", "fit", last=40),
    Sample("ml100k", "fit", last=30),
    Sample("ml100k", "fit", last=20),
    Sample("ml100k", "fit", last=10),
    Sample("ml100k", "fit", last=7),
    Sample("ml100k", "fit", top_items=100),
    Sample("toys", "check", half=2, top_items=600),
    Sample("ml100k", "check", first=8),
    Sample("beauty", "check", half=2, top_items=700),
    Sample("toys", "check", half=2, top_items=1500),
    Sample("ml100k", "check", first=11),
    Sample("beauty", "check", half=2, core=10),
    Sample("ml100k", "check", first=15),
    Sample("toys", "check", half=2, users=1000),
    Sample("ml100k", "check", top_items=200, first=12),
    Sample("beauty", "check", half=2, users=1000),
    Sample("ml100k", "check", first=20),
)


def facts_of(data: Path, params: Params) -> dict[str, float]:
    """The facts of the tables in a folder, as `python -m pipelines forecast` finds them."""
    raw = read_raw(data)
    split = split_interactions(raw.interactions, params=params.split, seed=params.seed, order=raw.order)
    items = tag_items(raw.items, split.train, params=params.tag, seed=params.seed)
    return asdict(data_facts(split, items, params=params))


def whole(name: str, data: Path, params: Params) -> dict[str, Any]:
    """The row of a data set as it is, whose gain the benchmark has measured with three seeds."""
    found = {
        (row["arm"], row["against"]): row
        for row in read_json(ROOT / f"reports/benchmark/{name}/ablation.json")["rows"]
        if (row["point"], row["model"], row["slice"], row["metric"]) == ("our recipe", "swing", "overall", "recall@10")
    }
    ends, real = found["llm_i2i", "arm real"], found["real", ""]["value"]
    gain = {to: round(ends[of] / real, 4) for of, to in (("difference", "mean"), ("low", "low"), ("high", "high"))}
    return {"name": name, "data": name, "part": "whole", "facts": facts_of(data, params), "gain": gain}


def write(rows: list[dict[str, Any]], fact: str) -> None:
    """Write the basis, and the plot that docs/your-data.md shows."""
    basis = Basis(rows, fact)
    about = "Relative gain of Swing's Recall@10 by arm llm_i2i of profile compact, by python -m benchmarks.forecast"
    write_json({"about": about, "fact": fact, "check": basis.checked(), "rows": rows}, ROOT / BASIS)
    write_text(plot_gains(basis, fact=WORDS[fact][0]).svg, ROOT / "docs/forecast.svg")


def main() -> None:
    """Measure what is missing; when nothing is, write the basis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, default=ROOT / "data")
    parser.add_argument("--ard", type=Path, default=ROOT / "../shared/ard", help="folder with toys/ and beauty/")
    parser.add_argument("--work", type=Path, default=ROOT / ".bench/forecast", help="what is there is not run again")
    parser.add_argument("--part", choices=("fit", "check"), help="only this part")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no sub-sample after so long")
    options = parser.parse_args()
    started = time.perf_counter()
    os.environ["LLM_I2I_ZENML"] = "off"
    logging.basicConfig(level=logging.WARNING)
    where = {"ml100k": options.movielens, "toys": options.ard / "toys", "beauty": options.ard / "beauty"}
    where, work = {name: folder.resolve() for name, folder in where.items()}, options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    values = overlay(read_profile("compact", ROOT), CHANGES)
    params = Params.model_validate(values)
    for sample in SAMPLES:
        out = work / f"{sample.name}.json"
        if out.is_file() or options.part not in (None, sample.part):
            continue
        if time.perf_counter() - started > options.seconds:
            return
        vectors = text_of(where[sample.data], params, keep=work / f"{sample.data}.parquet", downloads=work)
        row = measure(sample, where[sample.data], values, vectors)
        write_json(row, out)
        print(row["name"], row["gain"], row["seconds"], flush=True)
    if options.part is None:
        rows = [read_json(work / f"{sample.name}.json") for sample in SAMPLES]
        write([*rows, *(whole(name, where[name], params) for name in ("toys", "beauty"))], FACT)


if __name__ == "__main__":
    main()
