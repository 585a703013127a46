"""The benchmark on other data: a copy of this project per data set, declared experiments in it, docs/results.md.

A killed benchmark resumes where it stopped: the copies stay in .bench/, DVC re-uses what they have trained, and sweeps
what they have measured.
"""

import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from llm_i2i.dvc import DVC, environment
from llm_i2i.errors import DataError, LlmI2iError
from llm_i2i.files import content_md5, copy_file, read_json, write_json, write_text
from llm_i2i.git import git
from llm_i2i.reporting.benchmark import csv_name
from llm_i2i.reporting.collect import BENCHMARK, read_benchmark
from llm_i2i.reporting.experiment_views import rows_of
from llm_i2i.reporting.result_pages import render
from llm_i2i.schema import write_frame
from pipelines import profile
from steps.paths import EXPERIMENTS as MEASURED

logger = logging.getLogger(__name__)

COPIES = Path(".bench")
RESULTS = Path("reports/benchmark")
DOCUMENT = Path("docs/results.md")
FULL_TABLES = Path("docs/results")
TABLES = ("interactions.csv", "items.csv")
IDENTITY = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
COMMAND = "make bench-ard ARD=PATH"


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        tables: Folder with one folder per data set, each with interactions.csv and items.csv.
        datasets: Names of those folders.
        experiments: Files of experiments/; None = all that the document shows and needs no GPU.
        seeds: Seeds of each experiment.
        profile: File of profiles/ for every copy; `laptop` = params.yaml as committed.
        tune: Models to tune on valid first.
    """

    tables: Path
    datasets: tuple[str, ...]
    experiments: tuple[str, ...] | None
    seeds: tuple[int, ...]
    profile: str
    tune: tuple[str, ...]


def run(plan: Plan) -> None:
    """Run the plan data set by data set and render what there is after each experiment.

    Raises:
        DataError: A data set has no tables.
        LlmI2iError: A command failed in a copy; what was measured before it stays.
    """
    for name in plan.datasets:
        for table in TABLES:
            if not (plan.tables / name / table).is_file():
                raise DataError(str(plan.tables / name / table), "no such file", "one folder per data set")
    for name in plan.datasets:
        copy = _Copy(COPIES / f"{name}-{plan.profile}")
        copy.prepare(plan, plan.tables / name)
        for seed in plan.seeds:
            copy.train(seed)
        for experiment in plan.experiments or BENCHMARK:
            logger.info("benchmark: %s, %s", name, experiment)
            copy.pipelines("sweep", experiment, "--seeds", ",".join(map(str, plan.seeds)))
            _keep(copy, name, experiment, plan)
            write_document()


def write_document() -> None:
    """Render docs/results.md, a page per question, the plots and full tables beside it from reports/benchmark/."""
    results = read_benchmark(RESULTS)
    shutil.rmtree(FULL_TABLES, ignore_errors=True)
    FULL_TABLES.mkdir(parents=True)
    for name, found in results.items():
        for experiment, content in found.items():
            path = FULL_TABLES / csv_name(name, experiment)
            write_frame(rows_of(content), path)
    for page, text in render(results, command=COMMAND).items():
        write_text(text, DOCUMENT.parent / page)
    logger.info("benchmark: %s", DOCUMENT)


def _keep(copy: "_Copy", name: str, experiment: str, plan: Plan) -> None:
    """Copy an experiment's results here, with what they were measured on."""
    content = read_json(copy.root / MEASURED / experiment / "results.json")
    content.pop("plots", None)
    about = {
        "dataset": name,
        "profile": plan.profile,
        "data_md5": content_md5(copy.root / "data"),
        "revision": copy.revision(),
    }
    write_json(content | {"benchmark": about}, RESULTS / name / f"{experiment}.json")


class _Copy:
    """A clone of this project's last commit, with other data and its own cache."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self, plan: Plan, tables: Path) -> None:
        """Bring the copy to this project's commit, with the profile, the data and tuned models; once per commit."""
        if git("status", "--porcelain", "--untracked-files=no", "--", "src", "steps", "pipelines", "dvc.yaml",
               "params.yaml", "experiments", "profiles"):  # fmt: skip
            logger.warning("benchmark: uncommitted changes are left out: it runs the last commit")
        head = (git("rev-parse", "HEAD") or "").strip()
        wanted = "\n".join([head, plan.profile, *plan.tune, *(content_md5(tables / name) for name in TABLES)])
        marker = self.root / ".git" / "prepared"
        if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
            return
        if not (self.root / ".git").is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            self._run("git", "init", "--quiet")
        self._run("git", "fetch", "--quiet", str(Path.cwd()), "HEAD")
        self._run("git", "checkout", "--quiet", "--force", "-B", "benchmark", "FETCH_HEAD")
        self.pipelines("profile", plan.profile)
        self._take(tables)
        if plan.tune:
            self.dvc("repro", "tag")
            for model in plan.tune:
                self.pipelines("tune", model)
        self._commit("data, profile and tuned models of the benchmark")
        write_text(wanted, marker)

    def _take(self, tables: Path) -> None:
        """Put the tables into data/ and let DVC track them."""
        data = self.root / "data"
        data.mkdir(exist_ok=True)
        for old in data.iterdir():
            if old.name not in TABLES:
                old.unlink()
        for name in TABLES:
            copy_file(tables / name, data / name)
        self.dvc("add", "--quiet", "data")

    def train(self, seed: int) -> None:
        """Run every stage up to evaluate for a seed; a killed training resumes from its checkpoint.

        The sweeps then find all of it in DVC's run cache.
        """
        path = self.root / profile.PARAMS
        text = path.read_text(encoding="utf-8")
        if yaml.safe_load(text)["seed"] != seed:
            write_text(profile.with_overlay(text, {"seed": seed}), path)
        self.dvc("repro", "evaluate")
        self._commit(f"seed {seed}")

    def revision(self) -> str:
        """The commit of this project that the copy runs."""
        return (self.root / ".git" / "prepared").read_text(encoding="utf-8").partition("\n")[0]

    def dvc(self, *arguments: str) -> None:
        self._run(*DVC, *arguments)

    def pipelines(self, *arguments: str) -> None:
        self._run(sys.executable, "-m", "pipelines", *arguments)

    def _commit(self, message: str) -> None:
        self._run("git", "add", "--all")
        if (git("status", "--porcelain", root=self.root) or "").strip():
            self._run("git", *IDENTITY, "commit", "--quiet", "--no-verify", "-m", message)

    def _run(self, *command: str) -> None:
        """Run a command in the copy with the copy's own sources; its output is shown as it comes."""
        own = environment() | {"PYTHONPATH": str((self.root / "src").resolve())}
        done = subprocess.run(command, cwd=self.root, env=own, check=False)  # noqa: S603 - no shell
        if done.returncode:
            raise LlmI2iError(f"{' '.join(command)} in {self.root}", f"exit status {done.returncode}", fix="see above")
