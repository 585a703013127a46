"""The torch part of YoutubeDNN: the user network, the sampled softmax, the training loop."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from llm_i2i.i2i._tower_batches import Batches, TowerOptions
from llm_i2i.i2i.factors import diverged
from llm_i2i.i2i.hold_out import HeldOut, Patience

log = logging.getLogger(__name__)
Vectors = np.ndarray[Any, np.dtype[np.float32]]


class Tower(nn.Module):
    """User network: mean of item vectors -> hidden ReLU layers -> unit vector.

    Args:
        n_items: Rows of the table.
        factors: Width of item and user vectors.
        hidden: Widths of the hidden layers, may be empty.
    """

    def __init__(self, n_items: int, factors: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.items = nn.EmbeddingBag(n_items, factors, mode="mean")
        nn.init.normal_(self.items.weight, std=factors**-0.5)
        widths = (factors, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], factors))

    def forward(self, items: Tensor, offsets: Tensor) -> Tensor:
        """Return unit user vectors (n, factors) of n histories laid end to end."""
        mean = self.items(items, offsets)
        return functional.normalize(mean + self.layers(mean), dim=1)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Return unit vectors (n, factors) of these items."""
        return functional.normalize(self.items.weight[items], dim=1)


def train_tower(batches: Batches, held: HeldOut | None, training: TowerOptions) -> Vectors:
    """Train and return the item vectors, float32 (n_items, factors), not normalised; same bits each time.

    Args:
        batches: The targets of an epoch.
        held: Stop by these; None = all epochs.
        training: Options.

    Raises:
        TrainingError: A loss is no finite number.
    """
    with _repeatable(training.seed):
        tower = Tower(batches.matrix.shape[1], training.factors, training.hidden)
        _fit(tower, batches, held, training)
        return tower.items.weight.detach().numpy().copy()


def sampled_softmax_loss(
    user: Tensor, vectors: Callable[[Tensor], Tensor], targets: Tensor, classes: Tensor, log_expected: Tensor
) -> Tensor:
    """Return the mean sampled-softmax loss with log-Q correction (Jean et al. 2014, section 3).

    Args:
        user: (n, width) user vectors, scaled.
        vectors: Gives the vectors (m, width) of int64 (m,) items.
        targets: int64 (n,).
        classes: int64 (m,), drawn with replacement; a class that is a row's target is left out there.
        log_expected: (n_items,) log of how often a class is drawn in expectation, m Q.
    """
    right = (user * vectors(targets)).sum(1) - log_expected[targets]
    wrong = user @ vectors(classes).T - log_expected[classes]
    wrong = wrong.masked_fill(classes[None, :] == targets[:, None], -torch.inf)
    return functional.cross_entropy(
        torch.cat([right[:, None], wrong], dim=1), torch.zeros(len(user), dtype=torch.int64)
    )


def _fit(tower: Tower, batches: Batches, held: HeldOut | None, training: TowerOptions) -> None:
    """Train in place; with a held-out slice, stop early and end with the best epoch's weights."""
    optimizer = torch.optim.Adam(tower.parameters(), lr=training.learning_rate)
    stop, best, epochs = Patience(training.patience), {}, training.epochs
    log_expected = torch.from_numpy(batches.log_expected)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in tqdm(batches, desc=f"youtube_dnn {epoch}/{epochs}", unit="batch", leave=False, disable=None):
            items, offsets, targets, classes = (torch.from_numpy(part) for part in batch)
            user = tower(items, offsets) / training.temperature
            loss = sampled_softmax_loss(user, tower.item_vectors, targets, classes, log_expected)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            total += float(loss.detach()) * len(targets)
            if not math.isfinite(total):
                raise diverged("youtube_dnn", f"epoch {epoch} of {epochs}", f"loss {total:g}", training.learning_rate)
        mean = total / len(batches.targets)
        if held is None:
            log.info("youtube_dnn: epoch %d of %d, loss %.4f", epoch, epochs, mean)
            continue
        ndcg = _validate(tower, batches, held)
        log.info("youtube_dnn: epoch %d of %d, loss %.4f, held-out NDCG %.4f", epoch, epochs, mean, ndcg)
        if stop.improved(ndcg, epoch):
            best = {name: value.clone() for name, value in tower.state_dict().items()}
        if stop.over:
            break
    if best:
        tower.load_state_dict(best)
        log.info("youtube_dnn: keeps epoch %d, held-out NDCG %.4f", stop.best_epoch, stop.best)


@torch.no_grad()
def _validate(tower: Tower, batches: Batches, held: HeldOut) -> float:
    """Return the held-out slice's NDCG."""
    items, offsets = batches.histories(held.users)
    user = tower(torch.from_numpy(items), torch.from_numpy(offsets))
    return held.ndcg(user.numpy(), functional.normalize(tower.items.weight, dim=1).numpy())


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed torch and use one thread inside, and leave both outside as they were: sums keep their order."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
