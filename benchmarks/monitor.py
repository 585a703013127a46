"""How often the monitor is right: made-up shops, ten clean days in a row each, and every planted fault on top of them.

    python -m benchmarks.monitor --seeds 10000 10020

The seeds are none of those that the limits were set with, nor the test's. See tests/llm_i2i/monitoring/shop.py.
"""

import argparse
import logging
from pathlib import Path

from llm_i2i.files import read_json, write_json
from llm_i2i.monitoring.drift import watch
from tests.llm_i2i.monitoring.shop import FAULTS, PARAMS, TOLD_BY, Shop, faulty, run_of

RESULTS = Path(__file__).parent / "results" / "watched_shops.json"
SEEDS = (10_000, 10_020)
CLEAN = 10


def measure(seed: int) -> tuple[list[tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """The facts that raise an alarm on each clean day of one shop, and on each fault after them."""
    shop, runs = Shop(seed), []
    clean, faults = [], {}
    for night in range(PARAMS.monitor.min_runs + CLEAN):
        run = run_of(shop.export(), night)
        if night >= PARAMS.monitor.min_runs:
            clean.append(alarms(run, runs))
        runs.insert(0, run)
        shop.next()
    for name in FAULTS:
        faults[name] = alarms(faulty(name, shop.export(), seed), runs)
    return clean, faults


def alarms(run: dict, earlier: list[dict]) -> tuple[str, ...]:
    """Names of the facts that raise one."""
    return tuple(one.name for one in watch(run, earlier, PARAMS.monitor).found if one.alarms)


def main() -> None:
    """Measure some shops and merge them into the results, so that a run may be cut into pieces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=SEEDS, help="first, and after the last")
    logging.disable(logging.WARNING)  # what split drops
    for seed in range(*parser.parse_args().seeds):
        clean, faults = measure(seed)
        known = read_json(RESULTS)["by_shop"] if RESULTS.is_file() else {}
        known[str(seed)] = {
            "false_alarms": [list(found) for found in clean if found],
            "missed": [name for name, found in faults.items() if not found],
            "told_by_another": [name for name, found in faults.items() if found and TOLD_BY[name] not in found],
        }
        print(seed, known[str(seed)], flush=True)
        write_json(summary(dict(sorted(known.items()))), RESULTS)


def summary(by_shop: dict[str, dict]) -> dict:
    """Totals over all shops, and what each came to."""
    false, missed, others = ([shop[key] for shop in by_shop.values()] for key in next(iter(by_shop.values())))
    planted = len(by_shop) * len(FAULTS)
    return {
        "shops": len(by_shop),
        "clean_days": CLEAN * len(by_shop),
        "clean_days_with_an_alarm": sum(map(len, false)),
        "shops_without_a_false_alarm": sum(not found for found in false),
        "kinds_of_faults": len(FAULTS),
        "faults": planted,
        "caught": planted - sum(map(len, missed)),
        "told_by_another": sum(map(len, others)),
        "least_caught_in_a_shop": len(FAULTS) - max(map(len, missed)),
        "by_shop": by_shop,
    }


if __name__ == "__main__":
    main()
