"""The site: its made pages are the code's, every message has an entry, every code block is run or read by what runs it.

What a block's language says of it: python is executed; yaml is what params.yaml or an experiment may hold; sh is read
by bash and, command by command, by the parser that would run it (`PARSED`), or is a program of others (`OTHERS`), of
which only the name is checked; text is no code. tests/e2e/test_blocks.py runs the shell blocks, but for what a page's
source marks as not run.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from llm_i2i import cli, errors
from llm_i2i.data import amazon
from llm_i2i.errors import DataError, entry_of, told
from llm_i2i.evaluation.experiments import check_points, load_experiment
from llm_i2i.params import Params, load_params, read_params
from llm_i2i.params.reading import overlay
from pipelines import __main__ as pipelines_main
from tests.conftest import ROOT
from tests.contracts.blocks import BLOCKS, PAGES

# Programs that no test starts with these arguments, and why.
OTHERS = {
    "git": "changes history", "curl": "asks a running service: tests/llm_i2i/serving sends the same bodies",
    "docker": "no container engine here", "accelerate": "several GPUs", "zenml": "reads the store of earlier runs",
    "source": "of the shell", "pre-commit": "installs",
    "export": "of the shell", "mkdir": "of the case for DVC", "printf": "of the case for DVC", "echo": "of the case",
    ":": "of the shell", "rm": "of the case for DVC", "cd": "of the shell", "pip": "installs", "gto": "moves tags",
    "uv": "installs", "openssl": "makes a key pair",
}  # fmt: skip


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/generated.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["generated"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_made_pages_are_what_the_code_says(generated) -> None:
    for path, text in generated.pages().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path}: run `python docs/generated.py`"


def test_every_message_has_an_entry_with_advice(generated) -> None:
    found = list(generated.messages())
    assert len(found) > 250
    entries = {entry_of(message.module) for message in found}
    assert entries | {"introduction"} == set(generated.ADVICE)
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    headings = {title.replace(" ", "-") for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert headings == entries
    for message in found:
        assert message.text in page or not message.text.strip(" …:."), message


def test_every_class_of_the_family_is_looked_for(generated) -> None:
    """A call by another name (`errors.DataError`) would not be seen."""
    assert len(generated.FAMILY) == 8
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"errors\.\w+Error\(", path.read_text(encoding="utf-8")), path


def raised(act) -> errors.LlmI2iError:
    with pytest.raises(errors.LlmI2iError) as caught:
        act()
    return caught.value


def test_an_error_leads_to_its_entry(tmp_path, monkeypatch) -> None:
    from llm_i2i.data.sources import read_raw
    from llm_i2i.i2i import swing
    from llm_i2i.schema import INDEX, read_table

    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    found = {
        "data-sources": raised(lambda: read_raw(tmp_path)),
        "schema": raised(lambda: read_table(tmp_path / "none.parquet", INDEX)),
        "i2i-user-items": raised(lambda: swing(None)),
        "params-reading": raised(lambda: load_params(tmp_path / "params.yaml")),
    }
    for entry, error in found.items():
        assert error.entry == entry
        assert f"\n## {entry.replace('-', ' ')}\n" in page
    error = DataError("here", "nothing")
    monkeypatch.chdir(ROOT)
    assert told(error) == "error: here: nothing. See docs/troubleshooting.md#tests-contracts-test-site\n"
    monkeypatch.chdir(tmp_path)
    assert told(error) == "error: here: nothing.\n"


def test_blocks_say_what_they_are() -> None:
    assert {block.language for block in BLOCKS} <= {"python", "yaml", "sh", "text", "mermaid"}
    assert len(BLOCKS) > 40


SHELL = [block for block in BLOCKS if block.language == "sh"]


def test_a_block_that_is_not_run_says_why() -> None:
    """Each mark speaks of a command that is there; files that it names exist; most blocks are run."""
    for block in BLOCKS:
        assert block.language == "sh" or not (block.skipped or block.fails), block
        for words, reason in block.skipped.items():
            assert any(line.startswith(words) for line in block.commands), (block.page, words)
            assert len(reason.split()) > 1, (block.page, words)
            for path in re.findall(r"tests/[\w/.]+\.py", reason):
                assert (ROOT / path).is_file(), path
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run") for page in PAGES)
    assert marks == sum(len(block.skipped) for block in BLOCKS), "a mark that stands before no block"
    assert len([block for block in SHELL if block.run]) > len(SHELL) * 0.8


def commands(code: str) -> list[list[str]]:
    """The simple commands of a shell block, without comments, redirections and variables set for one command."""
    plain = re.sub(r"(^|\s)#.*", "", code.replace("\\\n", " "), flags=re.MULTILINE)
    plain = re.sub(r"\$[A-Z_]+TASK_ID\b", "1", plain)  # a job array's number
    found = []
    for line in plain.splitlines():
        for part in re.split(r"&&|;(?!;)|\|\|", line) if "printf" not in line else [line]:
            words = shlex.split(re.split(r"(?<!-)>{1,2}", part)[0] if "printf" not in part else "printf")
            while words and re.match(r"^[A-Z_0-9]+=", words[0]):
                words = words[1:]
            found += [words] if words else []
    return found


def parse_dvc(words: list[str]) -> None:
    from dvc.cli import parse_args

    parse_args(words)


def parse_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def parse_python(words: list[str]) -> None:
    if words[:2] == ["-m", "pipelines"]:
        pipelines_main._parser().parse_args(words[2:])
    elif words[:2] == ["-m", "llm_i2i.data.amazon"]:
        assert amazon.main(words[2:]) == 1  # read, and then only the files are missing; unread it would be 2
    elif words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:] if "/" in word)
    elif words[0] == "-m":
        assert importlib.util.find_spec(words[1]) or (ROOT / f"{words[1].replace('.', '/')}.py").exists(), words
    else:
        assert (ROOT / words[0]).is_file(), words


PARSED = {
    "make": parse_make, "dvc": parse_dvc, "python": parse_python,
    "llm-i2i": lambda words: cli._parser().parse_args(words),
    "ruff": lambda words: None, "mypy": lambda words: None, "lint-imports": lambda words: None,
}  # fmt: skip


@pytest.mark.parametrize(("page", "code"), [(block.page, block.code) for block in SHELL])
def test_shell_blocks_are_what_their_parsers_read(page: str, code: str) -> None:
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    found = commands(code)
    assert found, page
    for program, *words in found:
        assert program in PARSED or program in OTHERS, program
        if program in PARSED:
            PARSED[program](words)


@pytest.mark.parametrize("code", [block.code for block in BLOCKS if block.language == "yaml"])
def test_yaml_blocks_are_what_reads_them(code: str, tmp_path: Path) -> None:
    content = yaml.safe_load(code)
    if "question" in content:
        path = tmp_path / f"{content['name']}.yaml"
        path.write_text(code, encoding="utf-8")
        experiment = load_experiment(path)
        check_points(experiment.name, experiment.points(seeds=[42]), read_params(ROOT / "params.yaml"))
    elif "apiVersion" in content:  # Kubernetes' own
        (container,) = content["spec"]["template"]["spec"]["containers"]
        command = re.sub(r"\$\(\(.*\)\)", "1", container["command"][-1])
        parse_python(shlex.split(command)[1:])
    else:
        Params.model_validate(overlay(read_params(ROOT / "params.yaml"), content))


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "python"}))
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """Those of one page in their order, in a folder with raw tables."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    taken = [(u, i, t) for u in range(20) for t, i in enumerate((50, 181, 7 + u % 3, 100 + u % 2, 200 + u % 4))]
    table = pd.DataFrame(taken, columns=["user_id", "item_id", "timestamp"])
    table.to_csv("data/interactions.csv", index=False)
    items = pd.DataFrame({"item_id": sorted(set(table["item_id"]))})
    items.assign(title="item " + items["item_id"].astype("str")).to_csv("data/items.csv", index=False)
    code = "\n".join(block.code for block in BLOCKS if (block.page, block.language) == (page, "python"))
    exec(compile(code, page, "exec"), {})
    # Titles of what is like item 50.
    assert ("item 181" in capsys.readouterr().out) == (page in ("README.md", "tour.md"))


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/your-data.md", "docs/tour.md"])
def test_what_newcomers_read_has_short_sentences(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->|^```.*?^```$", "\n\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^[|#].*$", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    sentences = re.split(r"(?<=[.:;?])\s+(?=[A-Z`*\d])|\n\s*\n|\n- |\n\d\. ", text)
    assert len(sentences) > 8
    long = [sentence for sentence in sentences if len(re.findall(r"[A-Za-z]\S*", sentence)) > 35]
    assert not long, long


def test_the_site_builds_without_warning(tmp_path: Path) -> None:
    program = shutil.which("mkdocs", path=str(Path(sys.executable).parent)) or shutil.which("mkdocs")
    if program is None:
        pytest.skip("no mkdocs on this machine (pip install '.[docs]'): the workflow's job `site` builds it")
    done = subprocess.run(
        [program, "build", "--quiet", "--site-dir", tmp_path / "site"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site/search/search_index.json").read_text(encoding="utf-8")
    assert "its training has diverged" in index or "the training has diverged" in index  # messages can be searched
    assert "no readable Parquet file" in index


def test_community_files() -> None:
    """Issue forms as GitHub reads them, and a citation that names this version."""
    forms = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")
    ]
    for form in forms:
        assert "body" not in form or {"name", "description"} <= set(form)
        for field in form.get("body", ()):
            assert field["type"] in {"markdown", "textarea", "input"}
            assert field["type"] == "markdown" or field["attributes"]["label"]
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(links) == 2
    assert all((ROOT / link).is_file() for link in links)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert (cited["cff-version"], cited["version"], cited["license"]) == ("1.2.0", version, "Apache-2.0")
    assert cited["references"][0]["identifiers"][0]["value"] == "arXiv:2512.21595"
