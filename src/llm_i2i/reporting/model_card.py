"""Model cards in the format of the Hugging Face hub: metadata on top, then what a user of the model must know."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from llm_i2i.params import ModelCardParams
from llm_i2i.reporting.tables import templates
from llm_i2i.schema import BUCKETS, OVERALL

METRICS = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class Promotion:
    """What the cards of all models of a version share."""

    version: str  # As GTO names it
    gate: Mapping[str, Any]  # Content of reports/gate.json
    data: Mapping[str, Any]  # What data.dvc says of the raw data: `md5` and more
    base_model: Mapping[str, Any]  # Manifest of the base LLM
    about: ModelCardParams  # Section model_card


def index_card(name: str, promotion: Promotion, *, manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Card of a promoted index, Markdown with YAML metadata.

    Args:
        name: Model name in the registry.
        promotion: What it is promoted with.
        manifest: Of the index, as stage train_i2i writes it.
        metrics: Of the index, as stage evaluate writes them, with `intervals` by slice and metric.
    """
    slices = [(OVERALL, {**metrics["overall"], "n_users": metrics["n_users"]})]
    buckets = metrics["buckets"]
    slices += [(bucket, buckets[bucket]) for bucket in BUCKETS if buckets.get(bucket, {}).get("n_users")]
    data: dict[str, Any] = {"dataset_type": "own", "dataset_name": "data (DVC)", "dataset_split": "test",
            "dataset_revision": str(promotion.data.get("md5", "unknown"))}  # fmt: skip
    results = [
        EvalResult("recommendation", metric_type=metric, metric_name=f"{metric}, {place}",
                   metric_value=values[metric], **data)
        for place, values in slices for metric in METRICS if metric in values
    ]  # fmt: skip
    base = None if manifest["arm"] == "real" else str(promotion.base_model.get("id", "")) or None
    tags = ["recommendation", "item-to-item", str(manifest["model"])]
    head = ModelCardData(
        license="apache-2.0", library_name="llm-i2i", tags=tags, base_model=base, eval_results=results,
        model_name=name,
    )  # fmt: skip
    shown = {"manifest": manifest, "metrics": metrics, "slices": slices, "metric_names": METRICS, "purpose": ""}
    return _card(head, name=name, **asdict(promotion), **shown)


def adapter_card(name: str, promotion: Promotion, *, purpose: str) -> str:
    """Card of a promoted LoRA adapter; arguments as of `index_card`, `purpose` in a sentence."""
    base, tags = str(promotion.base_model.get("id", "")) or None, ["lora", "recommendation"]
    head = ModelCardData(license="apache-2.0", library_name="peft", tags=tags, base_model=base)
    return _card(head, name=name, purpose=purpose, **asdict(promotion))


def _card(head: ModelCardData, **shown: Any) -> str:
    body = templates().get_template("model_card.md.j2").render(**shown)
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n\n{body}\n"))
