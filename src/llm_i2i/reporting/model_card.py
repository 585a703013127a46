"""Model cards in the format of the Hugging Face hub: metadata on top, then what a user of the model must know."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from llm_i2i.params import ModelCardParams
from llm_i2i.schema import BUCKETS

METRICS = ("recall@10", "ndcg@10")
LIMITS = (
    "Trained and measured on one data set; figures of another catalogue or period will differ.",
    "Offline, full-ranking leave-one-out metrics say how well logged choices are predicted, not what a shop gains.",
    "Items without training interactions have no neighbours; users without a known item get no recommendation.",
    "Synthetic interactions are what a language model finds likely; they may carry its biases into the index.",
)


def index_card(
    *,
    name: str,
    version: str,
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Any],
    gate: Mapping[str, Any],
    data: Mapping[str, Any],
    base_model: Mapping[str, Any],
    about: ModelCardParams,
) -> str:
    """Card of a promoted index.

    Args:
        name: Model name in the registry.
        version: Its version.
        manifest: Of the index, as stage train_i2i writes it.
        metrics: Of the index, as stage evaluate writes them, with `intervals` by slice and metric.
        gate: Content of reports/gate.json.
        data: What data.dvc says of the raw data: `md5` and more.
        base_model: Manifest of the base LLM.
        about: Section model_card.

    Returns:
        Markdown with YAML metadata.
    """
    results = [
        EvalResult(
            task_type="recommendation",
            dataset_type="own",
            dataset_name="data (DVC)",
            dataset_revision=str(data.get("md5", "unknown")),
            dataset_split="test",
            metric_type=metric,
            metric_name=f"{metric}, {place}",
            metric_value=values[metric],
        )
        for place, values in _slices(metrics)
        for metric in METRICS
        if metric in values
    ]
    head = ModelCardData(
        license="apache-2.0",
        library_name="llm-i2i",
        tags=["recommendation", "item-to-item", str(manifest["model"])],
        base_model=None if manifest["arm"] == "real" else str(base_model.get("id", "")) or None,
        eval_results=results,
        model_name=name,
    )
    body = [
        f"# {name} {version}",
        "",
        (
            f"Item-to-item index: `{manifest['model']}` on the data of arm `{manifest['arm']}`, "
            f"{manifest['rows']:,} neighbours of {manifest['items_with_neighbours']:,} items."
        ),
        "",
        *_facts(manifest, metrics, gate, data),
        "",
        "## Metrics on the test users",
        "",
        "| users with a target in | users | " + " | ".join(METRICS) + " |",
        "| --- | ---: |" + " ---: |" * len(METRICS),
        *(_row(place, values, metrics) for place, values in _slices(metrics)),
        "",
        "In brackets: 95 % bootstrap interval over users, for the index as trained.",
        "",
        *_licences(base_model, about),
        *_limits(),
    ]
    return _card(head, body)


def adapter_card(
    *,
    name: str,
    version: str,
    gate: Mapping[str, Any],
    data: Mapping[str, Any],
    base_model: Mapping[str, Any],
    about: ModelCardParams,
    purpose: str,
) -> str:
    """Card of a promoted LoRA adapter; arguments as of `index_card`, `purpose` in a sentence."""
    head = ModelCardData(
        license="apache-2.0",
        library_name="peft",
        tags=["lora", "recommendation"],
        base_model=str(base_model.get("id", "")) or None,
    )
    body = [
        f"# {name} {version}",
        "",
        f"{purpose}. A LoRA adapter, to be kept unmerged: merging into 4-bit weights changes its outputs.",
        "",
        f"- commit: `{gate['commit']}`",
        f"- training data: md5 `{data.get('md5', 'unknown')}` (data.dvc)",
        (
            f"- base model: {base_model.get('id', 'unknown')}, revision {base_model.get('revision', 'unknown')}, "
            f"sha256 `{base_model.get('sha256', 'unknown')}`"
        ),
        "",
        *_licences(base_model, about),
        *_limits(),
    ]
    return _card(head, body)


def _card(head: ModelCardData, body: list[str]) -> str:
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n\n" + "\n".join(body) + "\n"))


def _facts(
    manifest: Mapping[str, Any], metrics: Mapping[str, Any], gate: Mapping[str, Any], data: Mapping[str, Any]
) -> list[str]:
    champion = gate.get("champion")
    against = f"against {champion['name']}" if champion else "no champion before it"
    return [
        f"- commit: `{gate['commit']}`",
        f"- gate: {gate['verdict']}, {against}",
        f"- raw data: md5 `{data.get('md5', 'unknown')}` (data.dvc)",
        f"- training data of the index: sha256 `{manifest['fused_sha256']}`",
        f"- index: sha256 `{manifest['sha256']}`, content `{manifest['content_sha256']}`",
        f"- parameters: `{manifest['params']}`",
        f"- protocol: `{metrics['protocol_hash']}`",
    ]


def _slices(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Overall, then the buckets that have test users."""
    found: list[tuple[str, Mapping[str, Any]]] = [
        ("overall", {**metrics["overall"], "n_users": metrics["n_users"]})
    ]
    buckets = metrics["buckets"]
    return found + [(name, buckets[name]) for name in BUCKETS if buckets.get(name, {}).get("n_users")]


def _row(place: str, values: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    intervals = metrics.get("intervals", {}).get(place, {})
    cells = []
    for metric in METRICS:
        cell = f"{values[metric]:.4f}" if metric in values else "–"
        if metric in intervals:
            cell += f" [{intervals[metric][0]:.4f}, {intervals[metric][1]:.4f}]"
        cells.append(cell)
    return f"| {place} | {values['n_users']:,} | " + " | ".join(cells) + " |"


def _licences(base_model: Mapping[str, Any], about: ModelCardParams) -> list[str]:
    return [
        "## Licences",
        "",
        f"- base model: {base_model.get('licence', 'unknown')}",
        f"- data, {about.data}: {about.data_licence}",
        "- this software: Apache-2.0",
        "",
    ]


def _limits() -> list[str]:
    return ["## Limits", "", *(f"- {limit}" for limit in LIMITS)]
