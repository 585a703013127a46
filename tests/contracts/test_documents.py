"""README and docs: every figure has a source, every link a target, and the example runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from llm_i2i.evaluation.bootstrap import pooled_difference
from llm_i2i.params import load_params
from llm_i2i.stages import STAGES
from tests.conftest import ROOT
from tests.contracts import figures
from tests.contracts.figures import Figure, problems, resolve

DOCUMENTS = figures.written()
RESULT_PAGES = sorted((ROOT / "docs/results").glob("*.md"))
FIGURES = {name: found for name, text in DOCUMENTS.items() if (found := figures.figures(text))}
LEAST = {"README.md": 40, "docs/more-results.md": 80, "docs/speed.md": 60}  # figures; fewer = not read
PLACES = [(name, figure) for name, found in FIGURES.items() for figure in found]


def block(text: str, figure: Figure, changes: list[tuple[int, str]]) -> str:
    """The lines between two blank ones that hold `figure`, with other characters at some places."""
    start, end = text.rfind("\n\n", 0, figure.start) + 1, text.find("\n\n", figure.end)
    letters = dict(enumerate(text)) | dict(changes)
    return "".join(letters[at] for at in range(start, len(text) if end < 0 else end))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_figure_is_found_in_its_source(name: str) -> None:
    assert not problems(name, DOCUMENTS[name])


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_the_figures_are_seen(name: str, least: int) -> None:
    assert len(FIGURES[name]) >= least


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_altered_in_its_last_digit_is_noticed(name: str) -> None:
    text = DOCUMENTS[name]
    for figure in FIGURES[name]:
        last = int(figure.text[-1])
        for digit in {(last + 1) % 10, (last - 1) % 10}:
            told = problems(name, block(text, figure, [(figure.end - 1, str(digit))]))
            assert told, f"{figure.text} altered to {figure.text[:-1]}{digit}"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_other_figure_is_noticed(data: st.DataObject) -> None:
    name, figure = data.draw(st.sampled_from(PLACES))
    text = DOCUMENTS[name]
    exponent = text[figure.start : figure.end].lower().find("e")  # with it 3.0e-08 becomes 0.0e-00, its rounded value
    end = figure.end if exponent < 0 else figure.start + exponent
    digits = [at for at in range(figure.start, end) if text[at].isdigit()]
    changes = data.draw(st.dictionaries(st.sampled_from(digits), st.sampled_from("0123456789"), min_size=1))
    assume(any(text[at] != digit for at, digit in changes.items()))
    assert problems(name, block(text, figure, list(changes.items())))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_taken_away_or_added_is_noticed(name: str) -> None:
    text = DOCUMENTS[name]
    for figure in FIGURES[name]:
        assert problems(name, block(text, figure, [(at, "") for at in range(figure.start, figure.end)]))
    for more in ("0.0657", "33 minutes", "19,412 users", "20.9 %", "`0.0657`", "`Recall 0.0657`"):
        assert problems(name, f"{text}\nAnd {more}.\n")


COST = "<!-- figures\ncost: peak_memory_gb\n-->\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Memory peaks at 2.4 GB.\n", "1 figures (2.4) and 0 sources"),
        (COST + "Memory peaks.\n", "0 figures () and 1 sources"),
        (COST + "\nMemory peaks at 2.4 GB.\n", "and 0 sources"),
        (COST + "Memory peaks at 2.5 GB.\n", "2.5 is not cost: peak_memory_gb (2.4)"),
        ("<!-- figures\ncost: with_bf16\n-->\n2.8\n", "no number"),
        ("<!-- figures\ncost: with_bf16/cpu\n-->\n2.8\n", "no number"),
        ("<!-- figures\ncost: nothing\n-->\n2.8\n", "no 'nothing' among"),
        ("<!-- figures\nnothing: a\n-->\n2.8\n", "no such file"),
        ("<!-- see cost: peak_memory_gb -->\nMemory peaks at 2.4 GB.\n", "and 0 sources"),
        ("```\nrecall@10  0.0657\n```\n", "in a code block"),
    ],
)
def test_what_has_no_source_is_told(text: str, told: str) -> None:
    assert told in "; ".join(problems("a.md", text))


@pytest.mark.parametrize(
    "text",
    [
        COST + "Memory peaks at 2.4 GB.\n",
        COST + "Memory peaks at 2 GB.\n",
        "Recall@10, NDCG@5 and SmolLM2-135M on Python 3.11, with 95 % intervals.\n",
        "```\nmake sweep NAME=threshold SEEDS=1,2,3\n```\n",
    ],
)
def test_what_is_sourced_rounded_or_no_measurement_passes(text: str) -> None:
    assert not problems("a.md", text)


def test_sources_spread_in_the_order_of_reading() -> None:
    ((low, _), (high, _)) = resolve("cost: without_bf16/stages_minutes")
    assert low == high
    values = [value for _, value in resolve("{toys|beauty}/controls: equal volume/swing/real/{overall|tail}/recall@10")]
    assert values == [0.065733, 0.021943, 0.059652, 0.010068]
    ((_, gain),) = resolve("gain data: toys/users <- beauty/users")
    ((_, ratio),) = resolve("ratio data: toys/users <- beauty/users")
    assert ratio == 19412 / 22363
    assert gain == ratio - 1


@pytest.mark.parametrize("pattern", figures.EXEMPT)
def test_every_exception_is_needed(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "EXEMPT", [other for other in figures.EXEMPT if other != pattern])
    assert any(figures.problems(name, text) for name, text in DOCUMENTS.items())


def test_readme_is_short_and_counts_the_stages() -> None:
    text = DOCUMENTS["README.md"]
    assert len(text.splitlines()) <= 140
    assert "seventeen DVC stages" in " ".join(text.split())
    assert len(STAGES) == 17


@pytest.mark.parametrize("name", ["toys", "beauty", "toys_also_layers"])
def test_what_pretraining_adds_is_the_interval_of_users_and_seeds(name: str) -> None:
    path = ROOT / "benchmarks/results/item_tokens.json"
    found = json.loads(path.read_text(encoding="utf-8"))["h100"][name]
    *differences, users = np.array(found["pretraining_adds"]["users"]).T
    per_user = [np.repeat(column.astype(float), users) for column in differences]
    interval = pooled_difference(per_user, resamples=10_000, seed=42)
    stated = [found["pretraining_adds"][key] for key in ("mean", "low", "high")]
    assert stated == pytest.approx(interval, abs=6e-5)
    alone = [found["by_seed"][arm]["recall@10"] for arm in ("pretrained", "random_weights")]
    assert np.subtract(*alone) == pytest.approx([column.mean() for column in per_user], abs=2e-6)


def test_the_verdicts_follow_the_intervals() -> None:
    text = " ".join(DOCUMENTS["README.md"].split())
    against = "{toys|beauty}/ablation: our recipe/swing/llm_i2i/{overall|tail}/recall@10/arm %s/low"
    control = [low for _, low in resolve(against % "item_knn")]  # Toys, its tail, Beauty, its tail
    assert ("On the tail no difference is shown" in text) == (max(control[1::2]) <= 0 < min(control[::2]))
    judge = [low for _, low in resolve(against % "no_discriminator")]
    assert ("Nor is one for its judge" in text) == (max(judge[::2]) <= 0)
    paper = "{toys|beauty}/ablation: paper/swing/llm_i2i/{overall|tail}/recall@10/arm no_discriminator/high"
    worse = [high < 0 for _, high in resolve(paper)]
    assert ("does worse than none on both" in text) == all(worse)
    loss = "{toys|beauty}/ablation: no tail loss/swing/llm_i2i/tail/recall@10/point our recipe/high"
    lost = [high < 0 for _, high in resolve(loss)]
    assert ("on the tail, Swing by" in text) == all(lost)
    added = [low for _, low in resolve("item_tokens: h100/{toys|beauty}/pretraining_adds/low")]
    assert ("That its pretraining helps is not shown" in text) == (max(added) <= 0)
    told = {}
    for model in ("swing", "bpr"):
        ((_, low), (_, high)) = resolve(f"summary: differences/{model}/llm_i2i/recall@10/{{low|high}}")
        told[model] = "gains" if low > 0 else "loses" if high < 0 else "none"
    assert ("the default run, Recall@10 of Swing rises" in text) == (told["swing"] == "gains")
    assert ("that of BPR from" in text) == (told["bpr"] == "gains")
    more = " ".join(DOCUMENTS["docs/more-results.md"].split())
    assert ("Swing gains (" in more) == (told["swing"] == "gains")
    assert ("so does BPR (" in more) == (told["bpr"] == "gains")


def test_what_pretraining_adds_follows_from_its_seeds_and_the_experiment() -> None:
    found = json.loads((ROOT / "benchmarks/results/pretrained.json").read_text(encoding="utf-8"))
    alone = found["recall@10"]
    for part in ("overall", "tail"):
        means = {arm: np.mean([row[part] for row in rows]) for arm, rows in alone.items()}
        assert means == pytest.approx({arm: value[part] for arm, value in found["mean"].items()}, abs=1e-6)
        for arm, point in (("pretrained", "our recipe"), ("no_tail_loss", "no tail loss")):
            ((_, value),) = resolve(f"toys/pretrained: {point}/generator/llm_only/{part}/recall@10")
            assert value == pytest.approx(means[arm], abs=1e-6)
        pairs = zip(alone["pretrained"], alone["random_weights"], strict=True)
        differences = [one[part] - other[part] for one, other in pairs]
        low, high = stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
        told = found["pretraining_adds"][part]
        assert (told["mean"], told["low"], told["high"]) == pytest.approx((np.mean(differences), low, high), abs=2e-6)


def test_stages_page_has_every_stage_in_order() -> None:
    rows = re.findall(r"^\| (\w+) \|", DOCUMENTS["docs/stages.md"], flags=re.MULTILINE)
    assert rows == ["stage", *STAGES]


def test_every_experiment_is_listed() -> None:
    text = DOCUMENTS["docs/experiments.md"].partition("## The experiments that ship")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \|", text, flags=re.MULTILINE)
    assert rows == ["name", *sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    text = DOCUMENTS[name]
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            found = (ROOT / name).parent / path
            assert found.exists(), target
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {title.lower().replace(" ", "-") for title in headings}
    for path in re.findall(r"`((?:src|steps|pipelines|benchmarks|experiments|profiles|tests|docs)/[\w./@-]*)`", text):
        assert "NAME" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_options_and_make_targets_exist(name: str) -> None:
    text = DOCUMENTS[name]
    options = load_params(ROOT / "params.yaml").model_dump()
    for option in re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+)(?:: [^`]*)?`", text):
        section, *keys = option.split(".")
        if section in options:
            node = options[section]
            for key in keys:
                assert key in node, option
                node = node[key]
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z][\w-]*)|`make ([a-z][\w-]*)", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


@pytest.mark.parametrize("path", [ROOT / "docs/results.md", *RESULT_PAGES], ids=lambda path: path.stem)
def test_a_results_page_is_for_reading(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, rows), default=0) <= 6
    assert max(len(cell) for row in rows for cell in row) < 120
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    assert max(len(sentence.split()) for sentence in re.split(r"[.:;] |\n\n|\n- ", prose)) <= 60


@pytest.mark.slow
def test_results_are_what_the_committed_files_render_to(tmp_path) -> None:
    shutil.copytree(ROOT / "reports/benchmark", tmp_path / "reports/benchmark")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    command = [sys.executable, "-m", "pipelines", "bench"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made, committed = (
        {path.relative_to(root): path.read_text(encoding="utf-8") for path in root.glob("docs/results*/**/*")}
        | {"page": (root / "docs/results.md").read_text(encoding="utf-8")}
        for root in (tmp_path, ROOT)
    )
    assert made == committed
    assert {path.suffix for path in map(Path, made)} == {"", ".csv", ".md", ".svg"}
