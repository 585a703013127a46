"""The generator: which item does a user take next (LLM-I2I, arXiv 2512.21595, section 3.2).

Differs from the paper: a training sequence is the instruction followed by a window of the user's items, and the
loss stands at every item of the window. One causal pass then trains as many targets as the window has items,
each given the items before it, with the same loss as one prompt a target.
"""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.llm.batches import Sequence
from llm_i2i.llm.beam import TrieOnDevice, beam_search
from llm_i2i.llm.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.histories import sample_keys, user_sequences
from llm_i2i.llm.lm import (
    TargetLogits,
    add_adapter,
    load_for_inference,
    load_quantized,
    load_tokenizer,
    read_manifest,
)
from llm_i2i.llm.prompts import GeneratorPrompt, generator_prompt, load_template
from llm_i2i.llm.qlora import adapter_sha256, discard_checkpoints, process_facts, save_adapter, train_lora
from llm_i2i.llm.trie import Catalogue, IntArray, build_trie, tokenize_catalogue
from llm_i2i.params import RuntimeParams, SynthesizeParams, TrainGeneratorParams
from llm_i2i.schema import SYNTHETIC

log = logging.getLogger(__name__)
TASK_FILE = "task.json"


def training_windows(sequences: dict[str, IntArray], max_history: int) -> list[IntArray]:
    """Cut users' sequences into windows of at most `max_history` + 1 items.

    Neighbouring windows share one item: the last target of one is the first context of the next. So every item
    but a user's first is a target exactly once, with 1 to `max_history` items before it.
    """
    windows: list[IntArray] = []
    for items in sequences.values():
        starts = range(0, len(items) - 1, max_history)
        windows.extend(items[start : start + max_history + 1] for start in starts)
    return windows


def window_sequence(
    window: IntArray,
    prompt: GeneratorPrompt,
    catalogue: Catalogue,
    item_weights: np.ndarray[Any, np.dtype[np.float64]],
) -> Sequence:
    """Instruction and window as tokens; every token of every item but the first is a target.

    Args:
        window: Item indices, at least two.
        prompt: The instruction.
        catalogue: Token ids of the items.
        item_weights: float64 (n_items,): loss weight of an item as a target.
    """
    ids = np.concatenate([prompt.prefix, catalogue.concat(window)])
    first_target = len(prompt.prefix) + int(catalogue.lengths[window[0]])
    # The output at position p predicts token p + 1.
    positions = np.arange(first_target - 1, len(ids) - 1)
    weights = np.repeat(item_weights[window[1:]], catalogue.lengths[window[1:]])
    return Sequence(ids, np.zeros(len(ids), dtype=np.int64), positions, ids[positions + 1], weights)


def train_generator(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    base_model: Path,
    params: TrainGeneratorParams,
    runtime: RuntimeParams,
    seed: int,
    out: Path,
    checkpoints: Path,
) -> dict[str, Any]:
    """QLoRA-tune the generator and write its adapter, `task.json` and `training.csv` into `out`.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        items: Catalogue (schema.ITEMS).
        base_model: Output folder of stage base_model.
        params: Section train_generator.
        runtime: Section runtime.
        seed: Samples windows, initialises the adapter, orders batches.
        out: Folder of the adapter.
        checkpoints: Folder of resumable states.

    Returns:
        Runtime facts (device, tokens/s, ...).

    Raises:
        ParamsError: The template does not exist.
        DataError: No user has two training interactions.
    """
    device = resolve_runtime(runtime)
    template, template_sha256 = load_template(params.template, "generator")
    tokenizer = load_tokenizer(base_model)
    prompt = generator_prompt(tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = tokenize_catalogue(items["text"].tolist(), tokenizer)
    windows = training_windows(user_sequences(train, items), params.max_history)
    keep = sample_keys([str(i) for i in range(len(windows))], params.max_windows, seed=seed)
    weights = np.where(items["is_long_tail"].to_numpy(), params.tail_weight, params.head_weight)
    sequences = [window_sequence(windows[int(i)], prompt, catalogue, weights) for i in keep]
    log.info(
        "train_generator: %d of %d windows, %d tokens", len(keep), len(windows), sum(map(len, sequences))
    )
    name = str(read_manifest(base_model)["id"])
    module = TargetLogits(add_adapter(load_quantized(base_model, device), params, seed=seed, name=name))
    started = time.perf_counter()
    training_log = train_lora(
        module,
        sequences,
        params=params,
        runtime=device,
        seed=seed,
        pad_id=catalogue.end_id,
        checkpoints=checkpoints,
    )
    seconds = time.perf_counter() - started
    sha256 = save_adapter(module.model, out)
    training_log.write(out / "training.csv")
    write_task(
        out,
        {"template": params.template, "template_sha256": template_sha256, "max_history": params.max_history},
    )
    discard_checkpoints(checkpoints)
    targets = int(sum(len(windows[int(i)]) - 1 for i in keep))
    facts = {"adapter_sha256": sha256, "windows": len(keep), "target_items": targets}
    return {**facts, **device.facts, **peak_memory_mb(device), **process_facts(seconds, training_log)}


def write_task(out: Path, task: dict[str, Any]) -> None:
    """Write what an adapter must be used with: template and history length."""
    (out / TASK_FILE).write_text(json.dumps(task, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_task(adapter: Path) -> dict[str, Any]:
    """What an adapter must be used with.

    Raises:
        ArtifactError: The file is missing or broken, or the template has changed since training.
    """
    try:
        task: dict[str, Any] = json.loads((adapter / TASK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            str(adapter / TASK_FILE), f"unreadable ({error})", fix="run `dvc repro`"
        ) from error
    _, sha256 = load_template(task["template"], task["template"].split("_")[0])
    if sha256 != task["template_sha256"]:
        raise ArtifactError(
            str(adapter), f"template {task['template']} changed since training", fix="run `dvc repro`"
        )
    return task


def synthesize(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    base_model: Path,
    adapter: Path,
    params: SynthesizeParams,
    runtime: RuntimeParams,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Generate the items each user would take next, after the last training items.

    Args:
        train: Training interactions (schema.INTERACTIONS): prompts and exclusions come from nothing else.
        items: Catalogue (schema.ITEMS).
        base_model: Output folder of stage base_model.
        adapter: Output folder of stage train_generator.
        params: Section synthesize.
        runtime: Section runtime.
        seed: Samples users.

    Returns:
        Rows (schema.SYNTHETIC); statistics for the report; runtime facts.

    Raises:
        GenerationError: No item can be generated for any user.
    """
    device = resolve_runtime(runtime)
    task = read_task(adapter)
    template, _ = load_template(task["template"], "generator")
    tokenizer = load_tokenizer(base_model)
    prompt = generator_prompt(tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = tokenize_catalogue(items["text"].tolist(), tokenizer)
    trie = build_trie(catalogue)
    histories = user_sequences(train, items)
    closed = np.empty(0, dtype=np.int64)
    if params.long_tail_only:
        closed = np.flatnonzero(~items["is_long_tail"].to_numpy())
    excluded = {user: np.union1d(history, closed) for user, history in histories.items()}
    open_users = [user for user in histories if len(excluded[user]) < len(items)]
    if not open_users:
        raise GenerationError(
            "synthesize", "no user has an item left to generate", "items outside users' histories"
        )
    users = sample_keys(open_users, params.max_users, seed=seed)
    prompts = {
        u: np.concatenate([prompt.prefix, catalogue.concat(histories[u][-task["max_history"] :])])
        for u in users
    }
    # Users with prompts of similar length share a batch: little padding.
    users = sorted(users, key=lambda u: (-len(prompts[u]), u))
    module = TargetLogits(load_for_inference(base_model, adapter, device))
    on_device = TrieOnDevice.of(trie, device.device)
    started = time.perf_counter()
    frames = []
    item_ids = items["item_id"].to_numpy(dtype=object)
    adapter_hash = adapter_sha256(adapter)
    for start in tqdm(
        range(0, len(users), params.batch_users), unit="batch", disable=None, desc="synthesize"
    ):
        batch = users[start : start + params.batch_users]
        generated = beam_search(
            module,
            [prompts[u] for u in batch],
            trie,
            on_device,
            [excluded[u] for u in batch],
            n=params.items_per_user,
            num_beams=params.num_beams,
            pad_id=catalogue.end_id,
        )
        row, column = np.nonzero(generated.items >= 0)
        hashes = np.array([hashlib.sha256(prompts[u].tobytes()).hexdigest() for u in batch], dtype=object)
        frames.append(
            pd.DataFrame(
                {
                    "user_id": np.array(batch, dtype=object)[row],
                    "item_id": item_ids[generated.items[row, column]],
                    "rank": column + 1,
                    "logprob": generated.logprobs[row, column],
                    "prompt_sha256": hashes[row],
                    "template_sha256": task["template_sha256"],
                    "adapter_sha256": adapter_hash,
                }
            )
        )
    seconds = time.perf_counter() - started
    table = pd.concat(frames, ignore_index=True).astype(SYNTHETIC)
    table = table.sort_values(["user_id", "rank"], ignore_index=True)
    stats = _statistics(table, items, n_users=len(users), requested=len(users) * params.items_per_user)
    facts = {"users_per_s": round(len(users) / seconds, 2), **device.facts, **peak_memory_mb(device)}
    log.info("synthesize: %d rows for %d users, %.1f users/s", len(table), len(users), facts["users_per_s"])
    return table, stats, facts


def _statistics(table: pd.DataFrame, items: pd.DataFrame, *, n_users: int, requested: int) -> dict[str, Any]:
    """Counts of the synthesized rows: how many, how varied, how far into the tail."""
    merged = table.merge(
        items[["item_id", "bucket", "is_long_tail"]], on="item_id", how="left", validate="m:1"
    )
    return {
        "users": n_users,
        "rows": len(table),
        "rows_requested": requested,
        "distinct_items": int(table["item_id"].nunique()),
        "share_long_tail": round(float(merged["is_long_tail"].mean()), 6),
        "by_bucket": {str(k): int(v) for k, v in merged["bucket"].value_counts().sort_index().items()},
    }
