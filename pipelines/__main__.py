"""The command line: `python -m pipelines STAGE`, which is what every stage of dvc.yaml runs."""

import argparse
import gc
import importlib
import logging
import os
import re
import sys
import time
import warnings
from pathlib import Path

from llm_i2i.errors import LlmI2iError
from llm_i2i.files import is_first_process, read_json, write_json
from llm_i2i.params import load_params
from llm_i2i.stages import STAGES, instance_name
from pipelines import check, profile, zenml_store
from pipelines.stages import stage_pipeline
from steps.paths import REPORT_HTML, REPORT_MARKDOWN, RUNTIME

_STARTED = time.perf_counter()
COMMANDS = {
    "replicate": "measure the gate's model under every seed of the gate",
    "gate": "compare with the model that serves; exit status 0 = may replace it, 1 = may not",
    "promote": "register this commit's models and give them stage prod, if the gate has passed",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; an error of ours is one message and exit status 2, any other a traceback.

    Args:
        arguments: Command line without the program; None = the process's own.

    Returns:
        Exit status.
    """
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        passed = _run(options)
    except LlmI2iError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 1 if passed is False else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, keys in STAGES.items():
        command = commands.add_parser(
            stage, help=" of one ".join(filter(None, (f"run stage {stage}", " and ".join(keys))))
        )
        for key in keys:
            command.add_argument(f"--{key}", required=True)
    commands.choices["report"].add_argument(
        "--against", metavar="REV", help="compare with a commit, tag, branch or DVC experiment"
    )
    commands.add_parser("full", help="run the whole graph in ZenML")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    commands.add_parser("check", help="check params.yaml and name combinations that make no sense")
    commands.add_parser("show", help="print the main table and where the report is")
    command = commands.add_parser("profile", help="write params.yaml anew from a profile")
    command.add_argument("name", help="a file of profiles/, such as laptop")
    command = commands.add_parser(
        "tune", help="search a model's options on valid; write train_i2i.MODEL_tuned"
    )
    command.add_argument("model", help="swing, item_knn, bm25, bpr or youtube_dnn")
    command.add_argument("--trials", type=int, default=100, help="settings to measure (default 100)")
    command.add_argument("--objective", default="ndcg@10", help="ndcg@10 (default) or recall@10, on valid")
    command = commands.add_parser("sweep", help="run a declared experiment of experiments/")
    command.add_argument("name", help="file of experiments/, without suffix")
    command.add_argument("--seeds", help="instead of the experiment's own, such as 1,2,3")
    command = commands.add_parser("bench", help="run experiments on other data, write docs/results.md")
    command.add_argument("--tables", type=Path, help="folder with one folder of tables a data set")
    command.add_argument("--datasets", default="toys,beauty")
    command.add_argument("--experiments", default="backbones,controls,ablation,threshold,tail_weight,volume")
    command.add_argument("--seeds", default="1,2,3")
    command.add_argument("--profile", default="compact", help="file of profiles/")
    command.add_argument("--tune", default="swing,item_knn,bm25", help="models to tune on valid, or empty")
    return parser


def _run(options: argparse.Namespace) -> bool | None:
    """Run a command; False says that the gate's answer is no."""
    command = options.command
    if command in COMMANDS:
        # Registry, tables and plots that the small stages do without.
        done: bool | None = getattr(importlib.import_module(f"pipelines.release.{command}"), command)()
        return done
    if command == "check":
        check.check()
    elif command == "profile":
        profile.apply(options.name)
    elif command == "tune":
        # Optuna is of use here only, and takes a second to import.
        importlib.import_module("pipelines.lab.tune").run(
            options.model, trials=options.trials, objective=options.objective
        )
    elif command == "sweep":
        _sweep(options.name, options.seeds)
    elif command == "bench":
        _bench(options)
    elif command == "show":
        _show()
    else:
        if command == "report":
            _compare(options.against)
        _run_stage(command, {key: getattr(options, key) for key in STAGES.get(command, ())})
    return None


def _run_stage(stage: str, matrix: dict[str, str]) -> None:
    """Run a stage's pipeline, then add to its runtime facts what starting and ending it cost."""
    load_params()  # before anything slow starts
    zenml_store.prepare(Path())
    if stage == "full":
        importlib.import_module("pipelines.full").full()
        return
    stage_pipeline(stage)(**matrix)
    path = RUNTIME / f"{instance_name(stage, matrix)}.json"
    if path.is_file() and is_first_process():
        facts = read_json(path)
        write_json({**facts, "process_seconds": round(time.perf_counter() - _STARTED, 2)}, path)


def _compare(against: str | None) -> None:
    """Put a comparison with another revision into the report about to be made, or take the last one out."""
    from pipelines.lab import compare  # noqa: PLC0415 - pandas and matplotlib, which the small stages do without

    if against is None:
        compare.clear()
    else:
        compare.write(against)


def _sweep(name: str, seeds: str | None) -> None:
    """Run a declared experiment."""
    from pipelines.lab.sweep import sweep  # noqa: PLC0415 - matplotlib and pandas, which no other command needs

    if seeds is not None and not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise LlmI2iError("--seeds", f"is {seeds!r}", "numbers separated by commas, such as 1,2,3")
    sweep(name, seeds=[int(seed) for seed in seeds.split(",")] if seeds else None)


def _bench(options: argparse.Namespace) -> None:
    """Run the benchmark, or without tables render what it has measured."""
    from pipelines.lab import benchmark  # noqa: PLC0415 - as above

    if options.tables is None:
        benchmark.write_document()
        return
    words = {
        name: tuple(filter(None, getattr(options, name).replace(" ", ",").split(",")))
        for name in ("datasets", "experiments", "seeds", "tune")
    }
    benchmark.run(
        benchmark.Plan(
            tables=options.tables,
            datasets=words["datasets"],
            experiments=words["experiments"],
            seeds=tuple(map(int, words["seeds"])),
            profile=options.profile,
            tune=words["tune"],
        )
    )


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
