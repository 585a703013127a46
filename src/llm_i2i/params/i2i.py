"""Options of the I2I models and of their evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from llm_i2i.params.fields import (
    Decay,
    HalfOpenShare,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    dial,
    knob,
)

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


class SwingParams(Section):
    """Swing: see `llm_i2i.i2i.swing`."""

    smoothing: NonNegativeFloat = knob("added to the number of items that two users share")
    user_exponent: float = knob("a user weighs (user_shift + number of items) to minus this power")
    user_shift: NonNegativeFloat = knob("see user_exponent")


class BprParams(Section):
    """BPR: see `llm_i2i.i2i.bpr`."""

    factors: PositiveInt = knob("width of the factors")
    epochs: PositiveInt = knob("passes over the interactions")
    learning_rate: PositiveFloat = knob("step of the gradient descent")
    regularization: NonNegativeFloat = knob("L2 penalty on the factors")
    negative_sampling: Literal["uniform", "popularity"] = knob("uniform | popularity: an item of a random interaction")
    with_bias: bool = knob("the item's bias as one more factor of the similarity")
    validation_share: HalfOpenShare = knob("share of users who keep one training item back to stop by; 0 = all epochs")
    patience: PositiveInt = knob("checks (every 5 epochs) without improvement before it stops")


class ItemKnnParams(Section):
    """Item-kNN by cosine: no options of its own."""


class Bm25Params(Section):
    """BM25: see `llm_i2i.i2i.bm25`."""

    k1: NonNegativeFloat = knob("how slowly the weight of an item saturates with its users; 0 = they do not count")
    b: Share = knob("how much an item with many users is discounted; 0 = not at all")


class PopularityParams(Section):
    """Popularity: no options of its own."""


class YoutubeDnnParams(Section):
    """YoutubeDNN: see `llm_i2i.i2i.youtube_dnn`."""

    factors: PositiveInt = knob("width of the item vectors")
    hidden: tuple[PositiveInt, ...] = knob("widths of the hidden layers")
    epochs: PositiveInt = knob("passes over the interactions")
    batch_size: PositiveInt = knob("training rows per step")
    negatives: PositiveInt = knob("sampled classes per step")
    sampling_exponent: NonNegativeFloat = knob("classes are drawn by training count to this power")
    temperature: PositiveFloat = knob("divides the cosines")
    learning_rate: PositiveFloat = knob("of Adam")
    max_history: PositiveInt = knob("items of a history, the last ones")
    validation_share: HalfOpenShare = knob("share of users who keep one training item back to stop by; 0 = all epochs")
    patience: PositiveInt = knob("epochs without improvement before it stops")


class TunedParams(Section):
    """What `python -m pipelines tune` chooses for every model."""

    top_k: PositiveInt = knob("neighbours per item")
    last_m: NonNegativeInt = knob("query: the user's last M items; 0 = all")
    decay: Decay = knob("weight of a query item = decay^age")


class SwingTunedParams(TunedParams, SwingParams):
    """Swing with all its options, tuned."""

    self_pair_weight: NonNegativeFloat = knob("1 = a single shared user counts as well; 0 = the paper")
    popularity_exponent: float = knob("divide by (n_i n_j)^this; 0 = the paper")


class BprTunedParams(TunedParams, BprParams):
    """BPR, tuned."""


class ItemKnnTunedParams(TunedParams):
    """Item-kNN, tuned: see `llm_i2i.i2i.item_knn`."""

    shrink: NonNegativeFloat = knob("added to both item counts, which holds back pairs of rare items; 0 = plain cosine")


class Bm25TunedParams(TunedParams, Bm25Params):
    """BM25, tuned."""


class YoutubeDnnTunedParams(TunedParams, YoutubeDnnParams):
    """YoutubeDNN; not tuned here yet."""


class TrainI2iParams(Section):
    """The I2I models; their options stand in profiles/models.yaml."""

    models: Annotated[tuple[Model, ...], Field(min_length=1)] = dial(
        "swing | bpr | item_knn | bm25 | popularity | youtube_dnn, or MODEL_tuned"
    )
    top_k: PositiveInt = dial("neighbours per item")
    swing: SwingParams = knob("Swing")
    bpr: BprParams = knob("BPR")
    item_knn: ItemKnnParams = knob("item-kNN by cosine, no options")
    bm25: Bm25Params = knob("BM25")
    popularity: PopularityParams = knob("popularity, no options")
    youtube_dnn: YoutubeDnnParams = knob("YoutubeDNN")
    swing_tuned: SwingTunedParams = knob("written by `python -m pipelines tune swing`")
    bpr_tuned: BprTunedParams = knob("written by `python -m pipelines tune bpr`")
    item_knn_tuned: ItemKnnTunedParams = knob("written by `python -m pipelines tune item_knn`")
    bm25_tuned: Bm25TunedParams = knob("written by `python -m pipelines tune bm25`")
    youtube_dnn_tuned: YoutubeDnnTunedParams = knob("the plain values: not tuned here yet")


class EvaluateParams(Section):
    """The query and the cut-offs."""

    last_m: NonNegativeInt = dial("query: the user's last M items; 0 = all")
    decay: Decay = dial("weight of a query item = decay^age")
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = dial("cut-offs")
