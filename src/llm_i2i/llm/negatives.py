"""What a discriminator learns from: whose histories, up to which moment, and the items to answer No to.

Kinds of negatives. `random`, as in the paper: uniform over the catalogue. `popularity`: by training count to a power,
so that being frequent says nothing about the answer. `item_knn`: near misses of item-kNN, the items closest to the
user's own. `generator`: near misses of the generator (stage mine_negatives), which the filter has to recognise.
`hard`: half of each of these two. Random items fill up where there are too few.

Only the user's *training* items are excluded. Validation and test items are not looked at: if they never occurred as
a No, their absence would leak the answer.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy import sparse

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import sample_keys
from llm_i2i.errors import DataError
from llm_i2i.params import Negatives, TrainDiscriminatorParams

# (user, user's training items, how many, random state) to distinct items, sorted.
Sampler = Callable[[str, IntArray, int, np.random.Generator], IntArray]


def n_positives(params: TrainDiscriminatorParams) -> int:
    """How many of the items taken next are asked about at a moment, at most."""
    return max(1, params.candidates_per_history // (1 + params.negatives_per_positive))


def draw_moment(items: IntArray, params: TrainDiscriminatorParams, rng: np.random.Generator) -> int:
    """Draw after how many items to ask; `n_positives` items follow wherever the history is long enough.

    Args:
        items: A user's training items, at least two.
        params: Section train_discriminator.
        rng: Random state.
    """
    return int(rng.integers(1, max(2, len(items) - n_positives(params) + 1)))


def held_out_and_fit(
    by_user: dict[str, IntArray], params: TrainDiscriminatorParams, *, seed: int
) -> tuple[list[str], list[str]]:
    """Users held out and users to train on, both seeded samples.

    Args:
        by_user: Users' training items; users with fewer than two are left out.
        params: Section train_discriminator.
        seed: Of both samples.

    Raises:
        DataError: Too few users to train and to hold some out.
    """
    users = [user for user, items in by_user.items() if len(items) >= 2]
    order = [users[i] for i in np.random.default_rng(seed).permutation(len(users))]
    size = round(params.held_out_share * len(order))
    if params.max_histories:
        size = min(
            size, max(1, round(params.held_out_share * params.max_histories / (1 - params.held_out_share)))
        )
    held_out, rest = sorted(order[:size]), sorted(order[size:])
    if not held_out or not rest:
        raise DataError(
            "train_discriminator",
            f"{len(users)} users with at least two training interactions",
            f"enough to hold {params.held_out_share:.0%} of them out and to train on the rest",
        )
    return held_out, sample_keys(rest, params.max_histories, seed=seed)


def negative_sampler(
    kind: Negatives,
    sequences: dict[str, IntArray],
    n_items: int,
    params: TrainDiscriminatorParams,
    near_misses: Mapping[str, IntArray] = MappingProxyType({}),
) -> Sampler:
    """A sampler of distinct items outside a user's own training items.

    Args:
        kind: Kind of negatives.
        sequences: All users' training items; counts and neighbours are of these alone.
        n_items: Catalogue size.
        params: `popularity_exponent` and `near_neighbours`.
        near_misses: For `generator` and `hard`: the generator's near misses of each user, without the user's own items.
    """
    if kind == "random":
        return lambda _, own, size, rng: random_negatives(own, n_items, size, rng)
    if kind == "popularity":
        items = np.concatenate(list(sequences.values()))
        weights = np.bincount(items, minlength=n_items).astype(np.float64) ** params.popularity_exponent
        return lambda _, own, size, rng: weighted_negatives(own, weights, size, rng)
    nothing = np.empty(0, dtype=np.int64)
    nearest = None if kind == "generator" else _nearest(sequences, n_items, params.near_neighbours)

    def draw(user: str, own: IntArray, size: int, rng: np.random.Generator) -> IntArray:
        chosen = nothing
        if kind != "item_knn":
            chosen = _some(
                near_misses.get(user, nothing), size if kind == "generator" else (size + 1) // 2, rng
            )
        if nearest is not None:
            others = np.setdiff1d(nearest(own), chosen)
            chosen = np.concatenate([chosen, _some(others, size - len(chosen), rng)])
        rest = random_negatives(np.concatenate([own, chosen]), n_items, size - len(chosen), rng)
        return np.sort(np.concatenate([chosen, rest]))

    return draw


def _some(items: IntArray, size: int, rng: np.random.Generator) -> IntArray:
    """`size` of the items, uniform; all if there are fewer."""
    return rng.choice(items, size=min(size, len(items)), replace=False)


def random_negatives(own: IntArray, n_items: int, size: int, rng: np.random.Generator) -> IntArray:
    """Distinct items, uniform over the catalogue, outside `own`.

    Args:
        own: The user's training items.
        n_items: Catalogue size.
        size: How many; fewer come if the catalogue does not have them.
        rng: Random state.
    """
    open_items = np.setdiff1d(np.arange(n_items), own, assume_unique=False)
    return np.sort(rng.choice(open_items, size=min(size, len(open_items)), replace=False))


def weighted_negatives(own: IntArray, weights: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """Distinct items outside `own`, drawn by weight without replacement.

    Args:
        own: The user's training items.
        weights: float64 (n_items,), at least 0; an item of weight 0 is drawn only when no other is left.
        size: How many; fewer come if the catalogue does not have them.
        rng: Random state.
    """
    # The largest of u^(1/w) are a weighted draw without replacement (Efraimidis and Spirakis 2006); here as
    # log(u) / w, in which a weight of 0 gives minus infinity and equal ones a plain uniform draw.
    with np.errstate(divide="ignore"):
        key = np.log(1.0 - rng.random(len(weights))) / weights
    # Among items of weight 0 chance decides, not their order in the catalogue.
    tie = rng.random(len(weights))
    order = np.lexsort((tie, -key))
    taken = np.isin(order, own)
    return np.sort(order[~taken][:size])


def _nearest(
    sequences: dict[str, IntArray], n_items: int, n_neighbours: int
) -> Callable[[IntArray], IntArray]:
    """The `n_neighbours` items with the highest summed cosine to a user's own, without those of cosine 0."""
    users = [np.unique(items) for items in sequences.values()]
    rows = np.repeat(np.arange(len(users)), [len(items) for items in users])
    columns = np.concatenate(users)
    # Columns of unit length: the product of two is their cosine.
    values = 1.0 / np.sqrt(np.bincount(columns, minlength=n_items))[columns]
    by_item = sparse.csr_array((values, (columns, rows)), shape=(n_items, len(users)))

    def nearest(own: IntArray) -> IntArray:
        # The cosines to all items of `own` at once, without building the item-by-item matrix.
        score = np.asarray(by_item @ by_item[own].sum(axis=0))
        score[own] = 0.0
        order = np.argsort(-score, kind="stable")[:n_neighbours]
        return order[score[order] > 0]

    return nearest
