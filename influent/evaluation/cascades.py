"""Who acts next, judged: where the user who did stands among all who were not in the cascade yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from influent.data.cascades import NextActs
from influent.errors import DataError
from influent.evaluation.metrics import bootstrap_interval, hit_rate, reciprocal_rank
from influent.evaluation.report import Comparison, Measure, by_name, check_lengths
from influent.models.next_actor import ActorModel
from influent.progress import Progress
from influent.settings import check_type


@dataclass(frozen=True)
class CascadeReport(Comparison):
    """What was measured, of which cascades, and how."""

    protocol: str
    split: str
    """Hash of the split, empty where the acts came from none."""
    n_acts: int
    n_cascades: int
    new_actors: float
    """Share of the acts whose user had not acted before in any cascade: hits by chance only."""
    rows: dict[str, dict[str, Measure]]

    def caption(self) -> str:
        """Return in one sentence what the table is of."""
        return (
            f"{self.protocol}; {self.n_acts:,} acts of {self.n_cascades:,} cascades, all users ranked but those in the "
            f"cascade ({self.new_actors:.1%} of acts are a user's first); 95 % intervals by bootstrap over cascades; "
            f"split {self.split or 'not named'}."
        )


def actor_ranks(model: ActorModel, acts: NextActs, *, progress: Progress | None = None) -> np.ndarray:
    """Return the rank of the user who acted, float64 (N,), from 1.

    Users who acted in the cascade strictly earlier are not ranked. Equal scores share the mean of their ranks.
    """
    found = np.empty(len(acts))
    with (progress or Progress()).track(f"rank {model.name}", len(acts)) as advance:
        for row, scores in model.scores(acts):
            act = int(acts.place[row])
            actor = scores[acts.cascades.user_idx[act]]
            rivals = np.delete(scores, acts.cascades.user_idx[acts.cascades.history(act)])
            found[row] = (rivals > actor).sum() + ((rivals == actor).sum() + 1) / 2
            advance()
    return found


def evaluate_next_actor(
    models: Sequence[ActorModel] | Mapping[str, ActorModel],
    acts: NextActs,
    *,
    k: Sequence[int] = (10, 50, 100),
    protocol: str = "acts as given",
    split: str = "",
    n_resamples: int = 1000,
    progress: Progress | None = None,
) -> CascadeReport:
    """Judge models by where the user who acted next stands in their ranking of all users.

    `Hits@k` is the share of acts whose user stands at rank k or better. `MAP@k`, of the largest k, is the mean of
    1 / rank, 0 beyond k: one user is right, so the average precision of a list is just that.

    Raises:
        ConfigError: a list length is out of range, or two models have one name.
        DataError: there is nothing to predict.
        LeakageError: a model has learned from acts that are not earlier than these.
    """
    named = by_name(models)
    check_type("acts", acts, NextActs, "split_cascades(cascades)")
    check_lengths(k)
    if len(acts) == 0:
        raise DataError("there is no act to predict. Use the parts of split_cascades(cascades).")
    owner, each = acts.cascade_idx, np.arange(len(acts) + 1)
    rows: dict[str, dict[str, Measure]] = {}
    for called, model in named.items():
        ranks = actor_ranks(model, acts, progress=progress)
        values = {f"Hits@{length}": hit_rate(ranks, each, length) for length in k}
        values[f"MAP@{max(k)}"] = reciprocal_rank(ranks, each, max(k))
        rows[called] = {
            name: Measure(float(value.mean()), *bootstrap_interval(value, owner, n_resamples=n_resamples))
            for name, value in values.items()
        }
    return CascadeReport(
        protocol=protocol,
        split=split,
        n_acts=len(acts),
        n_cascades=len(np.unique(owner)),
        new_actors=_share_new(acts),
        rows=rows,
    )


def _share_new(acts: NextActs) -> float:
    first_us = np.full(acts.cascades.n_users, np.iinfo(np.int64).max)
    np.minimum.at(first_us, acts.cascades.user_idx, acts.cascades.time_us)
    return float((first_us[acts.user_idx] >= acts.time_us).mean())
