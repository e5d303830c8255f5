"""What others did to whose event each was an answer: a Hawkes process along ties, with strengths that are shrunk.

User u acts on item i at time t at the rate

    λ(u, t, i) = ρ_u Σ_k π_k f_k(i, u, t) + Σ_v Σ_j A(v → u, scene_j) · κ(t − t_j) · 1[item_j = i]

v: users that u is tied to, j: their events before t. The lines k that no event of others owns are the item's
popularity, its burst (what everybody else just did to it, through the same kernel as a tie: a front page moves all at
once, and moves nobody through anybody; what others are credited with is beyond that) and what a model of u's own past
expects. A(v → u, s) is drawn towards a(u) · b(v, s), how open u and how strong v is in that scene, as if the pair had
been seen for `prior_events` events more: a pair that was seen once says little. Where ties are read off the log and
most of them mean nothing, a part of an answer, `chance`, is first taken from what each pair has to show. κ is a density
over the gap, constant within bins.

A rate is a sum, so each event has a share of it and shares add up. A share is not all that leaving the event out takes
away, since the event is also a part of the item's burst. Fitted by expectation maximisation over the causes of events:
Veen and Schoenberg, Estimation of space-time branching process models in seismology using an EM-type algorithm, 2008.

Shapes: E events, U users, L ties, S scenes, P co-actions, K lines, G bins of the gap, N moments, C candidates, I items.
"""

from __future__ import annotations

import json
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file
from scipy import special

from influent import schema
from influent.data.clock import span_us
from influent.data.moments import Moments, first_not_before, ranges
from influent.data.sequences import Sequences
from influent.data.ties import CoActions, Ties, find_co_actions
from influent.data.vocab import Vocab
from influent.errors import ConfigError, SchemaError
from influent.models.bursts import Bursts, bin_of
from influent.models.credits import Credits, Exactness
from influent.models.hawkes import Observed, Parameters, SocialConfig
from influent.models.model import Model, check_fitted, check_same_category, check_same_ids
from influent.models.ranks import BATCH
from influent.progress import Progress
from influent.run import made

_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Causes:
    """What each event of a log was an answer to, as shares of its rate; they add up to 1.

    Events on items that came after the fit are left out: nothing is known of them.
    """

    moments: Moments
    """The moment of each event whose item is known, N of them"""
    of_lines: dict[str, np.ndarray]
    """float64 (N,) for each line that no event of others owns"""
    co_actions: CoActions
    owner: np.ndarray
    """int64 (P,): the moment of the later event of each co-action"""
    of_events: np.ndarray
    """float64 (P,): of the earlier event of each co-action, in the rate of the later one"""


class Social:
    """A Hawkes process along ties, over a model of each user's own past where one is given.

    Args:
        ties: who may be moved by whom: `build_ties` of known edges, or `co_acting` where none are known.
        own: a fitted model of what comes next by a user's own past. What others are credited with is then beyond what
            that expects. Its scores are taken as logits.
        config: windows and priors.

    Raises:
        NotFittedError: `own` is not fitted.
        ConfigError: the ties are no `Ties`.
    """

    vocab: Vocab
    popularity: np.ndarray
    parameters: Parameters
    fitted_on: str = ""
    max_len: int | None = None
    exactness: ClassVar[Exactness] = "closes"

    def __init__(self, ties: Ties, *, own: Model | None = None, config: SocialConfig | None = None) -> None:
        if not isinstance(ties, Ties):
            raise ConfigError(
                f"ties are made by build_ties(read_edges(...), sequences) or co_acting(sequences). Got a "
                f"{type(ties).__name__} instead."
            )
        if own is not None:
            check_fitted(own)
        self.ties, self.own, self.config = ties, own, config or SocialConfig()
        self._window_us = span_us(self.config.window)
        # The first bin ends after a second, or a sixtieth of the window where that is less than a minute.
        shortest = min(1e6, self._window_us / 60)
        edges = np.geomspace(shortest, self._window_us, self.config.n_bins)
        self.edges_us = np.concatenate([[0], np.round(edges)]).astype(np.int64)

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return "social" if self.own is None else f"social over {self.own.name}"

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the names of what no event of others owns."""
        return ("popularity", "burst") if self.own is None else ("popularity", "burst", "own past")

    @property
    def n_scenes(self) -> int:
        """Return how many scenes strengths differ by, the last for events without one; 1 where the log names none."""
        return len(self.vocab.categories.get(schema.SCENE, ())) + 1

    def fit(self, train: Sequences, validation: Moments | None = None, *, progress: Progress | None = None) -> Self:
        """Learn rates, lines, the kernel and strengths from the training events; validation moments are not needed.

        Raises:
            ConfigError: the log is order-only, so that nobody can be said to have come first.
            SchemaError: the ties count users by another vocabulary than the log.
        """
        self.check_log(train)
        self.vocab, self.popularity = train.vocab, train.popularity()
        return self._learn(train, self._of_lines(train), progress)

    def halfway(self, train: Sequences, *, progress: Progress | None = None) -> tuple[Social, np.ndarray]:
        """Return a model with parameters halfway between those of a fit forwards and one backwards in time.

        Nobody is moved by what has not happened yet, so what is found backwards is what likeness looks like. What is
        counted in both directions by such a model is counted fairly: what a fit finds too much of by chance, it then
        finds in both. What own pasts expect of each event stays as it is, and ties that began at a time are taken to
        have always been.

        Returns:
            The model, and what each line expects of the item of each event, float64 (E, K), which `line_terms` takes;
            of events in another order, its rows in that order.

        Raises:
            NotFittedError: this model is not.
            SchemaError: the sequences count users, items or actions by another vocabulary.
            ConfigError: the log is order-only.
        """
        self.check_moments(_moments_of_all(train))
        f_EK = self._of_lines(train)
        reversed_log, place = train.backwards()
        directions = ((train, f_EK), (reversed_log, f_EK[place]))
        halfway, back = (self._without_beginnings()._learn(log, f, progress) for log, f in directions)
        halfway.parameters = halfway.parameters.halfway_to(back.parameters)
        return halfway, f_EK

    def along(self, ties: Ties) -> Social:
        """Return the same model along other ties, each of the mean strength that those have which it was fitted to.

        The mean is over what each tie felt, in each scene. What single pairs were found to have is left behind, so
        that no ties are favoured for being those that were fitted.
        """
        other = copy(self)
        other.ties = ties
        strength_LS, exposure_LS = self.parameters.strength_LS, self.parameters.exposure_LS
        mean_S = (strength_LS * exposure_LS).sum(axis=0) / np.maximum(exposure_LS.sum(axis=0), 1e-12)
        other.parameters = replace(self.parameters, strength_LS=np.tile(mean_S, (len(ties), 1)))
        return other

    def received(self, sequences: Sequences, line_EK: np.ndarray) -> np.ndarray:
        """Return how many of each user's events are put down to others, float64 (U,).

        Args:
            line_EK: `line_terms` of these sequences.
        """
        pairs, term_P = self.social_terms(sequences)
        total_E = line_EK.sum(axis=1) + np.bincount(pairs.event, term_P, len(sequences))
        return np.bincount(sequences.user_idx[pairs.event], term_P / total_E[pairs.event], sequences.n_users)

    def _without_beginnings(self) -> Social:
        """Return a model of the same settings, not fitted, whose ties have always been."""
        other = Social(replace(self.ties, since_us=None), own=self.own, config=self.config)
        other.vocab, other.popularity = self.vocab, self.popularity
        return other

    def check_moments(self, moments: Moments) -> None:
        """Refuse moments of a log that this model cannot be asked of.

        Raises:
            NotFittedError: the model is not fitted.
            SchemaError: they count users, items, actions or scenes by another vocabulary.
            ConfigError: the log is order-only.
        """
        check_same_ids(self, moments)
        check_same_category(self, moments, schema.SCENE)
        self.check_log(moments.sequences)

    def check_log(self, sequences: Sequences) -> None:
        """Refuse a log that has no times, or whose users are not those of the ties, with others behind them.

        Raises:
            ConfigError: it is order-only.
            SchemaError: its users are counted by another vocabulary.
        """
        check_times(sequences)
        known, users = self.ties.users.ids, sequences.vocab.users.ids
        if users.type != known.type:
            # Somebody new whose id is a text has made texts of all.
            known, users = known.cast(pa.string()), users.cast(pa.string())
        if users is not known and not users[: len(known)].equals(known):
            raise SchemaError(
                "the ties count users by another vocabulary than this log. Make them from the same sequences: "
                "build_ties(edges, sequences) or co_acting(sequences)."
            )

    def _learn(self, train: Sequences, f_EK: np.ndarray, progress: Progress | None) -> Self:
        config = self.config
        observed = Observed(
            train=train,
            ties=self.ties,
            pairs=find_co_actions(train, self.ties, window=config.window, reach=config.reach),
            f_EK=f_EK,
            burst_EG=self._bursts_of_each(train),
            scene_E=self._scene_of(train),
            n_scenes=self.n_scenes,
            edges_us=self.edges_us,
        )
        with (progress or Progress()).track("fit social", config.iterations) as advance:
            self.parameters = observed.fit(config, advance)
        self.fitted_on = train.fingerprint
        return self

    def _scene_of(self, sequences: Sequences) -> np.ndarray:
        """Return the scene of each event, int64 (E,)."""
        if schema.SCENE not in sequences.category_names:
            return np.zeros(len(sequences), np.int64)
        column = sequences.categories[:, sequences.category_names.index(schema.SCENE)]
        return np.where(column < 0, self.n_scenes - 1, column).astype(np.int64)

    def predict(self, moments: Moments) -> np.ndarray:
        """Return the rate of every item at each moment, per day, float32 (N, n_items).

        A moment whose time is not given is right after the log's last event.
        """
        self.check_moments(moments)
        bursts = Bursts(moments.sequences, self.edges_us)
        found = [
            self._rates(moments.take(slice(first, first + BATCH)), bursts) for first in range(0, len(moments), BATCH)
        ]
        return np.concatenate([np.zeros((0, self.vocab.n_items), np.float32), *found])

    def _rates(self, moments: Moments, bursts: Bursts) -> np.ndarray:
        n_items = self.vocab.n_items
        rates = sum(self._lines_of_all(moments, bursts).values(), np.zeros((len(moments), n_items)))
        owner, place, term = self._terms(moments)
        item = moments.sequences.item_idx[place]
        rates += np.bincount(owner * n_items + item, term, rates.size).reshape(rates.shape)
        return np.asarray(rates, np.float32)

    def credits(self, moments: Moments, candidates: np.ndarray) -> Credits:
        """Return the terms of the rates of these items, int (N, C), at each moment, per day.

        The events are those of others; `place` says whose. What a user's own past expects is a line of its own.
        """
        self.check_moments(moments)
        lines = self._lines_of_all(moments, Bursts(moments.sequences, self.edges_us))
        picked = {name: np.take_along_axis(rate, candidates, axis=1) for name, rate in lines.items()}
        owner, place, term = self._terms(moments)
        is_asked = (moments.sequences.item_idx[place][:, None] == candidates[owner]).any(axis=1)
        owner, place, term = owner[is_asked], place[is_asked], term[is_asked]
        credit = term[:, None] * (moments.sequences.item_idx[place][:, None] == candidates[owner])
        return Credits(
            offsets=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(moments)))]),
            place=place,
            credit=credit,
            bias=picked.pop("popularity"),
            context=picked,
        )

    def _lines_of_all(self, moments: Moments, bursts: Bursts) -> dict[str, np.ndarray]:
        """Return the rate of every item by each line, per day, float64 (N, I)."""
        shape = (len(moments), self.vocab.n_items)
        shares = [
            np.broadcast_to(self.popularity, shape),
            bursts.of_all(moments.user_idx, times_of(moments), self.parameters.burst_G),
        ]
        if self.own is not None:
            shares.append(special.softmax(self.own.predict(moments).astype(np.float64), axis=1))
        weights = _DAY_S * self._rate_of(moments.user_idx)[:, None] * self.parameters.line_K
        return {
            name: weights[:, place, None] * share
            for place, (name, share) in enumerate(zip(self.lines, shares, strict=True))
        }

    def _rate_of(self, user_idx: np.ndarray) -> np.ndarray:
        """Return the rate of each user; who came after the fit, or did nothing before, acts as often as others do."""
        rate_U = np.append(self.parameters.rate_U, 0.0)
        rate = rate_U[np.minimum(user_idx, len(rate_U) - 1)]
        return np.asarray(np.where(rate > 0, rate, rate_U[rate_U > 0].mean()))

    def _terms(self, moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return moment, place and rate per day of each event of others that a moment's user may be answering."""
        owner, place, strength, gap_us = self.may_answer(moments)
        return owner, place, _DAY_S * strength * self.parameters.density_G[bin_of(gap_us, self.edges_us)]

    def may_answer(self, moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the events of others that a moment's user may be answering: those of whom they are tied to.

        They are given as moment, place in the sequences, strength of the tie in the event's scene, and gap in µs.
        """
        sequences, times = moments.sequences, times_of(moments)
        assert sequences.time_us is not None
        first_tie = self.ties.of_targets()
        # Who came after the fit has no ties.
        user = np.minimum(moments.user_idx, len(first_tie) - 2)
        n_ties = np.where(moments.user_idx == user, first_tie[user + 1] - first_tie[user], 0)
        tie = ranges(first_tie[user], n_ties)
        owner = np.repeat(np.arange(len(moments)), n_ties)
        start, end = (sequences.offsets[self.ties.source[tie] + one] for one in (0, 1))
        since = times[owner] - self._window_us
        if self.ties.since_us is not None:
            since = np.maximum(since, self.ties.since_us[tie])
        first = first_not_before(sequences.time_us, start, end, since)
        # A tie that begins after the moment has nothing to pass on yet.
        stop = np.maximum(first_not_before(sequences.time_us, start, end, times[owner]), first)
        place = ranges(first, stop - first)
        owner, tie = np.repeat(owner, stop - first), np.repeat(tie, stop - first)
        known = sequences.item_idx[place] >= 0
        owner, tie, place = owner[known], tie[known], place[known]
        strength = self.parameters.strength_LS[tie, self._scene_of(sequences)[place]]
        return owner, place, strength, times[owner] - sequences.time_us[place]

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`, `config.json`, the vocabulary, and below `own` the model of users' own pasts."""
        check_fitted(self)
        folder = made(folder)
        arrays = {name: getattr(self.parameters, name) for name in _LEARNED} | {"popularity": self.popularity}
        ties = {"source": self.ties.source, "target": self.ties.target}
        if self.ties.since_us is not None:
            ties["since_us"] = self.ties.since_us
        arrays |= {f"ties.{name}": column for name, column in ties.items()}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "model.safetensors")
        config = {
            "model": "social",
            "settings": asdict(self.config),
            "fitted_on": self.fitted_on,
            "ties_are_given": self.ties.are_given,
            "log_rate": self.parameters.log_rate,
            "has_own": self.own is not None,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self.vocab.save(folder)
        if self.own is not None:
            self.own.save(folder / "own")

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], vocab: Vocab, config: dict[str, Any], own: Model | None) -> Self:
        """Return what `save` wrote; use `load_model`, which checks the folder first."""
        ties = Ties(
            users=vocab.users,
            source=arrays["ties.source"],
            target=arrays["ties.target"],
            since_us=arrays.get("ties.since_us"),
            are_given=config["ties_are_given"],
        )
        model = cls(ties, own=own, config=SocialConfig.from_dict(config["settings"]))
        learned = {name: arrays[name] for name in _LEARNED}
        model.parameters = Parameters(log_rate=config["log_rate"], **learned)
        model.popularity, model.vocab, model.fitted_on = arrays["popularity"], vocab, config["fitted_on"]
        return model

    def _of_lines(self, sequences: Sequences) -> np.ndarray:
        """Return f of the item of each event by each line, float64 (E, K), the burst's left at zero."""
        item = np.maximum(sequences.item_idx, 0).astype(np.int64)
        found = np.zeros((len(sequences), len(self.lines)))
        found[:, 0] = np.maximum(self.popularity[item], 1e-12)
        if self.own is not None:
            moments = _moments_of_all(sequences)
            for first in range(0, len(moments), BATCH):
                some = slice(first, min(first + BATCH, len(moments)))
                chance_NI = special.softmax(self.own.predict(moments.take(some)).astype(np.float64), axis=1)
                found[some, 2] = np.take_along_axis(chance_NI, item[some, None], axis=1)[:, 0]
        return found

    def _bursts_of_each(self, sequences: Sequences) -> np.ndarray:
        """Return what others did to the item of each event before it, by bins of the gap, float32 (E, G)."""
        assert sequences.time_us is not None
        item = np.maximum(sequences.item_idx, 0)
        return Bursts(sequences, self.edges_us).of_items(sequences.user_idx, sequences.time_us, item)

    def causes(self, sequences: Sequences) -> Causes:
        """Return what each event was an answer to, as shares of its rate.

        Raises:
            SchemaError: the sequences count users, items or actions by another vocabulary.
            ConfigError: the log is order-only.
        """
        moments = _moments_of_all(sequences)
        self.check_moments(moments)
        line_EK = self.line_terms(sequences, self._of_lines(sequences))
        pairs, term_P = self.social_terms(sequences)
        total_E = line_EK.sum(axis=1) + np.bincount(pairs.event, term_P, len(sequences))
        is_known = sequences.item_idx >= 0
        return Causes(
            moments=moments.take(np.flatnonzero(is_known)),
            of_lines=dict(zip(self.lines, (line_EK / total_E[:, None])[is_known].T, strict=True)),
            co_actions=pairs,
            owner=(np.cumsum(is_known) - 1)[pairs.event],
            of_events=term_P / total_E[pairs.event],
        )

    def line_terms(self, sequences: Sequences, f_EK: np.ndarray) -> np.ndarray:
        """Return the terms of the lines in the rate of each event, of its own item, per second, float64 (E, K).

        Args:
            f_EK: what each line expects of the item of each event, from `halfway`.
        """
        rate_E = self._rate_of(sequences.user_idx)
        line_EK = np.asarray(rate_E[:, None] * self.parameters.line_K * f_EK)
        line_EK[:, 1] = rate_E * self.parameters.line_K[1] * (self._bursts_of_each(sequences) @ self.parameters.burst_G)
        return line_EK

    def social_terms(self, sequences: Sequences) -> tuple[CoActions, np.ndarray]:
        """Return the co-actions, and the term of each in the rate of its later event, per second, float64 (P,)."""
        pairs = find_co_actions(sequences, self.ties, window=self.config.window, reach=self.config.reach)
        cell = self.parameters.strength_LS[pairs.tie, self._scene_of(sequences)[pairs.source]]
        return pairs, cell * self.parameters.density_G[bin_of(pairs.gap_us, self.edges_us)]


_LEARNED = ("rate_U", "line_K", "density_G", "strength_LS", "evidence_LS", "exposure_LS")
"""The parameters that are arrays"""


def _moments_of_all(sequences: Sequences) -> Moments:
    """Return the moment of each event, the first of a user included, whose history is empty."""
    user, place = sequences.user_idx, np.arange(len(sequences))
    return Moments(
        sequences=sequences,
        user_idx=user,
        start=sequences.offsets[user],
        stop=place,
        target_stop=place + 1,
        time_us=sequences.time_us,
    )


def check_times(sequences: Sequences) -> None:
    """Refuse a log that does not say who acted first.

    Raises:
        ConfigError: it is order-only.
    """
    if sequences.time_us is None:
        raise ConfigError(
            "this log is order-only: it does not say who acted first, so nobody can have led. Read one with times."
        )


def times_of(moments: Moments) -> np.ndarray:
    """Return each moment's time, or the one right after the log's last event."""
    if moments.time_us is not None:
        return np.asarray(moments.time_us)
    assert moments.sequences.time_us is not None
    now = int(moments.sequences.time_us.max(initial=0)) + 1
    return np.full(len(moments), now, np.int64)
