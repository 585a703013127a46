"""`python -m pipelines memory`: GPU memory of the trainings, computed from the model's configuration."""

import sys
from collections.abc import Iterator
from pathlib import Path

from llm_i2i.files import read_json, write_json
from llm_i2i.llm.engine.memory import KNOWN, TrainingMemory, model_config, training_memory
from llm_i2i.params import LlmTraining, Params, load_params, read_profile
from steps.paths import IDENTIFIERS

# Tokens of a micro-batch, beside those of params.yaml.
LENGTHS = (512, 2048, 4096, 16_384)
DOCUMENT = Path("benchmarks/results/memory.json")
GB = 1e9


def show(*, document: bool = False) -> None:
    """Print the table for params.yaml; with `document` write what docs/gpu-memory.md quotes instead.

    Raises:
        ParamsError: params.yaml breaks a rule, or the model has no configuration that can be read.
    """
    if document:
        write_json(documented(), DOCUMENT)
        return
    params = load_params()
    path = IDENTIFIERS / "tokens.json"
    n_new = len(read_json(path)) if path.is_file() else 0
    sys.stdout.write("\n".join(_lines(params, n_new)) + "\n")


def documented() -> dict[str, dict[str, dict[str, float]]]:
    """Gigabytes by model, tokens per micro-batch and part, as profile gpu trains its generator."""
    params = Params.model_validate({**read_profile("gpu"), "profile": "gpu"})
    result = {}
    for name in KNOWN:
        config = model_config(params.base_model.model_copy(update={"id": name}))
        found = {n: training_memory(config, params.train_generator, tokens=n) for n in LENGTHS}
        result[name.rsplit("/", 1)[1]] = {str(n): {"tokens": n, **_gigabytes(memory)} for n, memory in found.items()}
    return result


def _gigabytes(memory: TrainingMemory) -> dict[str, float]:
    parts = ("base", "adapter", "activations", "logits", "total")
    return {part: round(getattr(memory, part) / GB, 3) for part in parts}


def _lines(params: Params, n_new: int) -> Iterator[str]:
    config = model_config(params.base_model)
    yield f"{params.base_model.id}, {n_new} new tokens, GB (computed, an upper bound; CUDA itself is in the total)\n"
    yield "| training | tokens per micro-batch | base | adapter | activations | logits | total |"
    yield "| --- " + "| ---: " * 6 + "|"
    trainings: dict[str, LlmTraining] = {
        "train_generator": params.train_generator,
        "train_discriminator": params.train_discriminator,
    }
    for name, training in trainings.items():
        for tokens in sorted({*LENGTHS, training.batch_tokens}):
            values = _gigabytes(training_memory(config, training, tokens=tokens, n_new=n_new)).values()
            mark = " (batch_tokens)" if tokens == training.batch_tokens else ""
            yield f"| {name} | {tokens:,}{mark} | " + " | ".join(f"{value:.1f}" for value in values) + " |"
