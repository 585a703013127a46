"""Experiments, gate and comparison in the page, and hostile text in them."""

import json
from collections.abc import Callable
from pathlib import Path

from llm_i2i.reporting.collect import collect
from llm_i2i.reporting.report import build_report

ROW = {"point": "a", "model": "swing", "arm": "llm_i2i", "seeds": 3, "synthetic_kept": 7.0, "slice": "overall",
       "metric": "recall@10", "n_users": 40, "value": 0.25, "against": ""}  # fmt: skip
DIFFERENCE = {"against": "arm real", "difference": 0.1, "low": 0.05, "high": 0.15, "outcome": "better"}


def put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_optional_parts_are_in_the_page_and_escaped(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    folder = root / "reports" / "experiments" / "trial"
    put(
        folder / "results.json",
        {
            "name": "trial",
            "question": "Does it <script>alert(1)</script> help?",
            "rows": [ROW, ROW | DIFFERENCE],
            "plots": ["trial.svg", "gone.svg"],
        },
    )
    (folder / "trial.svg").write_text("<svg><script>alert(2)</script></svg>", encoding="utf-8")
    put(root / "reports" / "gate.json", {"passed": False, "reasons": ["tail recall@10 <lower>"]})
    put(
        root / "reports" / "comparison.json",
        {
            "against": "v1",
            "commit": "0123456789abcdef",
            "params": [{"key": "fuse.threshold", "old": "0.5", "new": "0.7"}],
            "rows": [
                {"model": "swing", "arm": "real", "slice": "overall", "metric": "recall@10", "n_users": 4,
                 "old": 0.1, "new": 0.2}
            ],
            "missing": ["bpr-real"],
        },
    )  # fmt: skip
    report = build_report(collect(root))
    page = report.html
    for told in ("Verdict of the gate: not passed", "Against v1", "fuse.threshold", "+0.1000", "Only one of the two"):
        assert told in page
        assert told.replace("_", r"\_") in report.markdown
    assert page.count("<script") == 1
    assert "Does it &lt;script&gt;" in page
    assert page.count("data:image/svg+xml;base64,") == 1
    assert "▲ +0.1000 [+0.0500,\u00a0+0.1500] to arm real" in page, "an interval stays on one line"


def test_without_them_the_page_has_no_such_section(copy_of: Callable[[], Path]) -> None:
    root = copy_of()
    (root / "reports" / "gate.json").write_text("{", encoding="utf-8")
    page = build_report(collect(root)).html
    assert not any(f'id="{name}"' in page for name in ("gate", "comparison", "experiments"))
