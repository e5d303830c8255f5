"""From settings of a known effect, to an experiment: people at several points of time, some of them exposed by chance.

User u of cluster c acts at point t = 1 … T a Poisson number of times until the next point, on average

    level · cluster_c · person_u · (1 + trend · t) + effect_u · exposed_{u,t}

and at t = 0, before anybody is exposed, likewise. All of cluster_c, person_u and effect_u are drawn from gamma
distributions, the first two with mean 1. Effects add up, so the planted effect is the mean of effect_u.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from influent import schema
from influent.data.clock import DAY_US
from influent.errors import ConfigError
from influent.settings import Checked

START_US = 1_704_067_200_000_000
"""Beginning of the log: 2024-01-01 UTC"""
CLUSTER, WAVE = "cluster", "wave"


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Checked):
    """Settings of a planted experiment; the defaults expose half of 1,000 people throughout 9 points of time."""

    n_users: int = 1000
    n_clusters: int = 40
    """People are in one each, at random, so clusters differ in size"""
    n_waves: int = 9
    """Points of time"""
    wave_days: int = 7
    """From one to the next"""
    level: float = 2.0
    """Mean number of purchases between two points"""
    trend: float = 0.05
    """How much that grows from one point to the next, as a share of the first"""
    user_spread: float = 0.5
    """Standard deviation of what is a person's own, relative to its mean"""
    cluster_spread: float = 0.2
    """Likewise, a cluster's own"""
    effect: float = 0.3
    """Mean effect, in purchases until the next point"""
    effect_spread: float = 1.0
    """Standard deviation of effects over people, relative to their mean"""
    drawn: Literal["user", "cluster"] = "user"
    """What is exposed or not as a whole"""
    each_wave: bool = False
    """Whether exposure is drawn anew at each point, or once"""
    probabilities: tuple[float, ...] = (0.5,)
    """With one, exactly this share is exposed. With several, those who buy more have the later ones, and each
    is exposed or not by a toss of its own"""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        self._check_int("n_clusters", 1)
        self._check_int("n_users", self.n_clusters)
        self._check_int("n_waves", 1)
        self._check_int("wave_days", 1)
        self._check_int("seed", 0)
        for name in ("level", "trend", "user_spread", "cluster_spread", "effect", "effect_spread"):
            self._check_real(name, 0)
        self._check_one_of("drawn", ("user", "cluster"))
        self._check_bool("each_wave")
        chances = self.probabilities
        are_chances = isinstance(chances, tuple) and all(isinstance(one, float) and 0 < one < 1 for one in chances)
        if not are_chances or not chances:
            raise ConfigError(
                f"ExperimentConfig.probabilities must be a tuple of chances above 0 and below 1. Got {chances!r}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """An experiment and the truth behind it. Shapes: U users, T points of time."""

    config: ExperimentConfig
    users: pa.Table
    """The truth: `user_id, cluster, level` (expected purchases before the first point), `effect`"""
    exposed: np.ndarray = field(repr=False)
    """bool (U, T)"""
    probability: np.ndarray = field(repr=False)
    """float64 (U, T): the chance of it"""
    counts: np.ndarray = field(repr=False)
    """int64 (U, T + 1): purchases before the first point, and after each"""

    @property
    def units(self) -> pa.Table:
        """Return a row for each user and point: what `exposure_units` makes of the log."""
        n_users, n_waves = self.exposed.shape
        columns: dict[str, Any] = {
            name: self.users.column(name).take(pa.array(np.repeat(np.arange(n_users), n_waves)))
            for name in (schema.USER_ID, CLUSTER)
        }
        return pa.table(
            columns
            | {
                WAVE: np.tile(np.arange(1, n_waves + 1), n_users),
                "exposed": self.exposed.ravel(),
                schema.PROBABILITY: self.probability.ravel(),
                "outcome": self.counts[:, 1:].ravel().astype(np.float64),
                "outcome_before": np.repeat(self.counts[:, 0], n_waves).astype(np.float64),
            }
        )

    @cached_property
    def events(self) -> pa.Table:
        """Return the log, in order of time: each `decision` with who was exposed, and each `purchase`.

        A `visit` of everybody begins and ends it.
        """
        (n_users, n_waves), span = self.exposed.shape, self.config.wave_days * DAY_US
        purchase = np.repeat(np.arange(self.counts.size), self.counts.ravel())
        who, when = np.divmod(purchase, n_waves + 1)
        rng = np.random.default_rng((self.config.seed, 1))
        bought_us = when * span + rng.integers(1, span, len(purchase))
        user, wave = np.divmod(np.arange(self.exposed.size), n_waves)
        everybody = np.arange(n_users)
        parts = {
            "decision": (user, (wave + 1) * span),
            "purchase": (who, bought_us),
            "visit": (np.tile(everybody, 2), np.repeat([0, (n_waves + 1) * span], n_users)),
        }
        decided = pa.table(
            {WAVE: wave + 1, "exposed": self.exposed.ravel(), schema.PROBABILITY: self.probability.ravel()}
        )
        tables = []
        for action, (idx, time_us) in parts.items():
            of_users = self.users.select([schema.USER_ID, CLUSTER]).take(pa.array(idx))
            columns = dict(zip(of_users.column_names, of_users.columns, strict=True))
            columns |= {schema.ITEM_ID: [action] * len(idx), schema.ACTION: [action] * len(idx)}
            columns[schema.TIME_US] = START_US + time_us
            if action == "decision":
                columns |= dict(zip(decided.column_names, decided.columns, strict=True))
            tables.append(pa.table(columns))
        return pa.concat_tables(tables, promote_options="default").sort_by([(schema.TIME_US, "ascending")])


def simulate_experiment(config: ExperimentConfig = ExperimentConfig()) -> Experiment:
    """Draw people and clusters, then who is exposed, then what they do.

    Example:
        >>> experiment = simulate_experiment(ExperimentConfig(n_users=4, n_clusters=2, n_waves=1))
        >>> experiment.units.num_rows, int(experiment.exposed.sum())
        (4, 2)
    """
    for_people, for_draws, for_counts = np.random.default_rng(config.seed).spawn(3)
    everyone = np.arange(config.n_clusters)
    # Nobody's cluster is empty.
    cluster = np.concatenate([everyone, for_people.integers(0, config.n_clusters, config.n_users - len(everyone))])
    of_cluster = _gamma(for_people, config.cluster_spread, config.n_clusters)
    level = config.level * of_cluster[cluster] * _gamma(for_people, config.user_spread, config.n_users)
    effect = config.effect * _gamma(for_people, config.effect_spread, config.n_users)
    is_by_user = config.drawn == "user"
    owner, owners_level = (np.arange(config.n_users), level) if is_by_user else (cluster, of_cluster)
    drawn, chance = _draw(config, owners_level, for_draws)
    exposed = np.broadcast_to(drawn[owner], (config.n_users, config.n_waves))
    growth = 1 + config.trend * np.arange(config.n_waves + 1)
    mean = level[:, None] * growth
    mean[:, 1:] += effect[:, None] * exposed
    users = {
        schema.USER_ID: [f"u{place:05}" for place in range(config.n_users)],
        CLUSTER: [f"c{place:04}" for place in cluster],
        "level": level,
        "effect": effect,
    }
    return Experiment(
        config=config,
        users=pa.table(users),
        exposed=exposed,
        probability=np.broadcast_to(chance[owner][:, None], exposed.shape),
        counts=for_counts.poisson(mean),
    )


def _draw(config: ExperimentConfig, level: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return who is exposed, (owners, T) or (owners, 1), and with what chance, (owners,)."""
    n, n_times = len(level), config.n_waves if config.each_wave else 1
    if len(config.probabilities) == 1:
        is_exposed = np.arange(n) < round(config.probabilities[0] * n)
        return rng.permuted(np.tile(is_exposed[:, None], (1, n_times)), axis=0), np.full(n, config.probabilities[0])
    place = np.argsort(np.argsort(level)) * len(config.probabilities) // n
    chance = np.array(config.probabilities)[place]
    return rng.random((n, n_times)) < chance[:, None], chance


def _gamma(rng: np.random.Generator, spread: float, n: int) -> np.ndarray:
    """Draw numbers above 0 with mean 1 and this standard deviation."""
    return rng.gamma(1 / spread**2, spread**2, n) if spread > 0 else np.ones(n)
