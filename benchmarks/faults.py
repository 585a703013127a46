"""Let every write, flush, rename and creation fail in turn, or kill there, below every library; and run out of memory.

    python -m benchmarks.faults --data data --seconds 60

Each stage of the ci profile, one by one in a finished project, and what else writes: export, gate, promotion, sweep,
the service's store and events, and `dvc repro` itself. A scenario that has more faults than fit into its seconds meets
the first, the last and random ones; `possible` says how many there are. Figures are merged into results/faults.json, so
that a run may be cut into pieces (--scenarios). See tests/faults.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llm_i2i.files import write_json
from tests.conftest import RedisServer
from tests.e2e.project import Project
from tests.faults import compiled

RESULTS = Path(__file__).parent / "results" / "faults.json"
STAGES = (
    "validate", "split", "tag", "encode_text", "identify", "base_model", "train_generator", "train_discriminator",
    "synthesize", "controls@item_knn", "score@generator", "judge", "fuse@llm_i2i", "train_i2i@swing-real",
    "train_i2i@bpr-real", "evaluate@swing-real", "evaluate_generator@llm_only", "report",
)  # fmt: skip
OTHERS = (
    "single_files", "folder", "checkpoints", "adapter", "export_file", "export_to_redis", "serving_store", "events",
    "gate", "promote", "sweep", "repro",
)  # fmt: skip
# A run out of memory: where a command of ours computes.
MEMORY = {*(f"stage:{name}" for name in STAGES), "export_file", "serving_store"}


def finished(folder: Path, data: Path) -> Path:
    """A project after a run of the ci profile."""
    project = Project.copy(folder, data=data)
    project.repro()
    project.commit("a run")
    return folder


def found(scenario: str, folder: Path, seconds: float, environment: dict[str, str]) -> dict[str, Any]:
    """What the faults of one scenario led to."""
    command = [sys.executable, "-m", "tests.faults", str(folder / "faulty"), scenario, "--seconds", str(seconds)]
    done = subprocess.run(
        command + ["--memory"] * (scenario in MEMORY),
        env={**os.environ, **environment, "FAULTS_STATE": str(folder / "state")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(folder / "faulty")
    (folder / "state").unlink()
    return json.loads(done.stdout.splitlines()[-1])[scenario]


def record(scenario: str, facts: dict[str, Any], seconds: float) -> None:
    """Merge one scenario's figures into the results."""
    known = json.loads(RESULTS.read_text(encoding="utf-8"))
    problems, outcomes = facts["problems"], facts["outcomes"]
    known["scenarios"][scenario] = {
        "possible": facts["possible"],
        "injected": sum(count for name, count in outcomes.items() if not name.startswith("no memory")),
        "neither_old_nor_new": sum("neither old nor new" in problem for problem in problems),
        "other_problems": sum("neither old nor new" not in problem for problem in problems),
        "seconds": round(seconds, 1),
        "outcomes": outcomes,
    }
    scenarios = known["scenarios"].values()
    for name in ("injected", "possible", "neither_old_nor_new", "other_problems"):
        known[name] = sum(one[name] for one in scenarios)
    known["out_of_memory"] = sum(n for one in scenarios for name, n in one["outcomes"].items() if "no memory" in name)
    write_json(known, RESULTS)


def main() -> None:
    everything = [*(f"stage:{name}" for name in STAGES), *OTHERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="*", default=everything, metavar="NAME", help=" ".join(everything))
    parser.add_argument("--seconds", type=float, default=60, help="of each scenario")
    parser.add_argument("--data", type=Path, default=Path("data"), help="raw tables")
    parser.add_argument("--project", type=Path, help="a finished project of the ci profile, instead of a run of it")
    options = parser.parse_args()
    settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LLM_I2I_ZENML": "off", "MPLBACKEND": "Agg"}
    os.environ.update(settings | {"TOKENIZERS_PARALLELISM": "false", "GX_ANALYTICS_ENABLED": "false"})
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {
            "LD_PRELOAD": str(compiled(folder)),
            "FAULTS_PROJECT": str(options.project or finished(folder / "ci", options.data)),
        }
        server = RedisServer(folder)
        if shutil.which("redis-server"):
            server.start()
            environment["FAULTS_REDIS"] = server.url
        for scenario in options.scenarios:
            started = time.monotonic()
            facts = found(scenario, folder, options.seconds, environment)
            record(scenario, facts, time.monotonic() - started)
            print(scenario, json.dumps(facts, indent=2), flush=True)
            failed |= bool(facts["problems"])
        if server.port:
            server.kill()
    sys.exit(failed)


if __name__ == "__main__":
    main()
