"""A log of acts and arcs to what passed from whom to whom: credits that flow back along it, and seeds by them.

Shapes: E acts, I items, N people.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular

from influent import schema
from influent.data.clock import span_us
from influent.data.engine import Engine, literal
from influent.data.events import Events
from influent.data.moments import ranges
from influent.data.vocab import UNKNOWN, Ids
from influent.errors import ConfigError, DataError, SchemaError
from influent.settings import check_int, check_type


@dataclass(frozen=True, kw_only=True, eq=False)
class Propagation:
    """First acts of people on items, and how the credit for each is shared among those it may have come from."""

    people: Ids
    """who acted"""
    offsets: np.ndarray
    """int64 (I + 1,): the acts on an item lie together, in the order of time"""
    person: np.ndarray
    """int64 (E,): place in `people` of who acted"""
    shares: sparse.csr_array
    """float64 (E, E): the share of the credit for an act (row) that the act of an in-neighbour (column) has; the shares
    of a row add up to 1, or there are none"""
    n_unknown_arcs: int
    """arcs of somebody who never acted, which say nothing here"""
    acts: pa.Table = field(repr=False)
    """`user_id`, `item_id`, `time_us`, (E,)"""
    arcs: pa.Table = field(repr=False)
    action: str | None = None
    half_life: str | None = None

    @classmethod
    def of(
        cls, events: Events, arcs: pa.Table, *, action: str | None = None, half_life: str | None = None
    ) -> Propagation:
        """Find who acted on an item before an out-neighbour did. Acts in the same microsecond have no direction.

        Args:
            events: a timed log; of what somebody does to an item again the first time counts.
            arcs: `source_user_id` and `target_user_id`, as from `read_edges`; to oneself and repeated ones are nothing.
            action: which events are acts; by default all.
            half_life: credit is shared equally, or with this span (`7d`) halves with the time that an act lies back.

        Raises:
            DataError: the log has no times, or no such acts.
            SchemaError: `arcs` lacks a column.
            ConfigError: `half_life` is no span, or `arcs` no Arrow table.
        """
        check_type("events", events, Events, "read_events(...)")
        check_type("arcs", arcs, pa.Table, "read_edges(...)")
        for name in (schema.SOURCE_USER_ID, schema.TARGET_USER_ID):
            if name not in arcs.column_names:
                raise SchemaError(f"arcs have no column {name!r}. They have: {', '.join(arcs.column_names)}.")
        acts = _first_acts(events, action)
        return cls._of(acts, _shares(events.engine, acts, arcs, half_life), arcs, action, half_life)

    @classmethod
    def _of(
        cls, acts: pa.Table, shares: sparse.csr_array, arcs: pa.Table, action: str | None, half_life: str | None
    ) -> Propagation:
        ids = acts.column(schema.USER_ID).unique()
        people = Ids(schema.USER_ID, ids.take(pc.sort_indices(ids)))
        ends = [people.to_idx(arcs.column(name)) for name in (schema.SOURCE_USER_ID, schema.TARGET_USER_ID)]
        item = acts.column(schema.ITEM_ID).combine_chunks().dictionary_encode().indices.to_numpy()
        return cls(
            people=people,
            offsets=np.append(np.flatnonzero(np.diff(item, prepend=-1)), len(acts)),
            person=people.to_idx(acts.column(schema.USER_ID)),
            shares=shares,
            n_unknown_arcs=int(((ends[0] == UNKNOWN) | (ends[1] == UNKNOWN)).sum()),
            acts=acts,
            arcs=arcs,
            action=action,
            half_life=half_life,
        )

    def with_events(self, events: Events) -> Propagation:
        """Return what comes of these events too, as if all had been there at once; only items they are of are redone.

        Args:
            events: a timed log of more acts, also earlier ones, or of new people and items.

        Raises:
            DataError: the log has no times, or no acts.
            SchemaError: its ids are of another type.
        """
        new = _first_acts(events, self.action)
        if not new.schema.equals(self.acts.schema):
            raise SchemaError(
                f"ids are of other types than before: {new.schema.types[:2]}, {self.acts.schema.types[:2]}."
            )
        again = pc.is_in(self.acts.column(schema.ITEM_ID), new.column(schema.ITEM_ID))
        redone = _ordered(pa.concat_tables([self.acts.filter(again), new]))
        shares = _shares(events.engine, redone, self.arcs, self.half_life)
        kept = np.flatnonzero(~again.to_numpy())
        acts = pa.concat_tables([self.acts.take(pa.array(kept)), redone])
        order = pc.sort_indices(acts, _ORDER).to_numpy()
        joined = sparse.block_diag([self.shares[kept][:, kept], shares], format="csr")
        together = sparse.csr_array(joined)[order][:, order]
        return self._of(acts.take(pa.array(order)), together, self.arcs, self.action, self.half_life)

    def gains(self, is_seed: np.ndarray, acts: np.ndarray) -> np.ndarray:
        """Return what each act would add to the reach if its actor became a seed too, float64.

        The reach is the sum, over people, of the mean over their acts of the credit that seeds have for the act. One
        more seed adds to it, summed over the acts of the new one: what seeds do not have of the act, times what flows
        to it from all acts of others without passing a seed (Goyal, Bonchi and Lakshmanan 2011). Both solve triangular
        systems, as credit flows back in time only; so nothing small is cut off, as the paper does to save memory.

        Args:
            is_seed: bool (N,).
            acts: int64, ascending: all acts on some items.
        """
        person = self.person[acts]
        of_seed = is_seed[person]
        # A seed passes the credit for its act on to nobody.
        shares = sparse.diags_array((~of_seed).astype(float)) @ self.shares[acts][:, acts]
        unit = sparse.eye_array(len(acts))
        had = spsolve_triangular((unit - shares).tocsr(), of_seed.astype(float), unit_diagonal=True)
        weight = np.where(of_seed, 0.0, 1 / np.bincount(self.person, minlength=len(self.people))[person])
        flows = spsolve_triangular((unit - shares.T).tocsr(), weight, lower=False, unit_diagonal=True)
        return np.asarray((1 - had) * flows)

    def seeds(self, k: int) -> pa.Table:
        """Choose k people by greedy; see `choose_seeds_by_credit`.

        Raises:
            ConfigError: k is out of its range.
        """
        check_int("k", k, 1)
        n = len(self.people)
        if k > n:
            raise ConfigError(f"k is {k:,}, and {n:,} people have acted.")
        of_item = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        by_person = np.argsort(self.person, kind="stable")
        person_offsets = np.searchsorted(self.person[by_person], np.arange(n + 1))
        is_seed = np.zeros(n, bool)
        gain_of_act = self.gains(is_seed, np.arange(len(self.person)))
        gain_of_person = np.bincount(self.person, gain_of_act, n)
        chosen, gains = [], []
        for _ in range(k):
            best = int(np.argmax(np.where(is_seed, -np.inf, gain_of_person)))
            chosen.append(best)
            gains.append(float(gain_of_person[best]))
            is_seed[best] = True
            # Only on the items of the new seed anything changes.
            items = of_item[by_person[person_offsets[best] : person_offsets[best + 1]]]
            acts = ranges(self.offsets[items], np.diff(self.offsets)[items])
            new = self.gains(is_seed, acts)
            gain_of_person += np.bincount(self.person[acts], new - gain_of_act[acts], n)
            gain_of_act[acts] = new
        return pa.table(
            {
                schema.RANK: np.arange(1, k + 1),
                schema.USER_ID: self.people.to_ids(np.array(chosen)),
                "gain": gains,
                "reach": np.cumsum(gains),
            }
        )


def choose_seeds_by_credit(
    events: Events, arcs: pa.Table, k: int, *, action: str | None = None, half_life: str | None = None
) -> pa.Table:
    """Choose the k people from whom most of what others did has come: no probabilities, and nothing simulated.

    Credit distribution (Goyal, Bonchi and Lakshmanan 2011, A Data-Based Approach to Social Influence Maximization): the
    credit for each act is shared among the in-neighbours who did it earlier, who share theirs with theirs in turn.
    Seeds are chosen by greedy, which reaches at least 1 − 1/e of the most that k people can. Credit says what followed
    on what. It is not an effect: people who are alike do alike, also without each other.

    Args:
        events: a timed log of acts; see `influent.influence.propagation.Propagation.of`.
        arcs: `source_user_id` and `target_user_id`.
        k: how many, from 1 to the number of people who acted.
        action: which events are acts; by default all.
        half_life: shares are equal, or halve with the time that an act lies back (`7d`).

    Returns:
        one row per seed in the order of choice: `rank`, `user_id`, `gain`, and `reach`, the gains so far: people, each
        counted as far as the credit for what they did goes back to a seed

    Raises:
        DataError: the log has no times, or no such acts.
        SchemaError: `arcs` lacks a column.
        ConfigError: `k` or `half_life` is out of its range.

    Example:
        >>> from influent import read_events
        >>> log = {"user_id": ["ann", "bob", "cleo"], "item_id": ["x", "x", "x"], "time": [1, 2, 3]}
        >>> arcs = {"source_user_id": ["ann", "ann", "bob"], "target_user_id": ["bob", "cleo", "cleo"]}
        >>> choose_seeds_by_credit(read_events(pa.table(log)), pa.table(arcs), 1).to_pylist()
        [{'rank': 1, 'user_id': 'ann', 'gain': 3.0, 'reach': 3.0}]
    """
    return Propagation.of(events, arcs, action=action, half_life=half_life).seeds(k)


_ORDER = [(name, "ascending") for name in (schema.ITEM_ID, schema.TIME_US, schema.USER_ID)]


def _ordered(acts: pa.Table) -> pa.Table:
    """Return the first act of each person on each item, by item, then time."""
    first = acts.group_by([schema.USER_ID, schema.ITEM_ID]).aggregate([(schema.TIME_US, "min")])
    columns = [schema.USER_ID, schema.ITEM_ID, schema.TIME_US]
    return first.rename_columns(columns).sort_by(_ORDER).combine_chunks()


def _first_acts(events: Events, action: str | None) -> pa.Table:
    if not events.is_timed:
        raise DataError("this log has no times and does not say who was first. Name them: read_events(..., time=).")
    of_action = "" if action is None else f" AND action = {literal(action)}"
    acts = events.engine.arrow(
        f"SELECT user_id, item_id, min(time_us) AS time_us FROM {events.name} WHERE time_us IS NOT NULL "
        f"AND user_id IS NOT NULL AND item_id IS NOT NULL{of_action} GROUP BY user_id, item_id"
    )
    if not len(acts):
        raise DataError("the log has no acts with a time" + (f" of the action {action!r}." if action else "."))
    return _ordered(acts)


def _shares(engine: Engine, acts: pa.Table, arcs: pa.Table, half_life: str | None) -> sparse.csr_array:
    """Return the share of the credit for each act (row) that each act before it (column) has."""
    n_acts = len(acts)
    user, ends = acts.column(schema.USER_ID), arcs.select([schema.SOURCE_USER_ID, schema.TARGET_USER_ID]).columns
    if any(end.type != user.type for end in ends):
        # Ids of another type are compared as text, as everywhere.
        user, ends = user.cast(pa.string()), [end.cast(pa.string()) for end in ends]
    columns = {name: acts.column(name) for name in (schema.ITEM_ID, schema.TIME_US)}
    table = engine.register(pa.table({schema.USER_ID: user, **columns, "act": np.arange(n_acts)}))
    known = engine.register(pa.table(ends, names=["source", "target"]))
    passed = engine.arrow(
        "SELECT DISTINCT later.act AS later, earlier.act AS earlier, later.time_us - earlier.time_us AS gap_us "
        f"FROM {known} arc JOIN {table} later ON later.user_id = arc.target JOIN {table} earlier "
        "ON earlier.user_id = arc.source AND earlier.item_id = later.item_id AND earlier.time_us < later.time_us "
        "ORDER BY later, earlier"
    )
    later, earlier, gap_us = (passed.column(name).to_numpy() for name in ("later", "earlier", "gap_us"))
    share = np.ones(len(later))
    if half_life is not None:
        latest = np.full(n_acts, np.inf)
        np.minimum.at(latest, later, gap_us)
        share = 2.0 ** ((latest[later] - gap_us) / span_us(half_life))
    share /= np.bincount(later, share, n_acts)[later]
    return sparse.csr_array((share, (later, earlier)), shape=(n_acts, n_acts))
