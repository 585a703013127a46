"""All sections together, and the rules between them."""

from typing import Annotated

from pydantic import Field, model_validator

from llm_i2i.params.augmentation import Arm, ControlsParams, FuseParams
from llm_i2i.params.data import (
    EncodeTextParams,
    IdentifyParams,
    RuntimeParams,
    SparkParams,
    SplitParams,
    TagParams,
    ValidateParams,
)
from llm_i2i.params.fields import NonNegativeFloat, NonNegativeInt, PositiveInt, Section, Share, dial, knob
from llm_i2i.params.i2i import EvaluateParams, Model, TrainI2iParams
from llm_i2i.params.llm import (
    BaseModelParams,
    EvaluateGeneratorParams,
    JudgeParams,
    ScoreParams,
    SynthesizeParams,
    TrainDiscriminatorParams,
    TrainGeneratorParams,
)
from llm_i2i.params.monitor import MonitorParams
from llm_i2i.schema import CONTROLS


class ReportParams(Section):
    """What the report computes and shows."""

    bootstrap_resamples: PositiveInt = dial("bootstrap samples of users behind each interval")
    samples: NonNegativeInt = knob("synthetic interactions shown")


class GateParams(Section):
    """No stage: when `python -m pipelines gate` lets a candidate replace the model that serves."""

    model: Model = dial("with arm: the index that is served")
    arm: Arm = dial("see model")
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=3)] = dial(
        "candidate and champion are compared under each of them"
    )
    resamples: PositiveInt = knob("bootstrap samples of users and seeds")
    min_overall_gain: NonNegativeFloat = knob("the lower bound of the NDCG@10 difference must lie above this")
    max_tail_loss: Share = dial("the lower bound of the tail Recall@10 difference may lie this far below 0")
    max_coverage_loss: Share = knob("share of the catalogue that the lists may lose")
    max_gini_rise: Share = knob("rise of the Gini index of what is recommended")
    min_reachable_share: Share = knob("a first champion's lists reach this share of the test targets")
    min_coverage: Share = knob("a first champion's lists show this share of the catalogue")
    parity_users: PositiveInt = knob("users on whom the online lookup must equal the evaluation's ranking")

    @model_validator(mode="after")
    def _seeds_differ(self) -> "GateParams":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        return self


class UpdateParams(Section):
    """No stage: how `python -m pipelines update` takes in a new day."""

    retrain_after: NonNegativeInt = knob("updates that keep the trained LLMs before one trains; 0 = each trains")


class ModelCardParams(Section):
    """No stage: what `python -m pipelines promote` writes about the data, which no file tells."""

    data: Annotated[str, Field(min_length=1)] = dial("name and origin of your data")
    data_licence: Annotated[str, Field(min_length=1)] = dial("what its owner allows")


class Params(Section):
    """Every option of a run: a profile, overlaid by params.yaml."""

    profile: str = Field(
        default="", description="a file of profiles/, which says what this file does not; empty = all is said here"
    )
    seed: NonNegativeInt = dial("of everything random")
    runtime: RuntimeParams
    spark: SparkParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    split: SplitParams
    tag: TagParams
    encode_text: EncodeTextParams
    identify: IdentifyParams
    base_model: BaseModelParams
    train_generator: TrainGeneratorParams
    train_discriminator: TrainDiscriminatorParams
    synthesize: SynthesizeParams
    controls: ControlsParams
    score: ScoreParams
    judge: JudgeParams
    fuse: FuseParams
    train_i2i: TrainI2iParams
    evaluate: EvaluateParams
    evaluate_generator: EvaluateGeneratorParams
    report: ReportParams
    gate: GateParams
    monitor: MonitorParams
    update: UpdateParams
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
    def _sections_fit_each_other(self) -> "Params":
        if self.split.held_out_share == 0.0:
            learns = "learns from held-out items: raise split.held_out_share above 0"
            if self.judge.by == "head":
                raise ValueError(f"judge.by head {learns}")
            if self.train_generator.early_stopping.patience > 0:
                raise ValueError(f"train_generator.early_stopping.patience {learns}")
        if self.base_model.source == "compact":
            if "untuned" in self.evaluate_generator.arms:
                raise ValueError("evaluate_generator.arms: untuned says nothing of base_model.source compact")
            if self.identify.identifier != "token":
                raise ValueError("base_model.source compact knows no words: it needs identify.identifier token")
        shortest = min(self.evaluate.ks)
        if self.evaluate_generator.num_beams < shortest:
            raise ValueError(f"evaluate_generator.num_beams: must be at least {shortest} (evaluate.ks)")
        return self
