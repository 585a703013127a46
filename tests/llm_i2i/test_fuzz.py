"""`llm-i2i` with arguments made up of anything: it does what it is told or refuses in one message.

FUZZ_EXAMPLES=1000 makes a thousand command lines (`make fuzz`).
"""

import os
from argparse import _SubParsersAction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_i2i import cli
from llm_i2i.serving import server
from tests.arguments import command_lines, outcome
from tests.llm_i2i.test_cli import project  # noqa: F401 - a fixture

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
WORDS = (
    "artifacts/i2i/swing-real", "artifacts", "a", "a,b", "b", "u", "c,x", "artifacts/split", "0.5", "2", "out.jsonl",
    "redis://127.0.0.1:1/0", "redis://", "http://127.0.0.1:1", "prod", "real=artifacts/i2i/swing-real", "50:50", ".",
    "artifacts/items/items.parquet", "artifacts/i2i/swing-real/manifest.json", "none/x.jsonl", "data", "127.0.0.1",
)  # fmt: skip
FITS = {
    "index": "artifacts/i2i/swing-real", "items": "a", "user": "u", "top_k": "2", "last_m": "1", "decay": "0.5",
    "catalogue": "artifacts/items/items.parquet", "split": "artifacts/split", "to": "out.jsonl", "prefix": "p",
    "artifacts": "artifacts", "half_life": "9", "events": ".", "data": "data", "store": ".serving", "host": "127.0.0.1",
    "port": "8080", "workers": "1", "poll": "1",
}  # fmt: skip
PARSER = cli._parser()
COMMANDS = next(tuple(a.choices) for a in PARSER._actions if isinstance(a, _SubParsersAction))


@settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(arguments=st.data())
def test_any_command_line_is_done_or_refused(project, capsys, monkeypatch, tally, arguments):  # noqa: F811
    drawn = arguments.draw(command_lines(PARSER, WORDS, COMMANDS, FITS))
    with monkeypatch.context() as patch:
        # A service that starts would run until it is stopped.
        patch.setattr(server.uvicorn, "run", lambda *_, **__: None)
        patch.setattr(server.Follower, "run", lambda *_: None)
        tally[f"llm-i2i: {outcome(cli.main, drawn, capsys)}"] += 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_parser(name):
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
