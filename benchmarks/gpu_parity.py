"""Parity on the device: the checks of benchmarks/gpu.py that demand equal answers."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_context import Context, Result
from benchmarks.gpu_models import (
    SMOLLM,
    asked_questions,
    catalogue_of,
    config_of,
    discriminator_role_of,
    random_model,
    windows,
)
from benchmarks.llm import catalogue_texts
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.loss import logits_over_vocabulary
from llm_i2i.llm.engine.models import add_adapter, load_for_inference, load_for_training, load_quantized, save_model
from llm_i2i.llm.engine.training import TrainingSetup, train_model
from llm_i2i.llm.questions import read_margins
from llm_i2i.llm.role import adapter_sha256

# Largest difference, as a share of the largest value: rounding of bf16, or of another order of sums in fp32.
TOLERANCE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
FUSED = ("flash", "efficient", "cudnn")


def nf4_equals_its_dequantized_weights(context: Context) -> Iterator[Result]:
    """Logits and the adapter's gradients, in NF4 and with the same weights unpacked beforehand."""
    runtime, found = context.runtime, []
    ids = torch.arange(10, 74, device=runtime.device).view(2, 32)
    for unpacked in (False, True):
        model = load_quantized(context.base_model, runtime, training=True)
        if unpacked:
            model = model.dequantize(dtype=runtime.dtype)
        model = add_adapter(model, context.params.train_generator, seed=1, name="x")
        noise = torch.Generator().manual_seed(2)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zero in a fresh adapter: nothing would come through
                weight.data = torch.randn(weight.shape, generator=noise).to(weight) * 0.02
        logits = model.train()(input_ids=ids, use_cache=False).logits.float()
        logits.log_softmax(dim=-1)[..., 5].mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((logits.detach(), torch.cat(gradients)))
    for what, one, other in zip(("logits", "gradients"), *found, strict=True):
        gap = float((one - other).abs().max() / other.abs().max())
        limit = TOLERANCE[runtime.dtype]
        yield Result(f"NF4 against its weights unpacked: {what}", gap, "relative", gap <= limit, f"at most {limit:g}")


def beams_are_those_of_the_cpu(context: Context) -> Iterator[Result]:
    """The same search on the CPU and on the device, both in fp32."""
    rng = np.random.default_rng(1)
    for kind in ("titles", "codes", "tokens"):
        config = config_of(SMOLLM, small=True, n_new=300 if kind == "tokens" else 0)
        catalogue, found = catalogue_of(kind, 300, config, rng), []
        prompts = [rng.integers(10, 200, size=n) for n in (5, 20, 40)]
        excluded = [np.sort(rng.choice(300, size=20, replace=False)) for _ in prompts]
        whole = random_model(config, Runtime(torch.device("cpu"), torch.float32), quantized=False)
        for device in (torch.device("cpu"), context.runtime.device):
            ranker = NextItems(TargetLogits(whole.to(device)), catalogue, device, softmax="catalogue")
            found.append(ranker.top(prompts, excluded, n=5, num_beams=8))
        same = float((found[0].items == found[1].items).mean())
        gap = float(np.abs(found[0].logprobs - found[1].logprobs).max())
        holds = same == 1.0 and gap <= 1e-3
        yield Result(f"constrained beams, {kind}: log-probabilities", gap, "nats", holds, f"equal items: {same:.0%}")


def shared_prefix_scores_as_single_pairs(context: Context) -> Iterator[Result]:
    """p_yes of ten questions on one encoded history, and of each alone."""
    rng = np.random.default_rng(2)
    module = TargetLogits(load_for_inference(context.base_model, None, context.runtime))
    role = discriminator_role_of(context, catalogue_texts(60, rng))
    answers = [np.concatenate(read_margins(role, module, s, batch_tokens=2048)) for s in asked_questions(role, 3, rng)]
    one, other = (1 / (1 + np.exp(-margin)) for margin in answers)
    gap, limit = float(np.abs(one - other).max()), TOLERANCE[context.runtime.dtype]
    yield Result("shared prefix: p_yes", gap, "difference", gap <= limit, f"at most {limit:g}")


def _trained(context: Context, folder: Path, *, dies_at: int = -1, **changes: Any) -> tuple[str, list[list[float]]]:
    """Hash and log of an adapter trained for eight steps; `dies_at`: the micro-batch that is not reached."""
    params = context.params.train_generator.model_copy(
        update={"batch_tokens": 128, "accumulation": 1, "epochs": 1.0, "checkpoint_every": 2, **changes}
    )
    module = TargetLogits(load_for_training(context.base_model, params, context.runtime, seed=1))
    calls = itertools.count()

    def logits(*arguments: Any) -> torch.Tensor:
        if next(calls) == dies_at:
            raise KeyboardInterrupt
        return logits_over_vocabulary(*arguments)

    sequences = windows(16, 64, 250, np.random.default_rng(3))
    how = TrainingSetup(params, context.runtime, seed=5, pad_id=0, logits=logits)
    log = train_model(module, sequences, how, checkpoints=folder / "checkpoints")
    save_model(module.model, folder / "adapter")
    return adapter_sha256(folder / "adapter"), log.rows


def training_is_reproduced_and_resumed(context: Context) -> Iterator[Result]:
    """Two runs with one seed, and a run that was killed: the same adapter, byte for byte."""
    first, rows = _trained(context, context.folder / "first", optimizer="adamw")
    again, _ = _trained(context, context.folder / "again", optimizer="adamw")
    # A GPU may sum in another order each time; then no resumed run can be asked to end at the same bytes.
    repeats = first == again or not context.on_gpu
    yield Result(
        "two runs with one seed: adapter", holds=first == again if repeats else None, note=f"{first[:12]}, {again[:12]}"
    )
    try:
        _trained(context, context.folder / "killed", dies_at=5, optimizer="adamw")
    except KeyboardInterrupt:
        resumed, after = _trained(context, context.folder / "killed", optimizer="adamw")
    same_loss = [row[1] for row in rows] == [row[1] for row in after]
    reason = "" if first == again else "; two whole runs differ too: a kernel sums in another order each time"
    holds = first == resumed if repeats else None
    yield Result("resumed run: adapter", holds=holds, note=f"losses equal: {same_loss}{reason}")


def paged_optimizer_trains(context: Context) -> Iterator[Result]:
    """The loss falls with `paged_adamw_8bit`, which needs CUDA, and as it does with AdamW."""
    last = {}
    for optimizer in ("adamw", "paged_adamw_8bit"):
        if optimizer == "paged_adamw_8bit" and not context.on_gpu:
            yield Result(optimizer, note="skipped: needs CUDA")
            continue
        _, rows = _trained(context, context.folder / optimizer, optimizer=optimizer, epochs=3.0, learning_rate=1e-2)
        last[optimizer] = rows[-1][1]
        falls = rows[-1][1] < rows[0][1]
        yield Result(f"{optimizer}: loss after {len(rows)} steps", rows[-1][1], "nats", falls, f"from {rows[0][1]:.3f}")
    if len(last) == 2:
        gap = abs(last["adamw"] - last["paged_adamw_8bit"])
        yield Result("paged_adamw_8bit against AdamW: loss", gap, "nats", gap < 0.1, "at most 0.1")


def attention_kernels(context: Context) -> Iterator[Result]:
    """Which of SDPA's kernels ran, by the profiler: for causal text, and with the mask of several questions."""
    module = TargetLogits(load_for_inference(context.base_model, None, context.runtime))
    device = context.runtime.device
    ids = torch.randint(10, 250, (2, 64), device=device)
    causal = torch.ones(64, 64, dtype=torch.bool, device=device).tril()
    masks = {"causal text": {}, "with a mask of blocks": {"attention_mask": causal.expand(2, 1, 64, 64)}}
    at = torch.zeros(1, dtype=torch.long, device=device)
    for what, mask in masks.items():
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if context.on_gpu else [])]
        with profile(activities=activities) as profiled, torch.no_grad():
            module({"input_ids": ids, **mask}, at, at, None)
            context.wait()
        names = {event.key for event in profiled.key_averages() if "_scaled_dot_product" in event.key}
        fused = bool(names) and all(any(kernel in name for kernel in FUSED) for name in names)
        yield Result(f"attention kernel, {what}", holds=fused, note=", ".join(sorted(names)))
