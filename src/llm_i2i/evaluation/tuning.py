"""Tuning: choose a model's own options and its query on the valid items, with a stated budget of trials.

The model is trained on train alone, asked with the train history, and measured on each user's first valid
item; test rows are never seen. The search is over declared grids, by a tree-structured Parzen estimator
(Bergstra et al. 2011, as in Optuna); its first trial is the plain model, so that tuning never chooses less.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import optuna
import pandas as pd
from tqdm import tqdm

from llm_i2i.catalogue import Histories, histories_of, item_indices
from llm_i2i.errors import DataError, ParamsError
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.i2i import recommend, user_items_from_frame
from llm_i2i.i2i.train import MODELS, QUERY_OPTIONS, train_similar
from llm_i2i.i2i.user_items import UserItems
from llm_i2i.schema import ITEM_ID, POSITION, USER_ID

log = logging.getLogger(__name__)

OBJECTIVES: Final = ("ndcg@10", "recall@10")
Grid = Mapping[str, tuple[float, ...]]

_QUERY: Final = {
    "top_k": (20, 50, 100, 200, 500, 1000),
    "last_m": (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 0),  # 0 = all, so it comes last
    "decay": (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0),
}
# Values in order: the search steps along them. Options that are not listed stay as they are.
GRIDS: Final[Mapping[str, Grid]] = MappingProxyType(
    {
        "swing": {
            **_QUERY,
            "smoothing": (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
            "user_exponent": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
            "user_shift": (0.0, 2.0, 5.0, 15.0),
            "self_pair_weight": (0.0, 0.1, 0.3, 1.0, 3.0),
            "popularity_exponent": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        },
        "item_knn": {**_QUERY, "shrink": (0.0, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)},
        "bm25": {
            **_QUERY,
            "k1": (0.1, 0.3, 0.6, 1.2, 2.0, 4.0, 8.0, 20.0, 100.0),
            "b": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0),
        },
        "bpr": {
            **_QUERY,
            "factors": (16, 32, 64, 128),
            "epochs": (20, 40, 60, 100, 150),
            "learning_rate": (0.01, 0.02, 0.05, 0.1, 0.2),
            "regularization": (0.0, 0.0005, 0.002, 0.005, 0.01, 0.02, 0.05),
            "with_bias": (False, True),
        },
        "youtube_dnn": {
            **_QUERY,
            "factors": (32, 64, 128),
            "sampling_exponent": (0.0, 0.25, 0.5, 0.75, 1.0),
            "temperature": (0.05, 0.1, 0.2, 0.4),
            "learning_rate": (0.0005, 0.001, 0.002, 0.005, 0.01),
        },
    }
)
# Where a search starts unless the plain model's section of params.yaml says otherwise: the plain query, and options
# of tuned models that change nothing at 0.
START: Final[Mapping[str, float]] = MappingProxyType(
    {
        "top_k": 100, "last_m": 0, "decay": 1.0,
        "self_pair_weight": 0.0, "popularity_exponent": 0.0, "shrink": 0.0,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        options: The best trial's value of every searched option, `top_k`, `last_m` and `decay` among them.
        value: Its objective on valid.
        trials: All trials in order: trial, the options, value.
    """

    options: dict[str, float]
    value: float
    trials: pd.DataFrame


def tune(  # noqa: PLR0913 - by keyword: three tables, the budget, and what the model is otherwise
    model: str,
    *,
    train: pd.DataFrame,
    valid: pd.DataFrame,
    items: pd.DataFrame,
    trials: int,
    objective: str,
    seed: int,
    plain: Mapping[str, Any],
    fixed: Mapping[str, Any],
) -> Tuned:
    """Search a model's options and query; the same arguments give the same result.

    Args:
        model: One of `GRIDS`.
        train: `schema.INTERACTIONS`.
        valid: `schema.INTERACTIONS`; of several rows of one user the first is the target.
        items: `schema.ITEMS`.
        trials: Number of settings measured, >= 1; a setting drawn twice counts twice.
        objective: One of `OBJECTIVES`.
        seed: Of the search and of everything random in the model.
        plain: Options of the plain model, where the search starts.
        fixed: Options of the model that are not searched.

    Returns:
        The best setting (the first of equals) and all trials.

    Raises:
        ParamsError: Unknown model or objective, or no trial.
        DataError: Valid holds no row.
    """
    if model not in GRIDS or model not in MODELS:
        raise ParamsError("tune", f"model is {model!r}", " | ".join(GRIDS))
    if objective not in OBJECTIVES:
        raise ParamsError("tune", f"objective is {objective!r}", " | ".join(OBJECTIVES))
    if trials < 1:
        raise ParamsError("tune", f"trials is {trials}", "at least 1")
    first = valid.sort_values([USER_ID, POSITION], kind="stable").drop_duplicates(USER_ID)
    if first.empty:
        raise DataError("valid", "holds no rows", "at least one user to tune on")
    measure = _Measure(
        model,
        objective,
        seed,
        user_items=user_items_from_frame(train, items),
        histories=histories_of(first[USER_ID], train, items),
        targets=item_indices(first[ITEM_ID], items, where="valid"),
        fixed=fixed,
    )
    values = GRIDS[model]
    found = _search(measure, values, start={**START, **plain}, trials=trials)
    best = found.iloc[int(found["value"].to_numpy().argmax())]
    options = {name: _plain_number(best[name]) for name in values}
    log.info(
        "tune %s: %s %.4f on %s valid users after %d trials (plain %.4f): %s",
        model,
        objective,
        best["value"],
        f"{len(measure.targets):,}",
        trials,
        found["value"].iloc[0],
        ", ".join(f"{name} {value:g}" for name, value in options.items()),
    )
    return Tuned(options, float(best["value"]), found)


@dataclass
class _Measure:
    """The objective of a setting; the index of the last one is kept, as the query alone often changes."""

    model: str
    objective: str
    seed: int
    user_items: UserItems
    histories: Histories
    targets: Any  # int64 (n_users,)
    fixed: Mapping[str, Any]
    known: dict[tuple[float, ...], float] = field(default_factory=dict)
    last: tuple[dict[str, float], Any] | None = None

    def __call__(self, options: dict[str, float]) -> float:
        """Return the mean objective over the valid users."""
        key = tuple(options.values())
        if key not in self.known:
            own = {name: value for name, value in options.items() if name not in QUERY_OPTIONS}
            if self.last is None or self.last[0] != own:
                self.last = (own, self._train(own))
            found = recommend(
                self.last[1],
                self.histories,
                top_k=1,
                targets=self.targets,
                last_m=int(options["last_m"]),
                decay=options["decay"],
            )
            self.known[key] = float(per_user_metric(self.objective, found.ranks).mean())
        return self.known[key]

    def _train(self, own: dict[str, float]) -> Any:
        options = {**self.fixed, **{name: value for name, value in own.items() if name != "top_k"}}
        return train_similar(self.model, self.user_items, options=options, top_k=int(own["top_k"]), seed=self.seed)


def _search(measure: _Measure, grid: Grid, *, start: Mapping[str, Any], trials: int) -> pd.DataFrame:
    """Return every trial: trial, options, value."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = max(10, trials // 4)
    sampler = optuna.samplers.TPESampler(seed=measure.seed, n_startup_trials=startup)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    plain = {name: int(np.argmin([abs(value - start[name]) for value in values])) for name, values in grid.items()}
    study.enqueue_trial(plain)
    rows = []
    for number in tqdm(range(trials), unit="trial", disable=None, desc=f"tune {measure.model}"):
        trial = study.ask()
        options = {name: values[trial.suggest_int(name, 0, len(values) - 1)] for name, values in grid.items()}
        value = measure(options)
        study.tell(trial, value)
        rows.append({"trial": number, **options, "value": value})
    return pd.DataFrame(rows)


def _plain_number(value: Any) -> float:
    """Return a number of plain Python, whole ones as int."""
    number = float(value)
    return int(number) if number.is_integer() else number
