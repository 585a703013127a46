"""Stages of the compact backbone by one process and by two, in one run: users a second, and equal bytes.

    python benchmarks/parts.py PROJECT [--stages synthesize score] [--copies 5] [--out benchmarks/results/parts.json]

PROJECT is a folder with a finished run of profile compact. Its users are taken --copies times, so that starting a
process does not dominate. Each stage runs as a command of its own: one process with two threads, one with one thread,
two with one thread each; all must write the same bytes. `users_per_s` is over the searching alone, in which the second
process starts; the rest of a command, imports, tables, prompts and writing, is stated beside it. Needs two free cores.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from llm_i2i.files import content_md5, read_json, write_json
from llm_i2i.params.reading import overlay, read_written
from llm_i2i.schema import HELD_OUT, INTERACTIONS, SYNTHETIC, read_table, write_table

ROOT = Path(__file__).parents[1]
OUTPUT = {"synthesize": "artifacts/proposed/generator.parquet", "score": "artifacts/scored/generator.parquet"}
OPTIONS = {"synthesize": [], "score": ["--source", "generator"]}
RUNS = {"one_process_two_threads": (1, 2), "one_process_one_thread": (1, 1), "two_processes": (2, 2)}


def prepare(project: Path, folder: Path, copies: int) -> int:
    """Copy a run with its users `copies` times; returns the number of users."""
    (folder / "artifacts/split").mkdir(parents=True)
    for name in ("base_model", "generator", "discriminator", "identifiers", "items", "text"):
        (folder / "artifacts" / name).symlink_to((project / "artifacts" / name).resolve())
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    n_users = 0
    for name, columns in (
        ("split/train", INTERACTIONS),
        ("split/held_out", HELD_OUT),
        ("proposed/generator", SYNTHETIC),
    ):
        table = read_table(project / f"artifacts/{name}.parquet", columns)
        many = [table.assign(user_id=f"{copy}-" + table["user_id"]) for copy in range(copies)]
        (folder / f"artifacts/{name}").parent.mkdir(exist_ok=True)
        write_table(pd.concat(many, ignore_index=True), folder / f"artifacts/{name}.parquet", columns)
        n_users = n_users or copies * table["user_id"].nunique()
    return n_users


def measure(project: Path, folder: Path, stage: str, *, processes: int, threads: int) -> dict[str, Any]:
    """Run a stage as its command does."""
    runtime = {"device": "cpu", "precision": "fp32", "threads": threads, "processes": processes}
    values = overlay(read_written(project / "params.yaml"), {"runtime": runtime})
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**own, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "LLM_I2I_ZENML": "off"}
    command = [sys.executable, "-m", "pipelines", stage, *OPTIONS[stage]]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    searching = float(re.findall(r"(?:prompts|pairs) in ([\d.]+) s", done.stderr)[-1])
    return {
        "processes": processes,
        "threads": threads,
        "command_seconds": round(wall, 1),
        "search_seconds": searching,
        "start_and_write_seconds": round(wall - searching, 1),
        "md5": content_md5(folder / OUTPUT[stage]),
    }


def main() -> None:
    """Measure every stage, print and write JSON; stop where the bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--stages", nargs="+", choices=tuple(OUTPUT), default=list(OUTPUT))
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/parts.json")
    options = parser.parse_args()
    result = read_json(options.out) if options.out.is_file() else {}
    for stage in options.stages:
        with tempfile.TemporaryDirectory() as name:
            n_users = prepare(options.project, Path(name), options.copies)
            runs = {
                run: measure(options.project, Path(name), stage, processes=processes, threads=threads)
                for run, (processes, threads) in RUNS.items()
            }
        if len({run["md5"] for run in runs.values()}) > 1:
            sys.exit(f"{stage}: the bytes differ: {runs}")
        for run in runs.values():
            run["users_per_s"] = round(n_users / run["search_seconds"])
        rate = runs["two_processes"]["users_per_s"]
        ratios = {f"over_{run}": round(rate / runs[run]["users_per_s"], 2) for run in list(RUNS)[:2]}
        result |= {stage: {"users": n_users, **runs, **ratios}}
        print(json.dumps(result[stage], indent=2))
        write_json(result, options.out)


if __name__ == "__main__":
    main()
