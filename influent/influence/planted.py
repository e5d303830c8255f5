"""From settings of known credits, to a log and a ledger that has just these: a planted ledger, with no model behind it.

credit(j) = ± strength_a · 2^(−gap_j / half_life_a) · spread_u · noise_j · (factor, from the change on)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from influent.data.clock import DAY_US
from influent.data.events import read_events
from influent.data.moments import each_moment
from influent.data.sequences import Sequences, build_sequences
from influent.errors import ConfigError, nearest
from influent.influence.ledger import Ledger, LedgerNote, ledger_of
from influent.models.credits import Credits, sources_of
from influent.settings import check_int, check_real

_START_S = 1_704_067_200  # Monday, 2024-01-01 UTC
_N_ITEMS = 20


@dataclass(frozen=True, kw_only=True)
class PlantedCredits:
    """Settings of a planted ledger; the defaults change nothing over twelve weeks."""

    n_users: int = 200
    """Users; each comes at a random time of the first half and acts from then on."""
    n_days: int = 84
    """Length of the log."""
    events_per_day: float = 0.4
    """Mean rate of a user's events."""
    shares: Mapping[str, float] = field(default_factory=lambda: {"view": 0.7, "cart": 0.2, "purchase": 0.1})
    """How frequent each action is; the shares add up to 1."""
    strengths: Mapping[str, float] = field(default_factory=lambda: {"view": 0.2, "cart": 0.4, "purchase": 0.8})
    """|credit| of an event of each action right after it, but for noise."""
    half_life_days: Mapping[str, float] = field(default_factory=lambda: {"view": 2.0, "cart": 5.0, "purchase": 14.0})
    """Time in which it halves."""
    negative: float = 0.1
    """Part of the credits that are below zero."""
    noise: float = 0.5
    """Standard deviation of the logarithm of what no setting explains."""
    user_spread: float = 0.5
    """Standard deviation, over users, of the logarithm of how large all their credits are."""
    change_day: float | None = None
    """The day from which credits are `change_factor` times as large; None for never."""
    change_factor: float = 1.0
    changed_actions: tuple[str, ...] = ()
    """Whose credits change; by default all."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("strengths", "half_life_days"):
            if set(getattr(self, name)) != set(self.shares):
                raise ConfigError(f"PlantedCredits.{name} must be of the actions {', '.join(self.shares)}.")
        for name in ("n_users", "n_days"):
            check_int(name, getattr(self, name), 1)
        check_int("seed", self.seed, 0)
        for action, half_life in self.half_life_days.items():
            check_real(f"half_life_days of {action}", half_life, 0.0, is_above=True)
        for name in ("noise", "user_spread", "change_factor"):
            check_real(name, getattr(self, name), 0.0)
        check_real("events_per_day", self.events_per_day, 0.0, is_above=True)
        check_real("negative", self.negative, 0.0, 1.0)
        if min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ConfigError(f"PlantedCredits.shares must be 0 or more and add up to 1. Got {dict(self.shares)!r}.")
        for name in self.changed_actions:
            if name not in self.shares:
                raise ConfigError(
                    f"PlantedCredits.changed_actions has {name!r}, which is no action.{nearest(name, self.shares)} "
                    f"There are: {', '.join(self.shares)}."
                )


def simulate_ledger(config: PlantedCredits = PlantedCredits()) -> tuple[Ledger, Sequences]:
    """Draw a log, and the ledger of every event but the first of each user; a credit for each of the latest 30 events.

    Raises:
        ConfigError: settings of other actions than there are.

    Example:
        >>> ledger, sequences = simulate_ledger(PlantedCredits(n_users=5, n_days=20))
        >>> ledger.largest_gap() < 1e-9
        True
    """
    rng = np.random.default_rng(config.seed)
    begins = rng.uniform(0, config.n_days / 2, config.n_users)
    counts = 2 + rng.poisson((config.n_days - begins) * config.events_per_day)
    user = np.repeat(np.arange(config.n_users), counts)
    day = begins[user] + rng.random(len(user)) * (config.n_days - begins[user])
    log = {
        "user_id": user,
        "item_id": rng.integers(0, _N_ITEMS, len(user)),
        "action": rng.choice(list(config.shares), len(user), p=list(config.shares.values())),
        "timestamp": _START_S + np.round(day * 86_400).astype(np.int64),
    }
    sequences = build_sequences(read_events(pa.table(log)))
    assert sequences.time_us is not None
    moments = each_moment(sequences)
    assert moments.time_us is not None
    offsets, place, _ = sources_of(moments, 30)
    owner = np.repeat(np.arange(len(moments)), np.diff(offsets))
    names = sequences.vocab.actions.ids.to_pylist()
    of_action = sequences.action_idx[place]
    gap_days = (moments.time_us[owner] - sequences.time_us[place]) / DAY_US
    strength, half_life = (np.array([of[name] for name in names]) for of in (config.strengths, config.half_life_days))
    credit = strength[of_action] * 2.0 ** (-gap_days / half_life[of_action])
    credit *= rng.lognormal(sigma=config.noise, size=len(place))
    credit *= rng.lognormal(sigma=config.user_spread, size=config.n_users)[moments.user_idx[owner]]
    credit *= np.where(rng.random(len(place)) < config.negative, -1, 1)
    if config.change_day is not None:
        is_changed = moments.time_us[owner] >= _START_S * 1_000_000 + config.change_day * DAY_US
        changed = [not config.changed_actions or name in config.changed_actions for name in names]
        credit *= np.where(is_changed & np.array(changed)[of_action], config.change_factor, 1.0)
    terms = Credits(offsets=offsets, place=place, credit=credit[:, None], bias=np.zeros((len(moments), 1)))
    note = LedgerNote(model="planted", fitted_on="nothing", head="ranking", contrast=None, top=None)
    return ledger_of(moments, sequences.item_idx[moments.stop][:, None], terms, terms.total(), note), sequences
