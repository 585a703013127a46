import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from llm_i2i import schema
from llm_i2i.errors import ArtifactError
from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.report import Report, build_report
from llm_i2i.reporting.run_tables import accepted_table, auc_table, cost, runtime_table, sample_table
from llm_i2i.reporting.tables import escape_markdown
from llm_i2i.stages import STAGES
from tests.llm_i2i.reporting.conftest import HOSTILE, with_rule
from tests.llm_i2i.reporting.run_folder import write_run

VOID = {"meta", "link", "br", "img", "hr", "input"}
LOADING = {"src", "href", "xlink:href", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """Tags, ids, references and text of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.attributes: list[str] = []
        self.open: list[str] = []
        self.captionless = 0
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append(name)
            if name == "id":
                self.ids.append(value or "")
            if name in LOADING:
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    # Every title is hostile, so that any sample meets all of them.
    titles = {i: HOSTILE[i % len(HOSTILE)] for i in range(160)}
    return build_report(collect(write_run(tmp_path_factory.mktemp("hostile"), hostile=titles)))


def test_the_page_loads_nothing_and_runs_its_own_script_only(report: Report, hostile: Report) -> None:
    for made in (report, hostile):
        page = Page(made.html)
        assert page.tags.count("script") == 1
        script = made.html[made.html.index("<script>") + len("<script>") : made.html.index("</script>")]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src" in made.html
        assert not {"iframe", "object", "embed", "img", "image", "form", "base"} & set(page.tags)
        assert not [name for name in page.attributes if name.startswith("on")]
        assert all(reference.startswith("#") or reference == "data:," for reference in page.references)
        assert "@import" not in made.html
        assert re.findall(r"url\((?!#)", made.html) == []
        assert "Content-Security-Policy" in made.html
    assert re.findall(r"https?://", report.html) == []


def test_ids_are_unique_and_references_lead_somewhere(report: Report) -> None:
    page = Page(report.html)
    assert len(page.ids) == len(set(page.ids))
    used = [r[1:] for r in page.references if r.startswith("#")] + re.findall(r"url\(#([^)]*)\)", report.html)
    assert set(used) <= set(page.ids)


def test_hostile_titles_are_text(hostile: Report) -> None:
    page = Page(hostile.html)
    assert "<script>alert('x')</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\x00" not in hostile.html
    assert "\u202e" not in hostile.html + hostile.markdown
    assert "long " * 30 not in hostile.html + hostile.markdown
    assert "<script" not in hostile.markdown
    assert "<img" not in hostile.markdown
    assert "[x](javascript" not in hostile.markdown


def test_markdown_tables_keep_their_columns(report: Report, hostile: Report) -> None:
    for made in (report, hostile):
        columns = 0
        for line in made.markdown.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not columns or not cells or cells == columns
            columns = cells


def test_every_plot_and_table_has_its_words(report: Report) -> None:
    page = Page(report.html)
    assert page.tags.count("svg") == 8
    assert page.tags.count("svg") == page.tags.count("desc") == report.html.count('<g class="marks">')
    assert page.tags.count("title") == 1 + page.tags.count("svg") + page.tags.count("circle")
    assert page.tags.count("table") == page.tags.count("caption") >= 8
    assert '<html lang="en">' in report.html
    assert "prefers-color-scheme: dark" in report.html
    assert 'name="viewport"' in report.html


def test_the_page_says_what_the_reader_asks(report: Report) -> None:
    text = Page(report.html).text.replace("\u00a0", " ")
    for words in (
        "Swing: ",
        "95 % interval",
        "How far to trust this",
        "chance is 0.5",
        "Reachable, tail",
        "title is at most 1000 characters",
        "0123456789abcdef0123456789abcdef.dir",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        "max_synthetic_per_user",
        "306 tokens/s",
        "transformers",
    ):
        assert words in text
    order = [text.index(words) for words in ("How far to trust", "Test metrics by", "By bucket of", "The generator")]
    assert order == sorted(order)
    assert "Expected calibration error" in report.markdown


def test_the_same_inputs_give_the_same_bytes(inputs: ReportInputs, report: Report) -> None:
    again = build_report(inputs)
    assert again == report
    assert not re.search(r"\b20[2-9]\d-\d\d-\d\d\b", report.html)


def test_the_sample_is_seeded_and_matches_the_fused_data(inputs: ReportInputs) -> None:
    table = sample_table(inputs)
    assert len(table.rows) == 20
    assert table == sample_table(inputs)
    other = dataclasses.replace(inputs, params=inputs.params.model_copy(update={"seed": 1}))
    assert sample_table(other).rows != table.rows
    kept = {row[4].text for row in table.rows}
    assert kept == {"kept", "dropped"}
    for row in table.rows:
        if row[4].text == "kept":
            assert float(row[3].text) >= 0.5
    everything = inputs.params.model_copy(update={"report": inputs.params.report.model_copy(update={"samples": 10**6})})
    rows = sample_table(dataclasses.replace(inputs, params=everything)).rows
    assert len(rows) == len(inputs.synthetic)
    assert sum(row[4].text == "kept" for row in rows) == inputs.kept["llm_i2i"]["synthetic_kept"]


def test_samples_of_0_and_no_synthetic_rows(inputs: ReportInputs) -> None:
    none = inputs.params.model_copy(update={"report": inputs.params.report.model_copy(update={"samples": 0})})
    assert sample_table(dataclasses.replace(inputs, params=none)).rows == ()
    report = build_report(dataclasses.replace(inputs, synthetic=inputs.synthetic.head(0), fused={}))
    assert "No evaluated arm holds synthetic rows" in report.html


def test_runtime_of_runs_that_are_not_shown_is_left_out(inputs: ReportInputs) -> None:
    more = {"train_i2i@item_knn-real": {"seconds": 6000}, "report": {"seconds": 6000}, "own": {"seconds": 60}}
    table = runtime_table(dataclasses.replace(inputs, runtime=inputs.runtime | more))
    minutes = {row[0].text: row[1].text for row in table.rows}
    assert minutes["train_i2i"] == "0.4"
    assert minutes["own"] == "1.0"
    assert minutes["report"] == "this page"


def test_the_whole_cost_is_told_from_the_list_of_stages(inputs: ReportInputs) -> None:
    assert [row[0].text for row in runtime_table(inputs).rows] == list(STAGES)
    before = cost(inputs)
    assert before["stages"] == len(STAGES) - 1, "all but the report itself"
    arms = inputs.params.evaluate_generator.arms
    more = {f"evaluate_generator@{arm}": {"seconds": 60} for arm in (*arms, "no_longer_run")}
    more |= {"score@random": {"seconds": 60}, "controls@no_longer_made": {"seconds": 60}}
    after = cost(dataclasses.replace(inputs, runtime=inputs.runtime | more))
    assert after["measured"] == before["measured"] + 1
    assert after["minutes"] == pytest.approx(before["minutes"] + len(arms) + 1)


def test_the_sample_shows_the_confidence_that_decided(inputs: ReportInputs) -> None:
    def sample(**changes: object) -> tuple[dict[str, str], ...]:
        table = sample_table(with_rule(inputs, **changes))
        return tuple(dict(zip(table.header, [cell.text for cell in row], strict=True)) for row in table.rows)

    assert "Confidence" not in sample()[0]
    items = inputs.items.set_index("title")
    synthetic = inputs.synthetic.set_index("item_id")["logprob"].groupby(level=0).agg(list)
    for row in sample(confidence="logprob"):
        item = items.loc[row["Generated title"]]
        stated = float(row["Confidence"].replace("−", "-"))
        assert any(stated == pytest.approx(logprob, abs=0.006) for logprob in synthetic[item["item_id"]])


def test_many_arms_and_one_model(tmp_path: Path) -> None:
    arms = ("real", "llm_i2i", "no_generator", "item_knn", "popularity", "random")
    report = build_report(collect(write_run(tmp_path, models=("swing",), arms=arms)))
    Page(report.html)
    assert set(report.summary["differences"]["swing"]) == set(arms) - {"real"}


def test_only_real_data(tmp_path: Path) -> None:
    report = build_report(collect(write_run(tmp_path, models=("swing",), arms=("real",))))
    assert "Nothing to compare" in report.html
    assert report.summary["differences"] == {}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a|b", r"a\|b"), ("<b>", "&lt;b&gt;"), ("a\nb", "a b"), ("x & y", "x &amp; y"), ("*_`[]#~", r"\*\_\`\[\]\#\~")],
)
def test_escape_markdown(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_the_discriminators_tables(inputs: ReportInputs) -> None:
    auc = auc_table(inputs)
    assert auc is not None
    assert [row[0].text for row in auc.rows] == ["random", "popularity"]
    assert auc.rows[0][1].text == f"{inputs.held_out['auc']:.3f}"  # type: ignore[index]
    assert auc.rows[0][3].text == "–", "no real item of that bucket was asked about"
    accepted = accepted_table(inputs)
    assert accepted is not None
    rule, scored = inputs.params.fuse.rule, inputs.scored
    of_real = scored.loc[scored["source"] == "real", "p_yes"]
    rows = {(row[0].text, row[1].text): row[2] for row in accepted.rows}
    keep_rate = 100 * (of_real >= np.float32(rule.threshold)).mean()
    assert rows["real", f"{rule.threshold:g}"].text == f"{keep_rate:.1f} %"
    assert accepted_table(with_rule(inputs, mode="volume")) is None
    assert auc_table(dataclasses.replace(inputs, held_out=None)) is None


def test_generator_alone_is_compared_on_its_own_users(copy_of: Callable[[], Path], report: Report) -> None:
    assert "The generator as a recommender of its own: not measured" in report.markdown
    root = copy_of()
    metrics, evaluation = root / "reports" / "metrics", root / "artifacts" / "evaluation"
    index = schema.read_table(evaluation / "swing-real.parquet", schema.PER_USER)
    some = index.iloc[::4].assign(rank=lambda t: [1 if i % 5 == 0 else 0 for i in range(len(t))])
    content = json.loads((metrics / "swing-real.json").read_text(encoding="utf-8"))
    for arm, found in (("llm_only", some), ("untuned", some.assign(rank=0))):
        recall = {f"recall@{k}": float((found["rank"] > 0).mean()) for k in (5, 10)}
        written = json.dumps(content | {"model": "generator", "arm": arm, "overall": recall})
        (metrics / f"generator-{arm}.json").write_text(written, encoding="utf-8")
        schema.write_table(found, evaluation / f"generator-{arm}.parquet", schema.PER_USER)
    inputs = collect(root)
    ours, theirs = (some["rank"] > 0).mean(), index.iloc[::4]["rank"].between(1, 10).mean()
    page = build_report(inputs).html
    assert f"Recall@10 {ours:.4f} on {len(some)} test users; its base model before fine-tuning has 0.0000" in page
    assert f"; Swing on arm real has {theirs:.4f} on the same users" in page
    assert [name for name, _ in inputs.metrics] == ["swing", "swing", "bpr", "bpr"]
    schema.write_table(some.assign(rank=0), evaluation / "generator-llm_only.parquet", schema.PER_USER)
    with pytest.raises(ArtifactError, match=r"recall@5 of its ranks is 0\.0000"):
        collect(root)
