"""Clean copies of the ci profile in several environments: every output of dvc.lock must have one and the same hash.

    python -m benchmarks.environments --data data

With `--folder` and `--seconds` it stops between two stages when the time is over; run again, it goes on (exit status 3
until all is done).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from llm_i2i.files import write_json
from llm_i2i.stages import STAGES
from tests.e2e.project import Project

RESULTS = Path(__file__).parent / "results" / "environments.json"
# What a scheduler, a shell and a container may have set: a rank of another program, a locale that knows ASCII only and
# that Python is kept from mending, a day that has begun already.
ELSEWHERE = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "TZ": "Pacific/Kiritimati",
}
# Name of the folder: whether stages run in ZenML, and what others have set.
PLACES: dict[str, tuple[bool, dict[str, str]]] = {
    "off": (False, {}),
    "on": (True, {}),
    "else where": (False, ELSEWHERE),
    "else where in ZenML": (True, ELSEWHERE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="raw tables")
    parser.add_argument("--folder", type=Path, help="where the copies are kept (default: a temporary folder)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no stage begins after so many")
    parser.add_argument("--places", nargs="*", default=list(PLACES), choices=list(PLACES))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for place in options.places:
            if not run(folder / place, *PLACES[place], data=options.data, end=end):
                print(f"not done yet: {place}")
                sys.exit(3)
        found = {place: Project(folder / place).locked_outs() for place in options.places}
    first = found[options.places[0]]
    differing = {
        place: sorted(k for k in outs.keys() | first if outs.get(k) != first.get(k)) for place, outs in found.items()
    }
    facts = {"outputs": len(first), "places": {place: PLACES[place][1] for place in found}, "differing": differing}
    write_json(facts, RESULTS)
    print(json.dumps(facts, indent=2))
    sys.exit(any(differing.values()))


def run(root: Path, zenml: bool, others: dict[str, str], *, data: Path, end: float) -> bool:
    """Bring a copy up to date, made anew if it is not there; False if the time was over before."""
    project = Project(root, zenml, others) if root.exists() else Project.copy(root, zenml=zenml, data=data)
    project.others = others
    done = root / ".done"
    names = done.read_text(encoding="utf-8").split() if done.exists() else []
    for stage in STAGES:
        if stage in names:
            continue
        if time.monotonic() > end:
            return False
        project.repro(stage)
        names.append(stage)
        done.write_text("\n".join(names), encoding="utf-8")
    return True


if __name__ == "__main__":
    main()
