"""A base model in one of its two roles: what it is told, the names it knows the items by, and where it runs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import read_text_vectors
from llm_i2i.errors import ArtifactError
from llm_i2i.files import file_sha256, read_json, write_json
from llm_i2i.llm.engine import models
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.checkpoints import TrainingLog
from llm_i2i.llm.engine.device import Runtime, resolve_runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.trie import Catalogue
from llm_i2i.llm.identifiers import Identifiers, Vocabulary, load_vocabulary, read_identifiers
from llm_i2i.llm.prompts import (
    DiscriminatorPrompt,
    GeneratorPrompt,
    discriminator_prompt,
    discriminator_template,
    generator_prompt,
    generator_template,
    recent_that_fit,
    template_sha256,
)
from llm_i2i.params import LlmTraining, Params, RuntimeParams, Softmax, TrainGeneratorParams

TASK_FILE = "task.json"
Prompt = TypeVar("Prompt", GeneratorPrompt, DiscriminatorPrompt)


@dataclass(frozen=True)
class LlmSetup:
    """What every stage that runs an LLM is given.

    Attributes:
        items: Catalogue (schema.ITEMS).
        identifiers: The items' names.
        text: float32 (n_items, n_dimensions), the items' text vectors.
        base_model: Output folder of stage base_model.
        runtime: Section runtime.
        seed: Of everything that is drawn, initialised or ordered at random.
    """

    items: pd.DataFrame
    identifiers: Identifiers
    text: FloatArray
    base_model: Path
    runtime: RuntimeParams
    seed: int


def llm_setup(params: Params, items: pd.DataFrame, *, names: Path, text: Path, base_model: Path) -> LlmSetup:
    """The setup of a stage, read from what stages identify (`names`), encode_text and base_model wrote.

    Raises:
        ArtifactError: Names or vectors are missing, broken or of other items.
    """
    identifiers, vectors = read_identifiers(names, items), read_text_vectors(text, items)
    return LlmSetup(items, identifiers, vectors, base_model, params.runtime, params.seed)


@dataclass(frozen=True)
class Task:
    """What an adapter must be used with, kept beside its weights.

    Attributes:
        template: Name of the prompt template.
        template_sha256: Of the template's file.
        max_history: Items of a history at most.
        softmax: What the generator's softmax is over; None for a discriminator.
    """

    template: str
    template_sha256: str
    max_history: int
    softmax: Softmax | None = None

    @classmethod
    def of(cls, params: LlmTraining) -> "Task":
        """The task of a training.

        Raises:
            ParamsError: The template does not exist.
        """
        softmax = params.softmax if isinstance(params, TrainGeneratorParams) else None
        return cls(params.template, template_sha256(params.template), params.max_history, softmax)


def read_task(adapter: Path) -> Task:
    """What an adapter must be used with.

    Raises:
        ArtifactError: The file is missing or broken, or the template has changed since training.
    """
    task = Task(**read_json(adapter / TASK_FILE))
    if template_sha256(task.template) != task.template_sha256:
        found = f"template {task.template} changed since training"
        raise ArtifactError(str(adapter), found, fix="run `dvc repro`")
    return task


def adapter_sha256(adapter: Path) -> str:
    """SHA-256 of what was trained: an adapter's weights file, or a compact model's."""
    found = [adapter / name for name in ("adapter_model.safetensors", "model.safetensors")]
    weights = next((path for path in found if path.is_file()), None)
    if weights is None:
        raise ArtifactError(str(adapter), "holds no weights", fix="run `dvc repro`")
    return file_sha256(weights)


@dataclass(frozen=True)
class Role(Generic[Prompt]):
    """A base model's words for a task, and the device it runs on; its weights are loaded on demand.

    Attributes:
        setup: The stage's.
        task: Template and history length.
        prompt: The template's token ids.
        vocabulary: The items' token ids.
        device: The resolved device.
        context: Tokens that a prompt may have (`models.prompt_length`).
    """

    setup: LlmSetup
    task: Task
    prompt: Prompt
    vocabulary: Vocabulary
    device: Runtime
    context: int

    @property
    def catalogue(self) -> Catalogue:
        """Token ids of every item."""
        return self.vocabulary.catalogue

    def fresh(self, params: LlmTraining, by_user: dict[str, IntArray]) -> TargetLogits:
        """Load the model to be trained on the items of these users."""
        setup, new = self.setup, self.vocabulary.new_tokens
        if self.catalogue.single_token:
            new = models.with_vectors(
                new, setup.items, by_user, text=setup.text, base_model=setup.base_model, seed=setup.seed
            )
        model = models.load_for_training(setup.base_model, params, self.device, seed=setup.seed, new_tokens=new)
        return TargetLogits(model)

    def trained(self, adapter: Path | None) -> TargetLogits:
        """Load the model with a trained adapter, or without any, for inference."""
        new = self.vocabulary.new_tokens
        return TargetLogits(models.load_for_inference(self.setup.base_model, adapter, self.device, new_tokens=new))

    def save(self, module: TargetLogits, training_log: TrainingLog, out: Path) -> dict[str, Any]:
        """Write a trained model, `training.csv` and `task.json`; returns the adapter's hash as a runtime fact."""
        models.save_model(module.model, out)
        training_log.write(out / "training.csv")
        write_json({k: v for k, v in asdict(self.task).items() if v is not None}, out / TASK_FILE)
        return {"adapter_sha256": adapter_sha256(out)}


def generator_role(setup: LlmSetup, task: Task) -> Role[GeneratorPrompt]:
    """The base model as generator.

    Raises:
        ParamsError: The template is not a generator's.
        BaseModelError: The tokenizer cannot tell two items apart.
    """
    template = generator_template(task.template)
    return _role(setup, task, lambda tokenizer: generator_prompt(tokenizer, template))


def discriminator_role(setup: LlmSetup, task: Task) -> Role[DiscriminatorPrompt]:
    """The base model as discriminator.

    Raises:
        ParamsError: The template is not a discriminator's.
        BaseModelError: The tokenizer cannot tell two items, or Yes and No, apart.
    """
    template = discriminator_template(task.template)
    return _role(setup, task, lambda tokenizer: discriminator_prompt(tokenizer, template))


def _role(setup: LlmSetup, task: Task, prompt_of: Callable[[Any], Prompt]) -> Role[Prompt]:
    vocabulary = load_vocabulary(setup.base_model, setup.identifiers, setup.items, seed=setup.seed)
    prompt, context = prompt_of(vocabulary.tokenizer), models.prompt_length(setup.base_model)
    return Role(setup, task, prompt, vocabulary, resolve_runtime(setup.runtime), context)


def next_item_prompt(role: Role[GeneratorPrompt], history: IntArray) -> IntArray:
    """What the generator reads before it names the next item, int64 (n_tokens,).

    The instruction and the last items of `history` (item indices in time order): the oldest are left out where the
    history and the longest answer would exceed the model's context.
    """
    room = role.context - len(role.prompt.prefix) - role.catalogue.tokens.shape[1]
    recent = recent_that_fit(history[-role.task.max_history :], role.catalogue.lengths, room)
    return np.concatenate([role.prompt.prefix, role.catalogue.concat(recent)])


def item_ranker(role: Role[GeneratorPrompt], module: TargetLogits) -> NextItems:
    """A search for the next items by `module`."""
    return NextItems(module, role.catalogue, role.device.device, softmax=role.task.softmax or "vocabulary")
