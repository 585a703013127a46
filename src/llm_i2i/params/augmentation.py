"""Options of the method: which pairs are made, which are kept and what an arm trains on."""

from typing import Annotated, Literal

from pydantic import Field

from llm_i2i.params.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    dial,
    knob,
)
from llm_i2i.params.llm import Control
from llm_i2i.params.selection import RECIPE, SelectionRule

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


class CompactControlParams(Section):
    """Training of the control compact, whatever the generator's own is."""

    tail_weight: PositiveFloat = knob("loss weight of long-tail targets")
    head_weight: PositiveFloat = knob("loss weight of all other targets")
    max_history: PositiveInt = knob("items in the prompt, the last ones")
    learning_rate: PositiveFloat = knob("highest learning rate of AdamW")
    weight_decay: NonNegativeFloat = knob("AdamW, on matrices")
    warmup_share: Share = knob("share of optimizer steps until the highest learning rate")
    epochs: PositiveFloat = knob("passes over the training rows")
    max_windows: NonNegativeInt = knob("size of a seeded sample of training windows; 0 = all")
    batch_tokens: PositiveInt = knob("tokens per micro-batch, padding included")
    accumulation: PositiveInt = knob("micro-batches per optimizer step")


class ControlsParams(Section):
    """Cheap recommenders whose pairs take the place of the generator's, at equal volume."""

    names: Annotated[tuple[Control, ...], Field(min_length=1)] = dial(
        "random | popularity | item_knn | compact; only what fuse.arms uses"
    )
    compact: CompactControlParams = dial("training of control compact: what differs from the profile")


class FuseParams(Section):
    """Which pairs each arm trains on."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = dial(
        "also no_generator, no_discriminator, synthetic_only, CONTROL, CONTROL_filtered"
    )
    selection: Literal["paper", "most_credible", "recipe", "custom"] = dial(
        "paper: drop doubted pairs | most_credible: highest p_yes | recipe: our own | custom"
    )
    threshold: Share = dial("paper, most_credible: drop synthetic pairs below this p_yes")
    max_synthetic_per_user: PositiveInt = dial("paper: the generator's first so many | most_credible: at most")
    custom: SelectionRule = dial("custom: what differs from fuse.custom of the profile")
    index: Literal["train", "train+valid"] = dial("train | train+valid: the real pairs that the I2I models see")
    filter_real: bool = dial("also drop scored real pairs below real_threshold")
    real_threshold: Share = dial("lowest p_yes of a real pair")
    control_volume: Literal["llm_i2i", "no_discriminator"] = dial(
        "a control adds as many pairs per user as this arm: llm_i2i | no_discriminator"
    )

    @property
    def rule(self) -> SelectionRule:
        """The switches that are in force under `selection`.

        paper: the generator's first pairs per user, less those that the discriminator doubts (section 3.3).
        most_credible: of all that the generator proposes, the pairs of the highest p_yes.
        """
        if self.selection == "custom":
            return self.custom
        if self.selection == "recipe":
            return RECIPE
        return SelectionRule(
            confidence="rank" if self.selection == "paper" else "p_yes",
            mode="threshold",
            threshold=self.threshold,
            pairs_per_user=0.0,
            max_synthetic_per_user=self.max_synthetic_per_user,
            connected_only=False,
            item_quota=0,
            tail_quota=0,
        )
