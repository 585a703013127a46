"""The code blocks of README, CONTRIBUTING and docs, and what a page's source says of those that are not run.

A comment before a shell block, which the page does not show:

    <!-- not run: REASON -->           none of its commands
    <!-- not run (COMMAND): REASON --> the commands that begin with these words; several comments may follow each other
    <!-- run with (WORD): OTHER -->    OTHER in place of WORD, such as a folder for a bucket
    <!-- fails: WORDS; WORDS -->       run in an empty folder; commands fail, as the block shows, and say this
"""

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
OF_A_PROMOTION = "promoting.md"  # run by tests/pipelines/test_promotion.py
_BLOCK = re.compile(r"(?ms)((?:^ *<!-- (?:not run|fails|run with)[^\n]*-->\n)*)^ *```(\w*)\n(.*?)^ *```$")
_READY = "curl --silent --retry 200 --retry-delay 1 --retry-connrefused --output /dev/null localhost:$PORT/readyz"
_MARK = re.compile(r"<!-- (not run|fails|run with)(?: \(([^)]+)\))?: (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: File name of the page.
        language: What stands behind the fence.
        code: Its lines.
        skipped: Why commands are not run, by their first words; "" is the whole block.
        replaced: What stands for what when they are run.
        fails: What its commands say when they fail, as they shall.
    """

    page: str
    language: str
    code: str
    skipped: dict[str, str]
    replaced: dict[str, str]
    fails: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, those that end in a backslash joined with the next one."""
        return self.code.replace("\\\n", " ").splitlines()

    @property
    def run(self) -> list[str]:
        """The lines that are run."""
        if "" in self.skipped:
            return []
        lines = [line for line in self.commands if not line.startswith(tuple(self.skipped))]
        for word, other in self.replaced.items():
            lines = [line.replace(word, other) for line in lines]
        return lines


def _blocks(page: Path) -> list[Block]:
    found = []
    for marks, language, code in _BLOCK.findall(page.read_text(encoding="utf-8")):
        told = _MARK.findall(marks)
        skipped = {words: reason for kind, words, reason in told if kind == "not run"}
        replaced = {words: other for kind, words, other in told if kind == "run with"}
        fails = tuple(words for kind, _, text in told if kind == "fails" for words in text.split("; "))
        found.append(Block(page.name, language, dedent(code), skipped, replaced, fails))
    return found


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def script(commands: list[str]) -> str:
    """One shell script of a page's commands; a service that they start runs until its end, at the port PORT."""
    lines = ["trap 'kill $(jobs -p) 2>/dev/null || :' EXIT", 'curl() { command curl --fail-with-body "$@"; }']
    for command in commands:
        line = command.replace("localhost:8080", "localhost:$PORT")
        lines.append(
            f"{line.partition(' #')[0]} --port $PORT &\n{_READY}" if line.startswith("llm-i2i serve") else line
        )
    return "\n".join(lines) + "\n"
