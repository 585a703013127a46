"""Options of the stages that run an LLM, from the base model to the scores."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llm_i2i.params.fields import (
    HalfOpenShare,
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    dial,
    knob,
    source_is_complete,
)

Control = Literal["random", "popularity", "item_knn", "compact"]
Source = Literal["generator", "random", "popularity", "item_knn", "compact"]
GeneratorArm = Literal["llm_only", "untuned"]
Negatives = Literal["random", "popularity"]
Softmax = Literal["catalogue", "vocabulary"]


class CompactParams(Section):
    """Sizes of the compact backbone, a small Llama with one token per item."""

    hidden_size: PositiveInt = knob("width of the states; a multiple of 2 * heads")
    intermediate_size: PositiveInt = knob("width of the feed-forward layers")
    layers: PositiveInt = knob("transformer layers")
    heads: PositiveInt = knob("attention heads")
    dropout: HalfOpenShare = knob("on each layer's output; half as much on item embeddings and the last state")
    item_init: Literal["random", "interactions", "text+interactions"] = knob(
        "item embeddings begin as random | interactions | text+interactions (factors of them)"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> "CompactParams":
        # Rotary position embeddings turn pairs of a head's coordinates.
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be a multiple of 2 * heads")
        return self


class BaseModelParams(Section):
    """Where the base LLM comes from."""

    source: Literal["embedded", "hub", "path", "random", "compact"] = dial(
        "embedded | hub | path | compact (trained from nothing) | random (for tests)"
    )
    id: str = dial("hub: repository")
    revision: str = dial("hub: commit, tag or branch; pin a commit")
    path: str = knob("path: a local model folder")
    layers: Annotated[int, Field(ge=0, le=30)] = knob("embedded: its first so many layers; 0 = all 30")
    compact: CompactParams = knob("compact: sizes of the small Llama")

    _source_is_complete = model_validator(mode="after")(source_is_complete)


class LlmTraining(Section):
    """What both trainings share. The compact backbone has no LoRA: all of its weights are trained."""

    template: str = dial("prompt, a file of src/llm_i2i/llm/templates")
    max_history: PositiveInt = dial("items in the prompt, the last ones (paper: 10)")
    lora_r: PositiveInt = knob("rank of the LoRA adapters")
    lora_alpha: PositiveInt = knob("LoRA scale; its ratio to lora_r multiplies the adapters")
    lora_dropout: HalfOpenShare = knob("dropout on the adapters' input")
    embedding_dropout: HalfOpenShare = knob("on an LLM's token embeddings and last hidden state; for many epochs")
    learning_rate: PositiveFloat = dial("highest learning rate of AdamW")
    weight_decay: NonNegativeFloat = knob("AdamW, on matrices")
    warmup_share: Share = knob("share of optimizer steps until the highest learning rate")
    epochs: PositiveFloat = dial("passes over the training rows")
    batch_tokens: PositiveInt = dial("tokens per micro-batch, padding included")
    accumulation: PositiveInt = knob("micro-batches per optimizer step")
    gradient_checkpointing: bool = knob("less memory for about a third more time")
    optimizer: Literal["adamw", "paged_adamw_8bit"] = knob("adamw | paged_adamw_8bit (CUDA)")
    checkpoint_every: PositiveInt = knob("optimizer steps between two states to resume from")


class EarlyStoppingParams(Section):
    """Stop by NDCG@10 on the last training items of the users held out (split.held_out_share)."""

    patience: NonNegativeInt = knob("evaluations in a row without a better one; 0 = all epochs")
    every: PositiveFloat = knob("epochs between two evaluations")
    max_users: NonNegativeInt = knob("users evaluated; 0 = all")


class TrainGeneratorParams(LlmTraining):
    """The generator predicts the next item, long-tail targets weighted (paper, section 3.2)."""

    softmax: Softmax = dial("catalogue: over what some item goes on with | vocabulary: over all tokens (paper)")
    tail_weight: PositiveFloat = dial("loss weight of long-tail targets (paper: 4.0)")
    head_weight: PositiveFloat = knob("loss weight of all other targets")
    max_windows: NonNegativeInt = dial("size of a seeded sample of training windows; 0 = all")
    early_stopping: EarlyStoppingParams = knob("stop by NDCG@10 on held-out items")


class TrainDiscriminatorParams(LlmTraining):
    """The discriminator answers Yes or No to "would this user take this item"."""

    negatives: Negatives = knob("random (paper) | popularity: drawn by training count")
    popularity_exponent: NonNegativeFloat = knob("popularity: drawn by training count to this power")
    negatives_per_positive: PositiveInt = knob("No questions per Yes question")
    candidates_per_history: Annotated[int, Field(ge=2)] = knob("questions that share one encoded history")
    max_histories: NonNegativeInt = dial("size of a seeded sample of histories; 0 = all")
    held_out_share: OpenShare = dial("share of users kept for AUC and calibration, never trained on")


class SynthesizeParams(Section):
    """The generator writes synthetic interactions, catalogue items only."""

    items_per_user: PositiveInt = dial("items that the generator names per user")
    num_beams: PositiveInt = dial("width of the search; sample: items drawn, of which items_per_user remain")
    batch_users: PositiveInt = knob("users searched for at a time")
    decoding: Literal["beam", "sample"] = knob(
        "beam: the most probable items | sample: drawn by chance, seeded per user"
    )
    temperature: PositiveFloat = knob("sample: below 1 nearer to the most probable items, above 1 more varied")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = knob(
        "sample: of the items drawn, keep the most probable ones with this share of mass"
    )
    max_users: NonNegativeInt = dial("size of a seeded sample of users; 0 = all")
    long_tail_only: bool = knob("generate long-tail items only")

    @model_validator(mode="after")
    def _enough_beams(self) -> "SynthesizeParams":
        if self.num_beams < self.items_per_user:
            raise ValueError("num_beams must be at least items_per_user")
        return self


class ScoreParams(Section):
    """The discriminator scores synthetic pairs, and real ones to calibrate the filter."""

    sources: tuple[Source, ...] = dial("generator, and each control that it scores too for the arm NAME_filtered")
    real_rows_per_user: NonNegativeInt = dial("size of a seeded sample of real rows per user; 0 = all")
    max_real_users: NonNegativeInt = dial("size of a seeded sample of users whose real rows are scored; 0 = all")
    batch_tokens: PositiveInt = dial("tokens per batch, padding included")


class JudgeParams(Section):
    """What p_yes of a generated pair is."""

    by: Literal["yes_no", "head"] = dial(
        "yes_no: the discriminator's answer (paper) | head: p(taken | proposed), learned"
    )


class EvaluateGeneratorParams(Section):
    """The generator as a recommender of its own, without an index."""

    arms: Annotated[tuple[GeneratorArm, ...], Field(min_length=1)] = dial(
        "llm_only: fine-tuned | untuned: its base model, to see what fine-tuning adds"
    )
    max_users: NonNegativeInt = dial("size of a seeded sample of test users; 0 = all")
    num_beams: PositiveInt = dial("width of the search and length of the lists; longer cut-offs have no metric")
    batch_users: PositiveInt = dial("users asked at a time")
