"""A log and its co-actions to the parameters of a Hawkes process along ties: expectation maximisation over causes.

Veen and Schoenberg, Estimation of space-time branching process models in seismology using an EM-type algorithm, 2008.
`Social` says what the process is.

Shapes: E events, U users, L ties, S scenes, P co-actions, K lines, G bins of the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from influent.data.clock import span_us
from influent.data.moments import first_not_before
from influent.data.sequences import Sequences
from influent.data.ties import CoActions, Ties
from influent.models.bursts import bin_of
from influent.settings import Checked


@dataclass(frozen=True, kw_only=True)
class SocialConfig(Checked):
    """How far others' events reach, and how much has to be seen of a pair."""

    window: str = "7d"
    """An event can be an answer to one that is no longer ago."""
    reach: int = 50
    """How many earlier events on an item are looked at while fitting, the latest ones."""
    n_bins: int = 12
    """Bins of the gap, evenly spaced in its logarithm."""
    prior_events: float = 20.0
    """How many events of the source the prior of a pair's strength counts for."""
    chance: float = -1.0
    """How much of an answer each pair has by chance; −1 means 0.7 where ties were read off the log, and 0 where they
    were given."""
    iterations: int = 100
    """Most rounds of expectation maximisation."""

    def __post_init__(self) -> None:
        span_us(self.window)
        for name in ("reach", "iterations"):
            self._check_int(name, 1)
        self._check_int("n_bins", 2)
        self._check_real("prior_events", 1e-6)
        if self.chance != -1:
            self._check_real("chance", 0.0)


_CHANCE = 0.7
"""Chosen in planted worlds, where with it the share of events that others caused comes out as it is."""
_STEPS_OF_CHANCE = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameters:
    """What is learned of a log: how often users act, what for, and how strongly and how fast ties move."""

    log_rate: float
    """Events of the whole log per second"""
    rate_U: np.ndarray
    """Events of each user per second that are put down to the lines; 0 for users without events"""
    line_K: np.ndarray
    """The share of these that each line has"""
    density_G: np.ndarray
    """The kernel: how likely an answer is at each gap, per second"""
    strength_LS: np.ndarray
    """Answers that an event of the source has, by tie and scene"""
    evidence_LS: np.ndarray
    """Answers that were found"""
    exposure_LS: np.ndarray
    """Events of the source that were felt"""

    @property
    def burst_G(self) -> np.ndarray:
        """Return what one event on an item adds to what its burst expects, by bins of the gap: (G,), no unit."""
        return np.asarray(self.density_G / self.log_rate)

    def halfway_to(self, other: Parameters) -> Parameters:
        """Return the means of both."""
        return Parameters(
            **{one.name: (getattr(self, one.name) + getattr(other, one.name)) / 2 for one in fields(self)}
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What a log shows of its ties, from which parameters are found."""

    train: Sequences
    ties: Ties
    pairs: CoActions
    f_EK: np.ndarray
    """What each line expects of the item of each event; the burst's, the second, is found with the kernel"""
    burst_EG: np.ndarray
    """What others did to the item of each event before it, by bins of the gap"""
    scene_E: np.ndarray
    """The scene of each event, int64"""
    n_scenes: int
    edges_us: np.ndarray
    """int64 (G + 1,): where the bins of the gap begin and end"""

    def fit(self, config: SocialConfig, advance: Any) -> Parameters:
        """Find the parameters by turns: what caused each event, and how strong causes must be for that."""
        train, pairs = self.train, self.pairs
        user = train.user_idx.astype(np.int64)
        counts = np.diff(train.offsets)
        assert train.time_us is not None
        span_s = max(float(np.ptp(train.time_us)) / 1e6, 1.0)
        cell = pairs.tie * self.n_scenes + self.scene_E[pairs.source]
        of_bin = bin_of(pairs.gap_us, self.edges_us)
        n_cells = len(self.ties) * self.n_scenes
        width_s = np.diff(self.edges_us) / 1e6
        log_rate, f_EK = len(train) / span_s, self.f_EK.copy()
        rate_U = counts / span_s
        line_K = np.full(f_EK.shape[1], 1 / f_EK.shape[1])
        mass = np.full(len(width_s), 1 / len(width_s))
        exposure = self._exposure(mass)
        strength = np.full(n_cells, 0.1 * len(train) / max(exposure.sum(), 1.0))
        chance = config.chance if config.chance != -1 else _CHANCE * (not self.ties.are_given)
        before = -np.inf
        for step in range(config.iterations):
            density_G = mass / width_s
            f_EK[:, 1] = self.burst_EG @ density_G / log_rate
            term_P = strength[cell] * density_G[of_bin]
            line_EK = rate_U[user, None] * line_K * f_EK
            total_E = line_EK.sum(axis=1) + np.bincount(pairs.event, term_P, len(train))
            share_P, share_EK = term_P / total_E[pairs.event], line_EK / total_E[:, None]
            of_cell = np.bincount(cell, share_P, n_cells)
            n_social = of_cell.sum()
            by_line = share_EK.sum(axis=0)
            line_K = by_line / max(by_line.sum(), 1e-12)
            # One event is added to everybody's, with the log's mean rate, so that no rate is zero.
            mean = by_line.sum() / max((counts > 0).sum(), 1)
            own_U = np.bincount(user, share_EK.sum(axis=1), len(counts))
            rate_U = np.where(counts > 0, (own_U + 1) / (1 + 1 / max(mean, 1e-12)) / span_s, 0.0)
            # A burst says how long answers take too.
            of_burst = share_EK[:, 1] / np.maximum(f_EK[:, 1] * log_rate, 1e-300)
            in_bin = np.bincount(of_bin, share_P, len(mass)) + density_G * (of_burst @ self.burst_EG)
            mass = (in_bin + 1e-3) / (in_bin + 1e-3).sum()
            exposure = self._exposure(mass)
            # At first an event has many possible causes and none has much to show, so chance is taken off by and by.
            by_chance = chance * min((step + 1) / _STEPS_OF_CHANCE, 1.0)
            strength = self._shrunk(np.maximum(of_cell - by_chance, 0.0), exposure, config.prior_events)
            likelihood = float(np.log(total_E).sum() - own_U.sum() - n_social)
            advance()
            if step >= _STEPS_OF_CHANCE and abs(likelihood - before) < 1e-6 * abs(likelihood):
                break
            before = likelihood
        return Parameters(
            log_rate=log_rate,
            rate_U=rate_U,
            line_K=line_K,
            density_G=mass / width_s,
            strength_LS=strength.reshape(-1, self.n_scenes),
            evidence_LS=of_cell.reshape(-1, self.n_scenes),
            exposure_LS=exposure.reshape(-1, self.n_scenes),
        )

    def _shrunk(self, of_cell: np.ndarray, exposure: np.ndarray, prior_events: float) -> np.ndarray:
        """Return the strength of each tie and scene, (L · S,), drawn towards m · a(u) · b(v, s).

        The prior of a strength is a gamma distribution with this mean, worth `prior_events` events of the source;
        that of each factor has the mean 1 and is worth one answer.
        """
        n = len(self.ties.users)
        target = np.repeat(self.ties.target, self.n_scenes)
        scene = np.tile(np.arange(self.n_scenes), len(self.ties))
        source = np.repeat(self.ties.source, self.n_scenes) * self.n_scenes + scene
        mean = of_cell.sum() / max(exposure.sum(), 1e-12)
        open_U, strong_V = np.ones(n), np.ones(n * self.n_scenes)
        by_target = np.bincount(target, of_cell, n)
        by_source = np.bincount(source, of_cell, len(strong_V))
        for _ in range(3):
            open_U = (by_target + 1) / (np.bincount(target, mean * exposure * strong_V[source], n) + 1)
            strong_V = (by_source + 1) / (np.bincount(source, mean * exposure * open_U[target], len(strong_V)) + 1)
        expected = mean * open_U[target] * strong_V[source]
        return np.asarray((prior_events * expected + of_cell) / (prior_events + exposure))

    def _exposure(self, mass: np.ndarray) -> np.ndarray:
        """Return how many events of its source each tie has felt in each scene, (L · S,).

        An event near the end of the log counts for the part of the kernel that lies within it.
        """
        train, ties = self.train, self.ties
        assert train.time_us is not None
        left_us = train.time_us.max(initial=0) - train.time_us
        felt = np.interp(left_us, self.edges_us, np.concatenate([[0.0], np.cumsum(mass)]))
        stop = train.offsets[ties.source + 1]
        start = train.offsets[ties.source]
        if ties.since_us is not None:
            start = first_not_before(train.time_us, start, stop, ties.since_us)
        columns = []
        for one in range(self.n_scenes):
            so_far = np.concatenate([[0.0], np.cumsum(np.where(self.scene_E == one, felt, 0.0))])
            columns.append(so_far[stop] - so_far[start])
        return np.stack(columns, axis=1).reshape(-1)
