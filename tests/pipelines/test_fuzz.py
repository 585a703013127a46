"""`python -m pipelines` with arguments and parameters made up of anything: done, or refused in one message.

FUZZ_EXAMPLES=1000 makes a thousand of each (`make fuzz`).
"""

import os
import random
import shutil
from argparse import _SubParsersAction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.__main__ import _parser, main
from tests.arguments import command_lines, outcome
from tests.conftest import ROOT, whole_params

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
WORDS = (
    "swing", "bpr", "item_knn", "youtube_dnn", "generator", "real", "llm_i2i", "llm_only", "popularity", "random",
    "compact", "ci", "laptop", "threshold", "volume", "1,2,3", "ndcg@10", "recall@10", "2", "HEAD", "main", ".",
    "data", "toys", "out.jsonl", "redis://127.0.0.1:1/0", "../ci", "-",
)  # fmt: skip
FITS = {"name": "ci", "source": "generator", "arm": "real", "model": "swing", "trials": "2", "objective": "ndcg@10"}
PARSER = _parser()
ALL = next(tuple(a.choices) for a in PARSER._actions if isinstance(a, _SubParsersAction))
# The others import an LLM's libraries, or start DVC, git and GTO: seconds each.
QUICK = ("split", "tag", "fuse", "evaluate", "check", "show", "profile", "tune", "bench")
COMMANDS = ALL if EXAMPLES >= 1000 else QUICK


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the ci profile with forty users."""
    monkeypatch.chdir(tmp_path)
    for name in ("profiles", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    assert main(["profile", "ci"]) == 0
    rng = random.Random(0)
    rows = [
        f"u{user},i{item},{1_500_000_000 + n}" for user in range(40) for n, item in enumerate(rng.sample(range(30), 9))
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    (tmp_path / "data" / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Item {n}\n" for n in range(30)))
    for command in ("split", "tag"):
        assert main([command]) == 0
    return tmp_path


@settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(arguments=st.data())
def test_any_command_line_is_done_or_refused(small, capsys, tally, arguments):
    kept = Path("params.yaml").read_bytes()
    drawn = arguments.draw(command_lines(PARSER, WORDS, COMMANDS, FITS))
    tally[f"python -m pipelines: {outcome(main, drawn, capsys)}"] += 1
    Path("params.yaml").write_bytes(kept)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.sampled_from(["auto", "ci", "laptop", "real"]),
)  # fmt: skip


def places(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a mapping of mappings."""
    deeper = [place for key, value in tree.items() if isinstance(value, dict) for place in places(value, (*path, key))]
    return [*((*path, key) for key in tree), *deeper]


@settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
def test_any_parameters_are_taken_or_refused(small, capsys, tally, drawn):
    """Keys with other values, without, or with another name; or a file that is no such thing."""
    kept = Path("params.yaml").read_bytes()
    params = whole_params() if drawn.draw(st.booleans()) else yaml.safe_load(kept)
    for _ in range(drawn.draw(st.integers(1, 3))):
        *parents, last = drawn.draw(st.sampled_from(places(params)))
        place = params
        for key in parents:
            place = place[key]
        match drawn.draw(st.sampled_from(["value", "value", "value", "gone", "renamed", "text"])):
            case "value":
                place[last] = drawn.draw(VALUES)
            case "gone":
                del place[last]
            case "renamed":
                place[drawn.draw(st.text(max_size=5))] = place.pop(last)
            case "text":
                break
        if not places(params):
            break
    content = yaml.safe_dump(params, allow_unicode=True).encode("utf-8", "replace")
    if drawn.draw(st.integers(0, 9)) == 0:
        place = drawn.draw(st.integers(0, len(content)))
        content = content[:place] + drawn.draw(st.binary(max_size=3)) + content[place + drawn.draw(st.integers(0, 9)) :]
    Path("params.yaml").write_bytes(content)
    tally[f"params.yaml: {outcome(main, ['check'], capsys)}"] += 1
    Path("params.yaml").write_bytes(kept)
