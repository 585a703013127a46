"""The generator: which item does a user take next (LLM-I2I, arXiv 2512.21595, section 3.2).

Differs from the paper: a training sequence is the instruction followed by a window of the user's items, and the
loss stands at every item of the window. One causal pass then trains as many targets as the window has items,
each given the items before it, with the same loss as one prompt a target.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.llm.batches import Sequence
from llm_i2i.llm.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.histories import sample_keys, user_sequences
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.lm import (
    TargetLogits,
    add_adapter,
    load_quantized,
    read_manifest,
)
from llm_i2i.llm.prompts import GeneratorPrompt, generator_prompt, load_template
from llm_i2i.llm.qlora import discard_checkpoints, process_facts, save_adapter, train_lora
from llm_i2i.llm.task import write_task
from llm_i2i.llm.trie import Catalogue, IntArray
from llm_i2i.params import RuntimeParams, TrainGeneratorParams

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
    identifiers: Identifiers,
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
        identifiers: The items' names.
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
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=seed)
    prompt = generator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue, new_tokens = vocabulary.catalogue, vocabulary.new_tokens
    windows = training_windows(user_sequences(train, items), params.max_history)
    keep = sample_keys([str(i) for i in range(len(windows))], params.max_windows, seed=seed)
    weights = np.where(items["is_long_tail"].to_numpy(), params.tail_weight, params.head_weight)
    sequences = [window_sequence(windows[int(i)], prompt, catalogue, weights) for i in keep]
    log.info(
        "train_generator: %d of %d windows, %d tokens", len(keep), len(windows), sum(map(len, sequences))
    )
    name = str(read_manifest(base_model)["id"])
    module = TargetLogits(
        add_adapter(
            load_quantized(base_model, device, training=True, new_tokens=new_tokens),
            params,
            seed=seed,
            name=name,
            new_tokens=new_tokens,
        )
    )
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
