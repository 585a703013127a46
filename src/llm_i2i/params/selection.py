"""Which synthetic pairs are kept: the switches, and our recipe."""

from typing import Final, Literal

from pydantic import model_validator

from llm_i2i.params.fields import NonNegativeFloat, NonNegativeInt, PositiveInt, Section, Share, knob


class SelectionRule(Section):
    """How synthetic pairs are chosen."""

    confidence: Literal["rank", "p_yes", "logprob"] = knob(
        "orders pairs: rank within the user's (paper) | p_yes | logprob of the generator"
    )
    mode: Literal["threshold", "quantile"] = knob("threshold on p_yes | quantile by confidence")
    threshold: Share = knob("threshold: keep pairs with at least this p_yes")
    quantile: Share = knob("quantile: keep this most confident share of pairs")
    max_synthetic_per_user: PositiveInt = knob("at most this many pairs per user, the first in this order")
    connected_only: bool = knob("drop a pair whose item nobody took together with an item of its user")
    popularity_discount: NonNegativeFloat = knob("confidence less this times log(training count); 0 = none")
    item_quota: NonNegativeInt = knob("also keep this many most confident pairs per item; 0 = none")
    tail_quota: NonNegativeInt = knob("the same per tail item, where it is more than item_quota; 0 = none")

    @model_validator(mode="after")
    def _a_share_needs_an_order(self) -> "SelectionRule":
        if self.mode == "quantile" and self.confidence == "rank":
            raise ValueError("mode quantile needs confidence p_yes or logprob: ranks do not compare users")
        return self


# What helped most on Amazon data (experiments/recipe.yaml, chosen on valid): about two pairs for three users by the
# generator's confidence, and a few pairs of every item that the filter would leave with none.
RECIPE: Final = SelectionRule(
    confidence="logprob",
    mode="quantile",
    threshold=0.0,
    quantile=0.0275,
    max_synthetic_per_user=5,
    connected_only=True,
    popularity_discount=0.4,
    item_quota=2,
    tail_quota=6,
)
