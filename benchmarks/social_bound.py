"""How well anybody could tell the true ties of a planted world from its log: the ranking of who knows all but the ties.

Where a tie is weak it may cause nothing at all, and what it causes may look like chance. The best order of pairs is by
how much likelier the log is with the tie than without (Neyman and Pearson, 1933), its strength drawn as the world draws
it. All else is taken from the world: rates, tastes, what follows what, kernels, and every other tie.

Shapes: E events, L pairs, P co-actions, I items.
"""

from __future__ import annotations

import numpy as np

import influent
from influent.data.clock import span_us
from influent.data.ties import Ties, find_co_actions
from influent.data.worlds import Kernel, index_in

WINDOW = "14d"
"""The slower half of answers has a mean of two days, so one in a thousand comes later."""
N_STRENGTHS = 60
_DAY_US = float(span_us("1d"))


def best_ranking(world: influent.World, log: influent.Sequences, ties: Ties) -> np.ndarray:
    """Return the logarithm of how much likelier the log is with each tie than without, float64 (L,)."""
    config = world.config
    pairs = find_co_actions(log, ties, window=WINDOW, reach=len(log))
    density_P = _density(config.social_kernel, pairs.gap_us)
    strength_L = true_strengths(world, log, ties)
    term_P = strength_L[pairs.tie] * density_P
    rate_E = rates_without_others(world, log) + np.bincount(pairs.event, term_P, len(log))
    # Of several events of a source that one event may answer, what they add to its rate is added up first.
    of_both, place = np.unique(pairs.tie.astype(np.int64) * len(log) + pairs.event, return_inverse=True)
    tie, event = np.divmod(of_both, len(log))
    ratio = np.bincount(place, density_P) / (rate_E[event] - np.bincount(place, term_P))
    n_events = np.diff(log.offsets)[ties.source]
    # A user's strengths are exponential and divided by their sum: each part alone is a beta variable.
    part = (np.arange(N_STRENGTHS) + 0.5) / N_STRENGTHS
    log_prior = (config.n_ties - 2) * np.log1p(-part)
    log_prior -= np.logaddexp.reduce(log_prior)
    found = np.full(len(ties), -np.inf)
    strengths = config.strength_scale * config.social_strength * part
    for strength, weight in zip(strengths, log_prior, strict=True):
        of_tie = np.bincount(tie, np.log1p(strength * ratio), len(ties)) - strength * n_events
        found = np.logaddexp(found, weight + of_tie)
    return found


def true_strengths(world: influent.World, log: influent.Sequences, ties: Ties) -> np.ndarray:
    """Return how many events each event of a pair's source causes in its target, float64 (L,)."""
    source, target = (log.vocab.users.to_idx(world.edges.column(f"{end}_user_id")) for end in ("source", "target"))
    place = ties.find(source, target)
    found = np.zeros(len(ties))
    found[place[place >= 0]] = world.edges.column("strength").to_numpy()[place >= 0]
    return found


def rates_without_others(world: influent.World, log: influent.Sequences) -> np.ndarray:
    """Return the rate of each event's user at its item and time by base and own past, per day, float64 (E,)."""
    assert log.time_us is not None
    config, users, items = world.config, world.users, world.items
    user = index_in(log.vocab.users.ids, users["user_id"])[log.user_idx]
    item = index_in(log.vocab.items.ids, items["item_id"])[log.item_idx]
    action = index_in(log.vocab.actions.ids, world.actions["action"])[log.action_idx]
    popularity = items["popularity"].to_numpy()
    topics, topic = np.unique(items["category"].to_numpy(zero_copy_only=False), return_inverse=True)
    own_topic = np.searchsorted(topics, users["topic"].to_numpy(zero_copy_only=False))
    at_home = np.where(topic[item] == own_topic[user], 1 / np.bincount(topic, popularity)[topic[item]], 0)
    base = popularity[item] * (1 - config.taste + config.taste * at_home)
    rate = users["base_rate_per_day"].to_numpy()[user] * base
    follows_II = np.zeros((config.n_items, config.n_items))
    source, follower = (index_in(world.excitation[name], items["item_id"]) for name in ("source_item_id", "item_id"))
    follows_II[source, follower] = world.excitation["weight"].to_numpy()
    for start, stop in zip(log.offsets[:-1], log.offsets[1:], strict=True):
        own = slice(start, stop)
        gap_us = log.time_us[own][:, None] - log.time_us[own]
        weight = follows_II[item[own][None], item[own][:, None]]
        later, earlier = np.nonzero((gap_us > 0) & (weight > 0))
        caused_by = action[own][earlier]
        added = np.zeros(len(later))
        for number, kind in enumerate(config.actions):
            of_kind = caused_by == number
            strength = config.strength_scale * kind.strength
            added[of_kind] = strength * _density(kind.kernel, gap_us[later, earlier][of_kind])
        rate[own] += np.bincount(later, weight[later, earlier] * added, stop - start)
    return np.asarray(rate)


def _density(kernel: Kernel, gap_us: np.ndarray) -> np.ndarray:
    """Return the density of a gap by a mixture of exponentials, per day."""
    parts = [weight * _DAY_US / scale * np.exp(-gap_us / scale) for weight, scale in kernel]
    return np.asarray(np.sum(parts, axis=0))
