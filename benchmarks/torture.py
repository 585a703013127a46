"""Kill `make repro` at random moments of the ci profile, again and again, then compare with an undisturbed run.

    python -m benchmarks.torture --kills 100 --seconds 3600 --data data

A kill (SIGKILL) hits dvc alone, its stage alone, or both. Then the run is started again as `make repro` does it:
`python -m pipelines check`, `dvc repro`. Nothing is deleted or restored by hand. When all stages are done the project
begins anew, without cache. At the end every hash that dvc.lock records must be that of the undisturbed run.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from llm_i2i.files import write_json
from tests.e2e.project import Project

PYTHON = sys.executable
RESULTS = Path(__file__).parent / "results" / "torture.json"


class Run:
    """One `make repro`, without its set-up."""

    def __init__(self, project: Project, targets: list[str]) -> None:
        checked = project.pipeline("check", ok=False)
        self.mended = [line for line in checked.stderr.splitlines() if line.startswith("mended: ")]
        self.refused = checked.stderr if checked.returncode else ""
        self.log = project.root / ".torture.log"
        with self.log.open("w") as log:
            self.dvc = subprocess.Popen(
                [PYTHON, "-m", "dvc", "repro", *targets],
                cwd=project.root,
                env=project.environment,
                stdout=log,
                stderr=log,
            )

    def kill(self, whom: str) -> None:
        """Kill dvc, the processes below it, or all of them."""
        processes = psutil.Process(self.dvc.pid).children(recursive=True)
        if whom != "stage":
            self.dvc.send_signal(signal.SIGKILL)
        for process in processes if whom != "dvc" else []:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if whom != "stage":
            self.dvc.wait()


def torture(project: Project, reference: dict[str, str], options: argparse.Namespace) -> dict:
    """Kill until there were enough kills, or no time is left; then let it end."""
    rng, found, mended, problems = random.Random(options.seed), Counter(), Counter(), []
    begun, finished = time.monotonic(), 0
    end = begun + options.seconds
    while True:
        run, last = Run(project, options.targets), found.total() >= options.kills or time.monotonic() > end
        mended.update(line.split()[1] for line in run.mended)
        if run.refused:
            problems.append(run.refused)
            break
        started, wait = time.monotonic(), 1e9 if last else rng.uniform(1, options.longest)
        whom = rng.choice(("dvc", "stage", "both"))
        while run.dvc.poll() is None and time.monotonic() < started + wait:
            time.sleep(0.02)
        if run.dvc.poll() is None:
            run.kill(whom)
            found[whom] += 1
            if whom == "stage":  # dvc ends by itself, with the stage's failure
                run.dvc.wait()
            continue
        if run.dvc.returncode:
            problems.append(run.log.read_text()[-2000:])
            break
        finished += 1
        outs = project.locked_outs()
        problems += [f"{path} differs" for path in reference if outs.get(path) != reference[path]]
        problems += [] if set(outs) == set(reference) else ["other outputs"]
        if last or problems:
            break
        for name in ("artifacts", ".dvc/cache", "dvc.lock"):
            path = project.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    left = [str(path.relative_to(project.root)) for path in project.root.rglob("*.partial")]
    facts = {
        "kills": dict(found), "finished": finished, "mended": dict(mended),
        "seconds_disturbed": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    return {**facts, "problems": problems, "left": left}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3600, help="no kill after so many")
    parser.add_argument("--longest", type=float, default=25, help="seconds until a kill, at most")
    parser.add_argument("--targets", nargs="*", default=[], help="stages, instead of the whole graph")
    parser.add_argument("--data", type=Path, default=Path("data"), help="raw tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file of the figures")
    parser.add_argument("--zenml", action="store_true", help="stages run in ZenML")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        calm, project = (
            Project.copy(Path(folder) / name, zenml=options.zenml, data=options.data) for name in ("calm", "torture")
        )
        started = time.monotonic()
        calm.dvc("repro", *options.targets)
        undisturbed = time.monotonic() - started
        reference = calm.locked_outs()
        facts = torture(project, reference, options)
    facts = {
        "targets": options.targets or "all",
        "seconds_undisturbed": round(undisturbed, 1),
        "outputs": len(reference),
        **facts,
    }
    # With what starting again costs; meaningful on a free machine.
    lost = facts["seconds_disturbed"] - facts["finished"] * undisturbed
    facts["seconds_lost_per_kill"] = round(lost / max(1, sum(facts["kills"].values())), 1)
    write_json(facts, options.results)
    print(json.dumps(facts, indent=2))
    sys.exit(bool(facts["problems"]))


if __name__ == "__main__":
    main()
