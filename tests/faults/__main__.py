"""`python -m tests.faults FOLDER SCENARIO ... [--limit N] [--seconds N] [--memory]`, under LD_PRELOAD of faults.c.

A scenario is a function of `scenarios`, or `stage:INSTANCE`. Prints what it found by scenario, as JSON.
"""

import argparse
import json
from pathlib import Path

from tests.faults import scenarios
from tests.faults.run import Injection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scenarios", nargs="+")
    parser.add_argument("--limit", type=int, default=0, help="so many faults of each kind; 0 = every one")
    parser.add_argument("--seconds", type=float, default=1e9, help="of each scenario: no fault after so many")
    parser.add_argument("--memory", action="store_true", help="let it run out of memory too")
    options = parser.parse_args()
    told = {}
    for scenario in options.scenarios:
        name, _, instance = scenario.partition(":")
        make, work = getattr(scenarios, name), options.folder.resolve() / scenario.replace(":", "-") / "work"
        work.mkdir(parents=True)
        injection = Injection(make(work, instance) if instance else make(work))
        found = injection.run(limit=options.limit, seconds=options.seconds)
        if options.memory:
            injection.run_out_of_memory()
        outcomes = dict(sorted(found.outcomes.items()))
        told[scenario] = {"possible": found.possible, "outcomes": outcomes, "problems": found.problems}
    print(json.dumps(told))  # noqa: T201


main()
