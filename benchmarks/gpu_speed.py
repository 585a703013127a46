"""Speed and memory on the device: the checks of benchmarks/gpu.py that measure."""

import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.gpu_context import Context, Result
from benchmarks.gpu_models import (
    LLAMA,
    SMOLLM,
    asked_questions,
    config_of,
    discriminator_role_of,
    random_model,
    random_ranker,
    random_users,
    shape_of,
    windows,
)
from benchmarks.llm import catalogue_texts, library_search
from llm_i2i.llm.engine import beam
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.memory import training_memory
from llm_i2i.llm.engine.models import add_adapter
from llm_i2i.llm.engine.training import TrainingSetup, train_model
from llm_i2i.llm.questions import read_margins

CARD_GB = 24.0  # that a 7B model must train within
TARGET_TOKENS_PER_S = 2800.0  # Llama-2-7B on a card of 80 GB
TARGET_MASKING, TARGET_SPEEDUP = 0.05, 10.0


def _matmul_flops(context: Context) -> float:
    """FLOP/s of a large matrix product in the compute dtype: what the device reaches at best."""
    size = 8192 if context.on_gpu else 256
    a = torch.randn(size, size, dtype=context.runtime.dtype, device=context.runtime.device)
    for _ in range(3):
        _ = a @ a
    _, seconds = context.seconds(lambda: [a @ a for _ in range(10)])
    return 10 * 2 * size**3 / seconds


def training_of_llama(context: Context) -> Iterator[Result]:
    """Llama-2-7B in NF4 with checkpointing, at most 24 GB; against the library's Trainer."""
    if context.on_gpu:
        share = min(1.0, CARD_GB / context.memory_gb)
        torch.cuda.set_per_process_memory_fraction(share, context.runtime.device)
    yield from _training_of(context, LLAMA, (512, 2048, 4096))


def training_of_smollm(context: Context) -> Iterator[Result]:
    """The same for SmolLM2-135M."""
    yield from _training_of(context, SMOLLM, (2048,))


def _training_of(context: Context, name: str, lengths: tuple[int, ...]) -> Iterator[Result]:
    runtime, rng = context.runtime, np.random.default_rng(4)
    short = "tiny for " * context.small + name.rsplit("/", 1)[-1]
    config = config_of(name, small=context.small)
    if context.small:
        lengths = tuple(length // 32 for length in lengths)
    params = context.params.train_generator.model_copy(
        update={"batch_tokens": max(lengths), "accumulation": 2, "epochs": 1.0, "checkpoint_every": 1000}
        | ({} if context.on_gpu else {"optimizer": "adamw"})
    )
    model, seconds = context.seconds(lambda: random_model(config, runtime, quantized=True))
    yield Result(f"{short}: built in NF4", seconds, "s", note=f"peak {context.peak_gb() or 0:.1f} GB")
    n_weights = shape_of(config).num_parameters()
    module, best = TargetLogits(add_adapter(model, params, seed=1, name="x")), _matmul_flops(context)
    predicted = training_memory(config, params, tokens=params.batch_tokens)
    for length in lengths:
        sequences = windows(6 * params.batch_tokens // length * params.accumulation, length, 500, rng)
        context.peak_gb()
        how = TrainingSetup(params, runtime, seed=5, pad_id=0)
        log = train_model(module, sequences, how, checkpoints=context.folder / f"{short}-{length}")
        speed = float(np.median(log.tokens_per_s[2:]))
        share = 6 * n_weights * speed / best
        targets = speed * log.rows[0][4] / log.rows[0][3]
        what = f"{short}, sequence {length}: "
        demanded = speed >= TARGET_TOKENS_PER_S if name == LLAMA and (context.memory_gb or 0) > 70 else None
        yield Result(what + "training", speed, "tokens/s", demanded, f"{share:.0%} of a large product's FLOP/s (6N)")
        yield Result(what + "targets", targets, "targets/s")
        yield _memory(what, context, predicted.allocated / 1e9)
    length = lengths[min(1, len(lengths) - 1)]
    theirs = _library_training(context, module.model, params.batch_tokens // length, length)
    yield Result(f"{short}, sequence {length}: Transformers Trainer + PEFT", theirs, "tokens/s", note="same model")


def _memory(what: str, context: Context, predicted: float) -> Result:
    peak = context.peak_gb()
    note = f"predicted {predicted:.2f} GB"
    if peak is None:
        return Result(what + "peak memory", note=f"{note}; not measured on a CPU")
    return Result(what + "peak memory", peak, "GB", peak <= CARD_GB, f"{note}, {peak / predicted - 1:+.0%}")


class _Clock(TrainerCallback):
    """Wall time of every optimizer step."""

    def __init__(self, context: Context) -> None:
        self.context, self.ends = context, []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.context.wait()
        self.ends.append(time.perf_counter())


def _library_training(context: Context, model: Any, rows: int, length: int) -> float:
    """Tokens per second of the library's own loop on the same adapted model."""
    steps, accumulation = 4, 2
    ids = torch.from_numpy(np.random.default_rng(5).integers(10, 500, size=(rows * steps * accumulation, length)))
    arguments = TrainingArguments(
        output_dir=str(context.folder / "trainer"),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        optim="paged_adamw_8bit" if context.on_gpu else "adamw_torch",
        bf16=context.on_gpu,
        use_cpu=not context.on_gpu,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    clock = _Clock(context)
    data = [{"input_ids": row, "labels": row} for row in ids]
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[clock]).train()
    return float(rows * length * accumulation / np.median(np.diff(clock.ends)))


def synthesis(context: Context) -> Iterator[Result]:
    """Users per second over three sizes of catalogue, and what masking costs of it."""
    rng, users = np.random.default_rng(7), _users(context)
    for n_items, kind in itertools.product(
        (200, 2000) if context.small else (12_000, 100_000, 1_000_000), ("titles", "codes", "tokens")
    ):
        ranker, seconds = context.seconds(lambda n=n_items, k=kind: random_ranker(context, k, n))
        prompts, taken = random_users(ranker, users, rng)
        yield Result(f"{n_items:,} {kind}: model, catalogue and trie", seconds, "s")
        for n, width in ((5, 8), (20, 20)):
            search = {"n": n, "num_beams": width}
            speed = _searched(context, ranker, prompts, taken, search)
            what = f"{n_items:,} {kind}, width {width}"
            note = f"peak {peak:.1f} GB" if (peak := context.peak_gb()) else ""
            yield Result(f"{what}: synthesis", speed, "users/s", note=note)
            if kind == "tokens":
                continue  # read off the logits: there is no search
            steps, masking = _masking_seconds(context, ranker, prompts, taken, search)
            share = steps * masking * speed / users
            demanded = share < TARGET_MASKING if context.on_gpu and n_items == 1_000_000 else None
            yield Result(f"{what}: masking a step", 1e3 * masking, "ms", demanded, f"{share:.1%} of the search")
        del ranker


def _users(context: Context) -> int:
    """That are searched for at a time, by profile gpu."""
    return 4 if context.small else context.params.synthesize.batch_users


def _searched(
    context: Context, ranker: NextItems, prompts: list[Any], taken: list[Any], search: dict[str, int]
) -> float:
    """Users per second of a search, the first of its kind left out."""
    ranker.top(prompts, taken, **search)
    _, seconds = context.seconds(lambda: [ranker.top(prompts, taken, **search) for _ in range(3)])
    return 3 * len(prompts) / seconds


def _masking_seconds(
    context: Context, ranker: NextItems, prompts: list[Any], taken: list[Any], search: dict[str, int]
) -> tuple[int, float]:
    """Steps of a search, and the time of looking up, masking and scoring children in one; the device is waited for."""
    spent, real = [], beam._expand  # noqa: SLF001

    def timed(*arguments: Any) -> Any:
        result, seconds = context.seconds(lambda: real(*arguments))
        spent.append(seconds)
        return result

    beam._expand = timed  # noqa: SLF001
    try:
        ranker.top(prompts, taken, **search)
    finally:
        beam._expand = real  # noqa: SLF001
    return len(spent), float(np.mean(spent))


def synthesis_against_a_callback(context: Context) -> Iterator[Result]:
    """The same search by `generate` with a Python callback."""
    rng, users = np.random.default_rng(8), _users(context)
    n_items = 200 if context.small else 12_000
    for kind, (n, width) in itertools.product(("titles", "codes"), ((5, 8), (20, 20))):
        ranker = random_ranker(context, kind, n_items)
        prompts, taken = random_users(ranker, users, rng)
        search, nothing = {"n": n, "num_beams": width}, [items[:0] for items in taken]
        plain = {**search, "renormalize_logits": True}
        ours = users / _searched(context, ranker, prompts, nothing, search)
        library = partial(library_search, ranker.module, ranker.catalogue, prompts, nothing, **plain)
        _, theirs = context.seconds(library)
        demanded = theirs / ours >= TARGET_SPEEDUP if context.on_gpu and width == 8 else None
        what = f"{n_items:,} {kind}, width {width}: "
        yield Result(what + "generate with a callback", users / theirs, "users/s")
        yield Result(what + "ours against generate with a callback", theirs / ours, "times", demanded)


def scoring(context: Context) -> Iterator[Result]:
    """Pairs per second: ten questions on one encoded history, and one forward pass per pair."""
    rng = np.random.default_rng(9)
    module = TargetLogits(random_model(config_of(SMOLLM, small=context.small), context.runtime, quantized=False))
    role = discriminator_role_of(context, catalogue_texts(100, rng))
    together, single = asked_questions(role, 3 if context.small else 64, rng)
    speeds = []
    for what, sequences in (("with shared prefix", together), ("one forward pass a pair", single)):
        read_margins(role, module, sequences[:10], batch_tokens=16_384)
        _, seconds = context.seconds(lambda s=sequences: read_margins(role, module, s, batch_tokens=16_384))
        speeds.append(len(single) / seconds)
        yield Result(f"scoring {what}", speeds[-1], "pairs/s")
    yield Result("scoring: shared prefix against single pairs", speeds[0] / speeds[1], "times")
