"""`python -m pipelines gate`: may the workspace's model replace the one that serves? Exit status 0 = yes."""

import logging
from dataclasses import asdict
from typing import Any

import pandas as pd

from llm_i2i import registry
from llm_i2i.dvc import locked_md5
from llm_i2i.errors import LlmI2iError
from llm_i2i.evaluation.evaluate import evaluate_index
from llm_i2i.evaluation.gate import Case, Verdict, decide
from llm_i2i.evaluation.parity import lookup_differs
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.files import content_md5, read_json, sealed, write_json, write_text
from llm_i2i.i2i import to_index, user_items_from_frame
from llm_i2i.i2i.popularity import popular_items
from llm_i2i.monitoring.run import watch_run
from llm_i2i.params import Params, load_params
from llm_i2i.reporting.tables import escape_markdown
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, PER_USER, SOURCE_REAL, read_table
from pipelines.release.replicate import candidate_side, champion_side, run_name
from steps import paths

logger = logging.getLogger(__name__)
POPULAR = 200  # most popular items: more than a list of twenty and most histories


def gate() -> bool:
    """Compare, write reports/gate.json and reports/gate.md, and say whether the candidate passes."""
    params = load_params()
    serving = next(iter(registry.models()))
    champion = registry.champion(serving)
    candidate = candidate_side(params)
    case = Case(
        candidate=candidate,
        champion=None if champion is None else champion_side(champion.commit, params),
        params=params.gate,
        resamples_seed=params.seed,
        index_problem=index_problem(params),
        validated=is_validated(),
        drift=drift(params),
        own=own_run(params) if champion is None else {},
    )
    verdict = decide(case)
    first = next(iter(candidate.metrics.values()), {})
    facts = {
        "model": run_name(params),
        "commit": registry.head(),
        "uncommitted": registry.uncommitted(),
        "champion": None if champion is None else champion._asdict(),
        "protocol_hash": first.get("protocol_hash"),
        "index_md5": index_md5(params),
    }
    write(verdict, facts)
    if facts["uncommitted"]:
        files = ", ".join(facts["uncommitted"][:5])
        logger.warning("gate: uncommitted: %s; commit them and run it again, else `promote` refuses its answer", files)
    logger.info("gate: %s (%s)", verdict.word, "passed" if verdict.passed else "not passed")
    for check in verdict.checks:
        logger.info("  %s %s: %s", "ok" if check.passed else "NO", check.name, check.reason)
    return verdict.passed


def own_run(params: Params) -> dict[str, pd.DataFrame]:
    """Per-user tables of this run under its own seed: candidate, arm real of the same model, and popularity."""
    tables = {}
    for name, run in (("candidate", run_name(params)), ("real", f"{params.gate.model}-{SOURCE_REAL}")):
        path = paths.EVALUATION / f"{run}.parquet"
        if path.is_file():
            tables[name] = read_table(path, PER_USER)
    train, valid, test = (read_table(path, INTERACTIONS) for path in (paths.TRAIN, paths.VALID, paths.TEST))
    items, protocol = read_table(paths.ITEMS, ITEMS), Protocol.from_params(params)
    index = to_index(popular_items(user_items_from_frame(train, items), top_k=POPULAR), items)
    _, tables["popularity"] = evaluate_index(
        index=index, train=train, valid=valid, test=test, items=items, protocol=protocol
    )
    return tables


def index_md5(params: Params) -> str | None:
    """Hash of the workspace's index folder; None if it is not there."""
    folder = paths.I2I / run_name(params)
    return content_md5(folder) if folder.is_dir() else None


def index_problem(params: Params) -> str:
    """Why the workspace's index cannot be served; empty if it can."""
    folder = paths.I2I / run_name(params)
    found = index_md5(params)
    if found is None or found != locked_md5(folder):
        return f"{folder} is not what dvc.lock records; run `dvc repro`"
    metrics = read_json(paths.METRICS / f"{run_name(params)}.json")
    histories = [read_table(path, INTERACTIONS) for path in (paths.TRAIN, paths.VALID)]
    try:
        return lookup_differs(
            index=read_table(folder / "index.parquet", INDEX),
            interactions=pd.concat(histories, ignore_index=True),
            items=read_table(paths.ITEMS, ITEMS),
            last_m=metrics["protocol"]["last_m"],
            decay=metrics["protocol"]["decay"],
            n_users=params.gate.parity_users,
            seed=params.seed,
        )
    except LlmI2iError as error:
        return str(error)


def is_validated() -> bool:
    """Whether stage validate passed on the data that dvc.lock records."""
    path = paths.VALIDATION / "validation.json"
    is_locked = path.is_file() and content_md5(paths.VALIDATION) == locked_md5(paths.VALIDATION)
    return is_locked and read_json(path).get("success") is True


def drift(params: Params) -> str:
    """What of this run lies beyond a limit of section monitor, or why nobody knows; empty if nothing does."""
    path, manifest = paths.MONITOR, paths.I2I / run_name(params) / "manifest.json"
    if not path.is_file() or content_md5(path) != locked_md5(path):
        return f"{path} is not what dvc.lock records; run `dvc repro`"
    if manifest.is_file() and read_json(path)["index"] != read_json(manifest)["content_sha256"]:
        return f"{path} describes another index; run `dvc repro`"
    return "; ".join(watch_run(params).alarms)


def write(verdict: Verdict, facts: dict[str, Any]) -> None:
    """Write the verdict as JSON and Markdown."""
    checks = [
        {**asdict(check), "interval": None if check.interval is None else check.interval._asdict()}
        for check in verdict.checks
    ]
    reasons = [f"{check.name}: {check.reason}" for check in verdict.checks]
    answer = {"verdict": verdict.word, "passed": verdict.passed, "reasons": reasons, "checks": checks}
    champion = facts["champion"]
    against = "no champion yet" if champion is None else f"{champion['name']} ({champion['commit'][:12]})"
    lines = [
        f"## Gate: {verdict.word} ({'passed' if verdict.passed else 'not passed'})",
        "",
        (
            f"Candidate {escape_markdown(facts['model'])} at {facts['commit'][:12]}"
            f"{' with uncommitted changes' if facts['uncommitted'] else ''}, against {against}."
        ),
        "",
        "| | check | found |",
        "| --- | --- | --- |",
        *(
            f"| {'✓' if c.passed else '✗'} | {escape_markdown(c.name)} | {escape_markdown(c.reason)} |"
            for c in verdict.checks
        ),
    ]
    write_text("\n".join(lines) + "\n", paths.GATE_MARKDOWN)
    write_json(sealed({**facts, **answer}), paths.GATE)  # last: this is what `promote` reads
