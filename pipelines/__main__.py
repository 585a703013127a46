"""The command line: `python -m pipelines STAGE`, which is what every stage of dvc.yaml runs."""

import argparse
import gc
import importlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_i2i.errors import LlmI2iError, needs_extra, one_message, told
from llm_i2i.files import are_several, is_first_process, read_json, write_json
from llm_i2i.params import load_params
from llm_i2i.stages import SHARED, STAGES, instance_name
from pipelines import profile, zenml_store
from pipelines.stages import stage_pipeline
from steps.paths import REPORT_HTML, REPORT_MARKDOWN, RUNTIME

_STARTED = time.perf_counter()
RELEASE = {
    "replicate": "measure the gate's model under every seed of the gate",
    "gate": "compare with the model that serves; exit status 0 = may replace it, 1 = may not",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; an error of ours is one message and exit status 2, Ctrl-C one word and 130.

    Args:
        arguments: Command line without the program; None = the process's own.

    Returns:
        Exit status.
    """
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a title gets its code points
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        where = f"python -m pipelines {options.command}"
        with needs_extra("pipeline", where), one_message(where):
            passed = options.run(options)
    except LlmI2iError as error:
        sys.stderr.write(told(error))
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 1 if passed is False else 0  # False: the gate's answer is no


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: Callable[[argparse.Namespace], Any]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        return command

    for stage, keys in STAGES.items():
        text = " of one ".join(filter(None, (f"run stage {stage}", " and ".join(keys))))
        command = add(stage, text, _run_stage)
        for key in keys:
            command.add_argument(f"--{key}", required=True)
        if stage in SHARED:
            command.add_argument("--part", type=_part, metavar="K/N", help="make this share only; without it: merge")
    commands.choices["report"].add_argument(
        "--against", metavar="REV", help="compare with a commit, tag, branch or DVC experiment"
    )
    add("full", "run the whole graph in ZenML", _run_stage)
    _add_release(add)
    add("check", "check params.yaml and name combinations that make no sense", lambda _: _load("check", "check")())
    add("mend", "mend what a killed dvc left; `check` does so as well", lambda _: _load("mend", "mend")() and None)
    command = add(
        "verify", "re-hash cache, workspace, registry, verdict and exports; exit status 1 = something differs",
        lambda o: _load("verify", "verify")(o.exported, prefix=o.prefix, public_key=o.public_key),
    )  # fmt: skip
    command.add_argument("exported", nargs="*", help="exports as well: FILE.jsonl or redis://HOST:PORT/DB")
    command.add_argument("--prefix", default="llm-i2i", help="first part of the Redis keys (default llm-i2i)")
    command.add_argument("--public-key", type=Path, help="check the signatures of what is promoted (default: not)")
    command = add(
        "update", "take in a new day, or forget users, without training the LLMs again",
        lambda o: _load("update", "update")(o.day, o.remove),
    )  # fmt: skip
    command.add_argument("day", type=Path, nargs="?", help="folder with the day's tables, which bears the day's name")
    command.add_argument("--remove", action="append", default=[], metavar="USER", help="delete this user; repeatable")
    add("show", "print the main table and where the report is", lambda _: _show())
    add("forecast", "tell from data/, before any training, if a gain is likely", lambda _: _load("forecast", "show")())
    command = add(
        "memory",
        "print the GPU memory of the trainings, computed",
        lambda o: _load("memory", "show")(document=o.document),
    )
    command.add_argument("--document", action="store_true", help="write what docs/gpu-memory.md quotes instead")
    command = add("profile", "write params.yaml anew from a profile", lambda o: profile.apply(o.name))
    command.add_argument("name", help="a file of profiles/, such as laptop")
    _add_lab(add)
    return parser


def _add_release(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The gate, what it asks, and promotion."""
    for name, text in RELEASE.items():
        add(name, text, lambda options: _load(f"release.{options.command}", options.command)())
    command = add(
        "promote", "register this commit's models and give them stage prod, if the gate has passed",
        lambda o: _load("release.promote", "promote")(o.signing_key),
    )  # fmt: skip
    command.add_argument("--signing-key", type=Path, help="sign them with this private key (default: not signed)")
    add(
        "monitor", "compare this run's facts with earlier runs'; exit status 1 = one is beyond its limit",
        lambda _: _load("monitor", "monitor")(),
    )  # fmt: skip


def _add_lab(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands of pipelines/lab."""
    command = add(
        "tune", "search a model's options on valid; write train_i2i.MODEL_tuned",
        lambda o: _load("lab.tune", "run")(o.model, trials=o.trials, objective=o.objective),
    )  # fmt: skip
    command.add_argument("model", help="swing, item_knn, bm25, bpr or youtube_dnn")
    command.add_argument("--trials", type=int, default=100, help="settings to measure (default 100)")
    command.add_argument("--objective", default="ndcg@10", help="ndcg@10 (default) or recall@10, on valid")
    command = add(
        "sweep", "run a declared experiment of experiments/",
        lambda o: _load("lab.sweep", "sweep")(o.name, seeds=o.seeds and list(o.seeds)),
    )  # fmt: skip
    command.add_argument("name", help="file of experiments/, without suffix")
    command.add_argument("--seeds", type=_numbers, help="instead of the experiment's own, such as 1,2,3")
    command = add("bench", "run the experiments of docs/results.md on other data and write it", _bench)
    command.add_argument("--tables", type=Path, help="folder with one folder of tables per data set; none: only write")
    command.add_argument("--datasets", type=_words, default=("toys", "beauty"))
    command.add_argument("--experiments", type=_words, help="only these of them")
    command.add_argument("--seeds", type=_numbers, default=(1, 2, 3))
    command.add_argument("--profile", default="compact", help="file of profiles/")
    command.add_argument(
        "--tune", type=_words, default=("swing", "item_knn", "bm25"), help="models to tune on valid, or empty"
    )


def _part(text: str) -> tuple[int, int]:
    """A part such as 3/16, counted from 1."""
    numbers = [int(word) if word.isascii() and word.isdecimal() else 0 for word in text.split("/")]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, K from 1 to N, such as 3/16")
    return numbers[0], numbers[1]


def _words(text: str) -> tuple[str, ...]:
    """Words separated by commas or blanks."""
    return tuple(text.replace(",", " ").split())


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas or blanks."""
    words = _words(text)
    if not words or not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers separated by commas, such as 1,2,3")
    return tuple(map(int, words))


def _load(module: str, name: str) -> Callable[..., Any]:
    """A function of a tool: registry, tables and plots are imported only where they are used."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"pipelines.{module}"), name)
    return found


def _run_stage(options: argparse.Namespace) -> None:
    """Run a stage's pipeline, then add to its runtime facts what starting and ending it cost."""
    stage = options.command
    if are_several() and "MASTER_ADDR" not in os.environ:
        found = f"is {os.environ['WORLD_SIZE']}, but there is no MASTER_ADDR: another program has left it"
        fix = "run `unset WORLD_SIZE RANK LOCAL_RANK`, or `accelerate launch -m pipelines STAGE`"
        raise LlmI2iError("environment variable WORLD_SIZE", found, "what `accelerate launch` sets, or nothing", fix)
    if not are_several():
        os.environ.pop("LOCAL_RANK", None)  # left by another program: Accelerate would wait for the other processes
    if stage == "report":
        # A plain report is about one revision: the last comparison is forgotten.
        _load("lab.compare", "write" if options.against else "clear")(*filter(None, [options.against]))
    load_params()  # before anything slow starts
    matrix = {key: getattr(options, key) for key in STAGES.get(stage, ())}
    if getattr(options, "part", None):
        importlib.import_module("steps.parts").run_part(stage, matrix, *options.part)  # torch
        return
    zenml_store.prepare(Path())
    if stage == "full":
        _load("full", "full")()
        return
    stage_pipeline(stage)(**matrix)
    path = RUNTIME / f"{instance_name(stage, matrix)}.json"
    if path.is_file() and is_first_process():
        facts = read_json(path)
        write_json({**facts, "process_seconds": round(time.perf_counter() - _STARTED, 2)}, path)


def _bench(options: argparse.Namespace) -> None:
    """Run the benchmark, or without tables render what it has measured."""
    benchmark = importlib.import_module("pipelines.lab.benchmark")
    if options.tables is None:
        benchmark.write_document()
        return
    names = ("tables", "datasets", "experiments", "seeds", "profile", "tune")
    benchmark.run(benchmark.Plan(**{name: getattr(options, name) for name in names}))


def _show() -> None:
    """Print the main table of report.md and the path of report.html."""
    try:
        text = REPORT_MARKDOWN.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LlmI2iError(str(REPORT_MARKDOWN), "no such file", fix="run `make repro`") from error
    sys.stdout.write(f"{profile.first_table(text)}\n\nThe report: {REPORT_HTML.resolve()}\n")


def _log_to_stderr() -> None:
    """Log this project's own lines; what the libraries below tell about themselves is for their developers."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("llm_i2i", "steps", "pipelines"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


if __name__ == "__main__":
    # Imports and ZenML's models are made once and stay: looking for garbage among them takes longer than
    # running a small stage. The step turns the collector on for its own work.
    gc.disable()
    status = main()
    gc.freeze()
    sys.exit(status)
