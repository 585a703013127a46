"""The GPU path, proven in one sitting.

    make gpu-check, or
    python -m benchmarks.gpu [--device cuda] [--small] [--minutes 25] [--only training ...] [--out FILE]

Models have random weights in the shapes of real ones, so nothing is downloaded: shapes, memory and speed are the same.
Each result is printed and written to FILE as it comes, so a run that is cut off keeps what it has; a part that is run
again replaces its own results only. A part that fails is a result too, and the others go on; what no time is left for
is listed as skipped. Exit status 1 means that a check did not hold. `--device cpu --small` takes
tiny models through every path in about a minute.

Parts, in this order: parity (gpu_parity.py); training, synthesis, scoring (gpu_speed.py); graph (gpu_graph.py,
gpu_method.py).
"""

import argparse
import gc
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_graph, gpu_method, gpu_parity, gpu_speed
from benchmarks.gpu_context import Context, Result
from llm_i2i.files import read_json, write_json
from llm_i2i.llm.engine.device import Runtime

Check = Callable[[Context], Iterator[Result]]
PARTS: dict[str, tuple[Check, ...]] = {
    "parity": (
        gpu_parity.nf4_equals_its_dequantized_weights,
        gpu_parity.beams_are_those_of_the_cpu,
        gpu_parity.shared_prefix_scores_as_single_pairs,
        gpu_parity.training_is_reproduced_and_resumed,
        gpu_parity.paged_optimizer_trains,
        gpu_parity.attention_kernels,
    ),
    "training": (gpu_speed.training_of_llama, gpu_speed.training_of_smollm),
    "synthesis": (gpu_speed.synthesis, gpu_speed.synthesis_against_a_callback),
    "scoring": (gpu_speed.scoring,),
    "graph": (gpu_graph.whole_graph, gpu_method.an_experiment),
}
COLUMNS = ("part", "what", "value", "unit", "holds", "note")


@dataclass
class Record:
    """Results, written as they come.

    Attributes:
        out: JSON file: by part and what was measured, its value, unit, whether it holds, and a note.
        rows: What this run has written.
    """

    out: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: str, result: Result) -> None:
        """Add to the file and print a row of the table."""
        begins = all(row["part"] != part for row in self.rows)
        row = {"part": part, **result._asdict()}
        self.rows.append(row)
        content = read_json(self.out) if self.out.is_file() else {}
        content[part] = ({} if begins else content[part]) | {result.what: {k: row[k] for k in COLUMNS[2:]}}
        write_json(content, self.out)
        shown = {**row, "value": "" if result.value is None else f"{result.value:.4g}"}
        shown["holds"] = {True: "yes", False: "NO", None: ""}[result.holds]
        print("| " + " | ".join(str(shown[name]) for name in COLUMNS) + " |", flush=True)


def run(context: Context, record: Record, parts: list[str], minutes: float) -> bool:
    """Run parts while there is time; whether every check held."""
    started = time.perf_counter()
    print("| " + " | ".join(COLUMNS) + " |\n| --- | --- | ---: | --- | --- | --- |", flush=True)
    for part, check in [(chosen, check) for chosen in parts for check in PARTS[chosen]]:
        name = check.__name__.replace("_", " ")
        if time.perf_counter() - started > 60 * minutes:
            record.add(part, Result(name, note="skipped: no time left"))
            continue
        began = time.perf_counter()
        try:
            for result in check(context):
                record.add(part, result)
                if time.perf_counter() - started > 60 * minutes:
                    record.add(part, Result(name, note="stopped: no time left"))
                    break
        except Exception as error:  # noqa: BLE001  # a part that fails is a result; the others go on
            traceback.print_exc()
            message = str(error).splitlines() or [""]
            record.add(part, Result(name, holds=False, note=f"{type(error).__name__}: {message[0][:300]}"))
        record.add(part, Result(f"{name}: all of it", time.perf_counter() - began, "s"))
        gc.collect()
        if context.on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()
    return all(row["holds"] is not False for row in record.rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models: every path, no figure worth reading")
    parser.add_argument("--minutes", type=float, default=25.0, help="begin nothing more after so long")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("error: torch sees no CUDA device; use --device cpu --small to try the paths.\n")
        return 2
    logging.getLogger("llm_i2i").setLevel(logging.ERROR)
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    runtime = Runtime(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    record = Record(options.out)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(runtime, options.small, Path(folder))
        record.add(
            "machine", Result(runtime.facts["device"], context.memory_gb, "GB", note=f"torch {torch.__version__}")
        )
        return 0 if run(context, record, options.only, options.minutes) else 1


if __name__ == "__main__":
    sys.exit(main())
