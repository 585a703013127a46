"""Which synthetic pairs are kept: the switches, and our recipe."""

from typing import Final, Literal

from pydantic import model_validator

from llm_i2i.params.fields import NonNegativeFloat, NonNegativeInt, PositiveInt, Section, Share, knob


class SelectionRule(Section):
    """How synthetic pairs are chosen."""

    confidence: Literal["rank", "p_yes", "logprob"] = knob(
        "orders pairs: rank within the user's (paper) | p_yes | logprob of the generator"
    )
    mode: Literal["threshold", "volume"] = knob("threshold on p_yes | volume: so many pairs by confidence")
    threshold: Share = knob("threshold: keep pairs with at least this p_yes")
    pairs_per_user: NonNegativeFloat = knob(
        "volume: keep the most confident pairs, so many per user on average"
    )
    max_synthetic_per_user: PositiveInt = knob("at most this many pairs per user, the first in this order")
    connected_only: bool = knob("drop a pair whose item nobody took together with an item of its user")
    item_quota: NonNegativeInt = knob("also keep this many most confident pairs per item; 0 = none")
    tail_quota: NonNegativeInt = knob("the same per tail item, where it is more than item_quota; 0 = none")

    @model_validator(mode="after")
    def _a_share_needs_an_order(self) -> "SelectionRule":
        if self.mode == "volume" and self.confidence == "rank":
            raise ValueError("mode volume needs confidence p_yes or logprob: ranks do not compare users")
        return self


# What helped most on Amazon data (experiments/recipe.yaml, chosen on valid): four pairs for five users by the judge's
# p_yes, and a few pairs of every item that the filter would leave with none.
RECIPE: Final = SelectionRule(
    confidence="p_yes",
    mode="volume",
    threshold=0.0,
    pairs_per_user=0.8,
    max_synthetic_per_user=5,
    connected_only=True,
    item_quota=2,
    tail_quota=6,
)
