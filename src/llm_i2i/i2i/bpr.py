"""BPR matrix factorisation, deterministic; item-to-item lists from its item factors.

Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, figure 4.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from llm_i2i.errors import ParamsError
from llm_i2i.i2i._bpr_kernel import bpr_epoch
from llm_i2i.i2i._similar import Similar, check_number
from llm_i2i.i2i.factors import cosine_top_k, diverged
from llm_i2i.i2i.hold_out import HeldOut, Patience, hold_out
from llm_i2i.i2i.user_items import UserItems, check_user_items, pointers

log = logging.getLogger(__name__)
NEGATIVE_SAMPLING = ("uniform", "popularity")
CHECK_EVERY = 5  # epochs between two looks at the held-out slice
Factors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class BprModel:
    """Trained factors: user (n_users, factors), item (n_items, factors), item_bias (n_items,), float32."""

    user: Factors
    item: Factors
    item_bias: Factors


@dataclass(frozen=True)
class BprOptions:
    """Options of one training, checked; their values stand in params.yaml alone.

    Attributes:
        factors: Width of the factors, >= 1.
        epochs: Passes of nnz sampled triples at most, >= 1.
        learning_rate: > 0.
        regularization: L2 strength, >= 0.
        negative_sampling: `uniform` over the items a user did not take, or `popularity`: the item of a
            random interaction.
        with_bias: Whether the item's bias counts as one more factor of the similarity, as in `implicit`. It ties
            items by popularity: on Toys that helps strongly fitted factors overall, and costs the tail
            (64 factors, 60 epochs: tail Recall@10 .041 without, .027 with it).
        validation_share: In [0, 1), share of users who keep one item back to stop by. The number of epochs
            that ranked these best is then trained on all interactions. 0 = all epochs.
        patience: Checks (every 5 epochs) without improvement before training stops, >= 1.
        seed: Seed of the initial factors and of the sampling.

    Raises:
        ParamsError: An option is out of range.
    """

    factors: int
    epochs: int
    learning_rate: float
    regularization: float
    negative_sampling: str
    with_bias: bool
    validation_share: float
    patience: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in {"factors": 1, "epochs": 1, "patience": 1, "seed": 0}.items():
            check_number(f"bpr {name}", getattr(self, name), minimum=least, whole=True)
        check_number("bpr learning_rate", self.learning_rate, minimum=1e-12)
        check_number("bpr regularization", self.regularization, minimum=0.0)
        if self.negative_sampling not in NEGATIVE_SAMPLING:
            found, expected = f"is {self.negative_sampling!r}", " | ".join(NEGATIVE_SAMPLING)
            raise ParamsError("bpr negative_sampling", found, expected)


def bpr(user_items: UserItems, *, top_k: int, **options: Any) -> Similar:
    """Train BPR and return the cosines of its item factors; same bits for any number of threads.

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.
        **options: The fields of `BprOptions`, all of them.

    Returns:
        CSR (n_items, n_items), float32 in (0, 1], as of `swing`. Negative cosines are left out, and so
        are items nobody took: their factors are noise.

    Raises:
        DataError: Not a binary, non-empty matrix.
        TrainingError: The training diverges.
        ParamsError: An option is out of range.
    """
    check_number("bpr top_k", top_k, minimum=1, whole=True)
    matrix, checked = check_user_items(user_items), BprOptions(**options)
    model = train_bpr(matrix, checked)
    taken = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
    vectors = np.column_stack([model.item, model.item_bias]) if checked.with_bias else model.item
    return cosine_top_k(vectors * taken[:, None], top_k=top_k)


def train_bpr(user_items: UserItems, options: BprOptions) -> BprModel:
    """Train BPR by sequential stochastic gradient steps.

    Args:
        user_items: Binary CSR (n_users, n_items).
        options: How.

    Raises:
        DataError: Not a binary, non-empty matrix.
        TrainingError: The training diverges.
        ParamsError: `validation_share` is out of range.
    """
    matrix = check_user_items(user_items)
    held = hold_out(matrix, share=options.validation_share, seed=options.seed)
    epochs = options.epochs if held is None else _best_epoch(held, options)
    *_, (_, model) = _epochs(matrix, options, epochs)
    return model


def _best_epoch(held: HeldOut, options: BprOptions) -> int:
    """Return the number of epochs after which the held-out items ranked best."""
    stop, epochs = Patience(options.patience), options.epochs
    for epoch, model in _epochs(held.rest, options, epochs):
        if epoch % CHECK_EVERY and epoch != epochs:
            continue
        user = np.pad(model.user[held.users], ((0, 0), (0, 1)), constant_values=1.0)
        with threadpool_limits(limits=1, user_api="blas"):
            ndcg = held.ndcg(user, np.column_stack([model.item, model.item_bias]))
        log.info("bpr: epoch %d of %d, held-out NDCG %.4f", epoch, epochs, ndcg)
        stop.improved(ndcg, epoch)
        if stop.over:
            break
    best = stop.best_epoch or epochs
    log.info("bpr: epoch %d ranks the held-out items best; training on all interactions", best)
    return best


def _epochs(matrix: UserItems, options: BprOptions, epochs: int) -> Iterator[tuple[int, BprModel]]:
    """Yield (epoch, model) after each epoch; the model's arrays change in place."""
    bounds, taken = pointers(matrix)
    user_of = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(bounds))
    generator = np.random.default_rng(options.seed)
    user = _initial(generator, matrix.shape[0], options.factors)
    item = _initial(generator, matrix.shape[1], options.factors)
    bias = np.zeros(matrix.shape[1], dtype=np.float32)
    state = generator.integers(1, 1 << 63, size=1, dtype=np.uint64)
    for epoch in tqdm(range(1, epochs + 1), desc="bpr", unit="epoch", leave=False, disable=None):
        ordered = bpr_epoch(
            user_of, bounds, taken, user, item, bias,
            options.learning_rate, options.regularization, options.negative_sampling == "popularity", state,
        )  # fmt: skip
        if epoch in {1, epochs} or epoch % 10 == 0:
            share = 100 * ordered / taken.size
            log.info("bpr: epoch %d of %d, %.1f %% of triples in order", epoch, epochs, share)
        if not all(np.isfinite(factors.sum(dtype=np.float64)) for factors in (user, item, bias)):
            raise diverged("bpr", f"epoch {epoch} of {epochs}", "factors that are not finite", options.learning_rate)
        yield epoch, BprModel(user, item, bias)


def _initial(generator: np.random.Generator, n: int, factors: int) -> Factors:
    """Return small random factors (n, factors), uniform around 0."""
    return ((generator.random((n, factors)) - 0.5) / factors).astype(np.float32)
