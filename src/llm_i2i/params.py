"""The schema of params.yaml: one frozen class a section, every rule checked at once.

There are no defaults here for what params.yaml says: the file is the only place of a value.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_i2i.errors import ParamsError
from llm_i2i.schema import CONTROLS

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0.0, le=1.0)]
Control = Literal["random", "popularity", "item_knn", "compact"]
Source = Literal["generator", "random", "popularity", "item_knn", "compact"]
Arm = Literal[
    "real",
    "llm_i2i",
    "no_generator",
    "no_discriminator",
    "synthetic_only",
    "random",
    "popularity",
    "item_knn",
    "compact",
    "random_filtered",
    "popularity_filtered",
    "item_knn_filtered",
    "compact_filtered",
]
GeneratorArm = Literal["llm_only", "untuned"]
Negatives = Literal["random", "popularity", "item_knn", "generator", "hard"]
OF_THE_GENERATOR: tuple[Negatives, ...] = ("generator", "hard")  # kinds that need stage mine_negatives
Softmax = Literal["catalogue", "vocabulary"]
Model = Literal[
    "swing",
    "bpr",
    "item_knn",
    "bm25",
    "popularity",
    "youtube_dnn",
    "swing_tuned",
    "bpr_tuned",
    "item_knn_tuned",
    "bm25_tuned",
    "youtube_dnn_tuned",
]


class Section(BaseModel):
    """A section of params.yaml: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class RuntimeParams(Section):
    """Where the LLM stages run. `threads` 0 = all cores."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "bf16", "fp32"]
    threads: NonNegativeInt


class ValidateParams(Section):
    """Limits of the raw tables; `max_text_length` in characters."""

    min_users: PositiveInt
    min_items: PositiveInt
    min_interactions: PositiveInt
    max_text_length: PositiveInt
    min_text_share: Share
    max_tail_share: Share
    rating_min: float
    rating_max: float


class SplitParams(Section):
    """Leave-one-out split in time order, or a global one in time. `max_users` 0 = all."""

    strategy: Literal["leave_one_out", "temporal"]
    test_share: OpenShare
    valid_share: OpenShare
    min_user_items: Annotated[int, Field(ge=3)]
    max_users: NonNegativeInt

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "SplitParams":
        if self.test_share + self.valid_share >= 1.0:
            raise ValueError("test_share + valid_share must be below 1")
        return self


class TagParams(Section):
    """Popularity groups, on training counts only."""

    long_tail_share: Share
    tail_max_count: PositiveInt
    head_share: Share


class IdentifyParams(Section):
    """How the LLM names an item. `code_levels` tokens of `code_size` values each, and one to tell equal codes apart."""

    identifier: Literal["title", "id", "token", "code"]
    code_levels: Annotated[int, Field(ge=1, le=8)]
    code_size: Annotated[int, Field(ge=2)]


class CompactParams(Section):
    """Sizes of the compact backbone; `dropout` acts on item embeddings, each layer's output and the last state.

    `item_init`: what item embeddings begin as: noise, factors of who took what, or these beside factors of the words
    of the item's text.
    """

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    item_init: Literal["random", "interactions", "text+interactions"]

    @model_validator(mode="after")
    def _heads_fit(self) -> "CompactParams":
        # Rotary position embeddings turn pairs of a head's coordinates.
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be a multiple of 2 * heads")
        return self


class BaseModelParams(Section):
    """Where the base LLM comes from."""

    source: Literal["embedded", "hub", "path", "random", "compact"]
    id: str
    revision: str
    path: str
    compact: CompactParams

    @model_validator(mode="after")
    def _source_is_complete(self) -> "BaseModelParams":
        if self.source == "hub" and not (self.id and self.revision):
            raise ValueError("source hub needs `id` and `revision`")
        if self.source == "path" and not self.path:
            raise ValueError("source path needs `path`")
        return self


class LlmTraining(Section):
    """What both trainings share; `batch_tokens` counts padding. The compact backbone has no LoRA: it trains whole."""

    template: str
    max_history: PositiveInt
    lora_r: PositiveInt
    lora_alpha: PositiveInt
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_share: Share
    epochs: PositiveFloat
    batch_tokens: PositiveInt
    accumulation: PositiveInt
    gradient_checkpointing: bool
    optimizer: Literal["adamw", "paged_adamw_8bit"]
    checkpoint_every: PositiveInt


class EarlyStoppingParams(Section):
    """Stop by NDCG@10 on users' last *training* items; `patience` 0 = off, `every` in epochs, `max_users` 0 = all."""

    patience: NonNegativeInt
    every: PositiveFloat
    max_users: NonNegativeInt
    refit: bool


class TrainGeneratorParams(LlmTraining):
    """Generator: next item from the last `max_history`, long-tail weighted (paper, section 3.2)."""

    softmax: Softmax
    tail_weight: PositiveFloat
    head_weight: PositiveFloat
    max_windows: NonNegativeInt
    early_stopping: EarlyStoppingParams


class TrainDiscriminatorParams(LlmTraining):
    """Discriminator: Yes or No to "would this user take this item"."""

    negatives: Negatives
    popularity_exponent: Annotated[float, Field(ge=0.0)]
    near_neighbours: PositiveInt
    negatives_per_positive: PositiveInt
    candidates_per_history: Annotated[int, Field(ge=2)]
    max_histories: NonNegativeInt
    held_out_share: Annotated[float, Field(gt=0.0, lt=1.0)]


class BeamSearchParams(Section):
    """Search for several items of each user."""

    items_per_user: PositiveInt
    num_beams: PositiveInt
    batch_users: PositiveInt

    @model_validator(mode="after")
    def _enough_beams(self) -> Self:
        if self.num_beams < self.items_per_user:
            raise ValueError("num_beams must be at least items_per_user")
        return self


class MineNegativesParams(BeamSearchParams):
    """Near misses of the generator, where `train_discriminator.negatives` asks for them."""


class SynthesizeParams(BeamSearchParams):
    """Generation over the catalogue's trie; `temperature` and `top_p` (over whole items) count for `sample` only."""

    decoding: Literal["beam", "sample"]
    temperature: PositiveFloat
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_users: NonNegativeInt
    long_tail_only: bool


class CompactControlParams(Section):
    """Training of the control `compact`, whatever the generator's own is."""

    tail_weight: PositiveFloat
    head_weight: PositiveFloat
    max_history: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_share: Share
    epochs: PositiveFloat
    max_windows: NonNegativeInt
    batch_tokens: PositiveInt
    accumulation: PositiveInt


class ControlsParams(Section):
    """Cheap recommenders whose pairs take the place of the generator's, at equal volume."""

    names: Annotated[tuple[Control, ...], Field(min_length=1)]
    compact: CompactControlParams


class ScoreParams(Section):
    """Discriminator scoring; `real_rows_per_user` 0 = every real training row, `max_real_users` 0 = all users."""

    sources: tuple[Source, ...]
    real_rows_per_user: NonNegativeInt
    max_real_users: NonNegativeInt
    batch_tokens: PositiveInt


class FuseParams(Section):
    """Confidence filter and fusion; `popularity_discount`, the quotas 0 and `connected_only` false = the paper.

    `control_volume`: the arm whose number of pairs a user an unfiltered control's arm takes.
    """

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)]
    index: Literal["train", "train+valid"]
    confidence: Literal["p_yes", "logprob"]
    mode: Literal["threshold", "quantile"]
    threshold: Share
    quantile: Share
    filter_real: bool
    real_threshold: Share
    max_synthetic_per_user: PositiveInt
    connected_only: bool
    popularity_discount: NonNegativeFloat
    item_quota: NonNegativeInt
    tail_quota: NonNegativeInt
    control_volume: Literal["llm_i2i", "no_discriminator"]

    @property
    def rule(self) -> "FuseParams":
        """How synthetic pairs are chosen."""
        return self


class SwingParams(Section):
    """Swing: see `llm_i2i.i2i.swing`."""

    smoothing: NonNegativeFloat
    user_exponent: float
    user_shift: NonNegativeFloat


class BprParams(Section):
    """BPR: see `llm_i2i.i2i.bpr`."""

    factors: PositiveInt
    epochs: PositiveInt
    learning_rate: PositiveFloat
    regularization: NonNegativeFloat
    negative_sampling: Literal["uniform", "popularity"]
    with_bias: bool
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)]
    patience: PositiveInt


class ItemKnnParams(Section):
    """Item-kNN: no options of its own."""


class Bm25Params(Section):
    """BM25: see `llm_i2i.i2i.bm25`."""

    k1: NonNegativeFloat
    b: Share


class PopularityParams(Section):
    """Popularity: no options of its own."""


class YoutubeDnnParams(Section):
    """YoutubeDNN: see `llm_i2i.i2i.youtube_dnn`."""

    factors: PositiveInt
    hidden: tuple[PositiveInt, ...]
    epochs: PositiveInt
    batch_size: PositiveInt
    negatives: PositiveInt
    sampling_exponent: NonNegativeFloat
    temperature: PositiveFloat
    learning_rate: PositiveFloat
    max_history: PositiveInt
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)]
    patience: PositiveInt


class TunedParams(Section):
    """What `python -m pipelines tune` chooses for every model: neighbours an item, and the query."""

    top_k: PositiveInt
    last_m: NonNegativeInt
    decay: Decay


class SwingTunedParams(TunedParams):
    """Swing with all its options: see `llm_i2i.i2i.swing`."""

    smoothing: NonNegativeFloat
    user_exponent: float
    user_shift: NonNegativeFloat
    self_pair_weight: NonNegativeFloat
    popularity_exponent: float


class BprTunedParams(TunedParams, BprParams):
    """BPR, tuned."""


class ItemKnnTunedParams(TunedParams):
    """Item-kNN, tuned: see `llm_i2i.i2i.item_knn`."""

    shrink: NonNegativeFloat


class Bm25TunedParams(TunedParams, Bm25Params):
    """BM25, tuned."""


class YoutubeDnnTunedParams(TunedParams, YoutubeDnnParams):
    """YoutubeDNN, tuned."""


class TrainI2iParams(Section):
    """I2I models; `top_k` neighbours an item."""

    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    top_k: PositiveInt
    swing: SwingParams
    bpr: BprParams
    item_knn: ItemKnnParams
    bm25: Bm25Params
    popularity: PopularityParams
    youtube_dnn: YoutubeDnnParams
    swing_tuned: SwingTunedParams
    bpr_tuned: BprTunedParams
    item_knn_tuned: ItemKnnTunedParams
    bm25_tuned: Bm25TunedParams
    youtube_dnn_tuned: YoutubeDnnTunedParams


class EvaluateParams(Section):
    """The query and the cut-offs. `last_m` 0 = the whole history."""

    last_m: NonNegativeInt
    decay: Decay
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class EvaluateGeneratorParams(Section):
    """How the generator is asked as a recommender of its own.

    Attributes:
        arms: llm_only: the fine-tuned generator. untuned: its base model, to see what fine-tuning adds.
        max_users: Test users asked, a seeded sample; 0 = all.
        num_beams: Width of the beam search and so length of the lists, where an item is more than one token.
        batch_users: Users at a time.
    """

    arms: Annotated[tuple[GeneratorArm, ...], Field(min_length=1)]
    max_users: NonNegativeInt
    num_beams: PositiveInt
    batch_users: PositiveInt


class ReportParams(Section):
    """What the report computes and shows."""

    bootstrap_resamples: PositiveInt
    samples: NonNegativeInt


class GateParams(Section):
    """When a candidate may replace the champion; see `llm_i2i.evaluation.gate`."""

    model: Model
    arm: Arm
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=3)]
    resamples: PositiveInt
    min_overall_gain: NonNegativeFloat
    max_tail_loss: Share
    max_coverage_loss: Share
    max_gini_rise: Share
    parity_users: PositiveInt

    @model_validator(mode="after")
    def _seeds_differ(self) -> "GateParams":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        return self


class ModelCardParams(Section):
    """What a model card says about the data, which no file tells."""

    data: Annotated[str, Field(min_length=1)]
    data_licence: Annotated[str, Field(min_length=1)]


class Params(Section):
    """The whole params.yaml."""

    seed: NonNegativeInt
    runtime: RuntimeParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    split: SplitParams
    tag: TagParams
    identify: IdentifyParams
    base_model: BaseModelParams
    train_generator: TrainGeneratorParams
    mine_negatives: MineNegativesParams
    train_discriminator: TrainDiscriminatorParams
    synthesize: SynthesizeParams
    controls: ControlsParams
    score: ScoreParams
    fuse: FuseParams
    train_i2i: TrainI2iParams
    evaluate: EvaluateParams
    evaluate_generator: EvaluateGeneratorParams
    report: ReportParams
    gate: GateParams
    model_card: ModelCardParams

    @model_validator(mode="after")
    def _controls_are_made(self) -> "Params":
        for arm in self.fuse.arms:
            name = arm.removesuffix("_filtered")
            if name in CONTROLS and name not in self.controls.names:
                raise ValueError(f"fuse.arms: {arm} needs {name} in controls.names")
            if name != arm and name not in self.score.sources:
                raise ValueError(f"fuse.arms: {arm} needs {name} in score.sources")
        if "compact" in self.controls.names and self.base_model.source == "compact":
            raise ValueError("controls.names: compact is what base_model.source compact generates itself")
        made = ("generator", *self.controls.names)
        missing = [name for name in self.score.sources if name not in made]
        if missing:
            raise ValueError(f"score.sources: {missing} must be in controls.names too")
        if "generator" not in self.score.sources:
            raise ValueError("score.sources: generator is what every arm needs")
        return self

    @model_validator(mode="after")
    def _untuned_knows_something(self) -> "Params":
        if self.base_model.source == "compact" and "untuned" in self.evaluate_generator.arms:
            raise ValueError("evaluate_generator.arms: untuned says nothing of base_model.source compact")
        return self

    @model_validator(mode="after")
    def _beams_reach_a_cut_off(self) -> "Params":
        if self.evaluate_generator.num_beams < min(self.evaluate.ks):
            raise ValueError(
                f"evaluate_generator.num_beams: must be at least {min(self.evaluate.ks)} (evaluate.ks)"
            )
        return self

    @model_validator(mode="after")
    def _compact_knows_tokens_only(self) -> "Params":
        if self.base_model.source == "compact" and self.identify.identifier != "token":
            raise ValueError("base_model.source compact knows no words: it needs identify.identifier token")
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Args:
        path: The YAML file.

    Returns:
        The checked parameters.

    Raises:
        ParamsError: The file is missing or no YAML mapping, or any key or value breaks a rule;
            every broken rule is listed with its key and the value received.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(str(path), f"cannot be read ({error})", "a YAML file in UTF-8") from error
    if not isinstance(raw, dict):
        raise ParamsError(str(path), f"holds {type(raw).__name__}", "a mapping of sections")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [
            f"\n  {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            + ("" if problem["type"] == "missing" else f" (got {problem['input']!r:.80})")
            for problem in problems
        ]
        raise ParamsError(str(path), f"{len(problems)} problem(s)" + "".join(lines)) from error
