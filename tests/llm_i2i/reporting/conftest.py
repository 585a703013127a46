import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.report import Report, build_report
from tests.llm_i2i.reporting.run_folder import write_run

HOSTILE = {
    0: "<script>alert('x')</script>",
    1: "</td></table><img src=https://evil.example/a.png onerror=alert(1)>",
    2: "a | b ` c * d _ e [x](javascript:alert(1)) {{ 7 * 7 }} {% raw %}",
    3: "\u202eright to left\nnew line\x00 100 %",
    4: "long " * 2000,
    5: "& &amp; &lt;b&gt; ' \" ${item.model}",
}


def with_rule(inputs: ReportInputs, **changes: object) -> ReportInputs:
    """The same run with other switches of the selection in force."""
    old = inputs.params.fuse
    rule = old.rule.model_copy(update=changes)
    fuse = SimpleNamespace(rule=rule, real_threshold=old.real_threshold, control_volume=old.control_volume)
    return dataclasses.replace(inputs, params=inputs.params.model_copy(update={"fuse": fuse}))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def inputs(finished_run: Path) -> ReportInputs:
    return collect(finished_run)


@pytest.fixture(scope="session")
def report(inputs: ReportInputs) -> Report:
    return build_report(inputs)


@pytest.fixture
def copy_of(finished_run: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the run that a test may break."""

    def copy() -> Path:
        return Path(shutil.copytree(finished_run, tmp_path / "copy"))

    return copy
