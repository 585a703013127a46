"""`python -m pipelines promote`: register this commit's models and give them stage prod, if the gate has passed.

Roll back with `gto assign i2i-index --version VERSION --stage prod --force`, for each model.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from llm_i2i import registry
from llm_i2i.errors import LlmI2iError
from llm_i2i.files import read_json
from llm_i2i.params import load_params
from llm_i2i.reporting.provenance import UNKNOWN
from pipelines.release import model_cards, signatures
from pipelines.release.gate import index_md5
from steps.paths import GATE
from steps.stage import zenml_is_on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What a promotion looks at.

    Attributes:
        gate: Content of reports/gate.json.
        head: Commit checked out.
        uncommitted: Files that differ from it.
        champion: Version that serves.
        index_md5: Hash of the workspace's index.
        data: Name of the data, for the model card.
    """

    gate: Mapping[str, Any]
    head: str
    uncommitted: list[str]
    champion: registry.Version | None
    index_md5: str | None
    data: str


def promote(signing_key: Path | None = None) -> None:
    """Register, sign and assign; a second call does nothing but sign what is not signed.

    Args:
        signing_key: Private key; None = nothing is signed.

    Raises:
        ArtifactError: No verdict of the gate.
        LlmI2iError: A check of `CHECKS` fails, or GTO does.
    """
    names = list(registry.models())
    head = registry.head()
    champion = registry.champion(names[0])
    gate = read_json(GATE, fix="run `python -m pipelines gate`")
    if champion is None or champion.commit != head:
        params = load_params()
        data = model_cards.about(params).data
        state = State(gate, head, registry.uncommitted(), champion, index_md5(params), data)
        found = problems(state)
        if found:
            raise LlmI2iError("promote", "refused: " + "; ".join(found))
    version = _registered(names, head)
    if signing_key is not None and not registry.signature(names[0], version):
        signatures.sign(registry.Version(version, head), signing_key)  # before anybody is told to serve it
    for name in names:
        current = registry.champion(name)
        if current is None or current.commit != head:
            registry.assign(name, version)
        logger.info("promote: %s %s has stage %s", name, version, registry.STAGE)
    model_cards.write(version)
    if zenml_is_on():
        from pipelines.release.zenml_models import publish  # noqa: PLC0415 - a second and a half, only where it is used

        for name in names:
            publish(name, version, gate)


def problems(state: State) -> list[str]:
    """What forbids a promotion; empty if nothing does. A check that is missing forbids it too."""
    missing = [f"check {name} is missing" for name in REQUIRED if name not in CHECKS]
    return missing + [problem for check in CHECKS.values() if (problem := check(state))]


def _registered(names: list[str], head: str) -> str:
    """Register each model at HEAD under one version, unless it is; return the version."""
    found = registry.registered_at(names[0], head)
    if found is None:
        registry.register(names[0])
        found = registry.registered_at(names[0], head)
        if found is None:
            raise LlmI2iError(f"gto register {names[0]}", "left no version at HEAD")
    for name in names[1:]:
        if registry.registered_at(name, head) is None:
            registry.register(name, found.name)
    return found.name


def _first(files: list[str]) -> str:
    return ", ".join(files[:5])


# A check returns what is wrong, or nothing. One that is missing here refuses every promotion.
REQUIRED: Final = ("gate_passed", "same_commit", "clean", "was_clean", "same_champion", "same_index", "data_named")
CHECKS: Final[Mapping[str, Callable[[State], str]]] = MappingProxyType(
    {
        "gate_passed": lambda now: "" if now.gate["passed"] is True else f"the gate says: {now.gate['verdict']}",
        "same_commit": lambda now: (
            ""
            if now.gate["commit"] == now.head
            else f"the gate looked at {now.gate['commit'][:12]}, this is {now.head[:12]}: run the gate here"
        ),
        "clean": lambda now: (
            f"uncommitted changes: {_first(now.uncommitted)}: commit them first, then run the gate"
            if now.uncommitted
            else ""
        ),
        "was_clean": lambda now: (
            f"the gate looked at uncommitted changes: {_first(now.gate['uncommitted'])}: commit them, then run it again"
            if now.gate["uncommitted"]
            else ""
        ),
        "same_champion": lambda now: (
            ""
            if now.gate["champion"] == (now.champion and now.champion._asdict())
            else "another model serves than the gate compared with"
        ),
        "data_named": lambda now: (
            "the data is not MovieLens-100K, and model_card says nothing else: set its data and data_licence"
            if now.data == UNKNOWN
            else ""
        ),
        "same_index": lambda now: (
            "" if now.gate["index_md5"] == now.index_md5 else "the index is not the one the gate looked at"
        ),
    }
)
