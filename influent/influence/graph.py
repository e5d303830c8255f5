"""A ledger of what events were answers to becomes a graph: who moved whom, how much, and how sure that is.

I(v → u) is the sum of the credits of v's events in u's predictions. Of a ledger of causes it is the number of u's
events that were answers to v, by the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import special

from influent import schema
from influent.data.clock import span_us, window_starts
from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError, MissingExtraError, nearest
from influent.influence.ledger import CAUSE, Ledger
from influent.influence.levels import EventCredits, factor_names, read_factors
from influent.influence.noted import read_noted
from influent.run import made
from influent.settings import check_real, check_type

if TYPE_CHECKING:
    import networkx as nx

INFLUENCE = "influence"
PERIOD = "period_start_us"
_OF_EDGES = {schema.SOURCE_USER_ID, schema.USER_ID, schema.TARGET_USER_ID, schema.PREDICTION_ID, schema.SOURCE_EVENT_ID}
_OF_EDGES |= {schema.CREDIT, INFLUENCE, PERIOD, "low", "high", "n_predictions", "n_events"}
"""What every edge has or is made of, so that none can be split by it"""


@dataclass(frozen=True, kw_only=True)
class GraphNote:
    """What a reader of a graph has to know."""

    model: str
    fitted_on: str
    head: str
    """What credits are shares of: `cause`, an event each, or a score"""
    by: str | None
    """What edges are split by, beside source and target"""
    period: str | None = None
    """The calendar windows that edges are split by"""
    n_predictions: int
    n_left_out: int
    """Edges below `min_influence`"""
    left_out: float
    """How much they add up to"""
    likeness: str = "Whether people are merely alike was not tested."
    artefacts: tuple[str, ...] = ()
    """What in ties and times could mislead"""
    caution: str = (
        "Influence is what the model puts down to others. It is not an effect, and its intervals say how a sum varies "
        "with the predictions, not whether anybody was moved."
    )

    @property
    def split(self) -> list[str]:
        """Return the columns that edges are split by."""
        return [*([self.by] if self.by else []), *([PERIOD] if self.period else [])]


@dataclass(frozen=True, kw_only=True)
class InfluenceGraph:
    """Who moved whom.

    Attributes:
        edges: `source_user_id`, `target_user_id`, the columns it is split by, if any, `influence` with its 95 %
            interval `low` and `high`, `n_predictions` (of the target, in which the source has a credit) and `n_events`
            (of the source, that have one); the largest first.
        people: `user_id`, `exerted` with its interval, `per_event` (what each of the user's events exerted), `reach`
            (over how many others it is spread, as if evenly: the square of the sum over the sum of squares),
            `received`, `openness` (the share of the user's own scores that is put down to others), `n_events` of the
            user; the largest `exerted` first. Where predictions are explained and not all events, only the sequences
            say how many events a user has; without them `per_event` and `n_events` are null.
    """

    edges: pa.Table
    people: pa.Table
    note: GraphNote

    def __len__(self) -> int:
        return int(self.edges.num_rows)

    def sentences(self) -> list[str]:
        """Return what a reader has to know of these numbers."""
        total, note = pc.sum(self.people.column("received")).as_py(), self.note
        what = f"{total:,.1f} of {note.n_predictions:,} are put down to others"
        if note.head != CAUSE:
            what = f"others have {total:,.1f} of the scores of {note.n_predictions:,} predictions"
        lines = [f"{note.model}: {what}, along {len(self):,} edges."]
        if note.n_left_out:
            lines.append(f"{note.n_left_out:,} edges, {note.left_out:,.1f} together, are too small to be shown.")
        return [*lines, note.likeness, *note.artefacts, note.caution]

    def save(self, folder: str | Path) -> None:
        """Write `edges.parquet`, `people.parquet` and `graph.json`."""
        folder = made(folder)
        pq.write_table(self.edges, folder / "edges.parquet", compression="zstd")
        pq.write_table(self.people, folder / "people.parquet", compression="zstd")
        (folder / "graph.json").write_text(json.dumps(asdict(self.note), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> InfluenceGraph:
        """Read what `save` wrote.

        Raises:
            SchemaError: a file is missing.
            RunFolderError: a file is damaged.
        """
        (edges, people), note = read_noted(
            folder, ("edges.parquet", "people.parquet"), "graph.json", GraphNote, noun="graph", verb="graph"
        )
        return cls(edges=edges, people=people, note=note)

    def probabilities(self) -> pa.Table:
        """Return `source_user_id`, `target_user_id` and `probability`, as `Spread.of_table` takes them.

        The probability is the chance that one event of the source brings about at least one of the target, 1 − exp(−m),
        where m is how many of the target's are put down to each of the source's.

        Raises:
            ConfigError: edges are split, so that a pair has several, or add up scores and not events.
        """
        if self.note.head != CAUSE:
            raise ConfigError(
                "these edges add up parts of scores, which are no chances. Make the graph of a ledger of causes: "
                "influence_graph(explain_causes(model, sequences))."
            )
        if self.note.split:
            split = " and ".join(self.note.split)
            raise ConfigError(f"edges are split by {split}. Make the graph without 'by' and 'period' for one a pair.")
        place = pc.index_in(self.edges.column(schema.SOURCE_USER_ID), self.people.column(schema.USER_ID))
        n_events = self.people.column("n_events").take(place).to_numpy()
        mean = np.maximum(self.edges.column(INFLUENCE).to_numpy(), 0) / np.maximum(n_events, 1)
        ends = self.edges.select([schema.SOURCE_USER_ID, schema.TARGET_USER_ID])
        return ends.append_column(schema.PROBABILITY, pa.array(-np.expm1(-mean)))

    def to_networkx(self) -> nx.DiGraph[Any]:
        """Return a `networkx.DiGraph`, or a `MultiDiGraph` where edges are split, with the columns as attributes.

        What a column does not say of an edge is left out of its attributes.

        Raises:
            MissingExtraError: networkx is not installed.
        """
        _check_networkx()
        import networkx as nx

        graph: Any = nx.MultiDiGraph() if self.note.split else nx.DiGraph()
        for row in self.people.to_pylist():
            graph.add_node(row.pop(schema.USER_ID), **row)
        for row in self.edges.to_pylist():
            ends = row.pop(schema.SOURCE_USER_ID), row.pop(schema.TARGET_USER_ID)
            # Not as arguments of `add_edge`: one of these is `key`, and so may a column be called.
            key = graph.add_edge(*ends)
            edge = graph.edges[ends if key is None else (*ends, key)]
            edge.update({name: value for name, value in row.items() if value is not None})
        return graph

    def export(self, path: str | Path) -> None:
        """Write the graph for other tools: `.graphml` (Gephi, igraph, Cytoscape) or `.gexf` (Gephi), by suffix.

        Raises:
            ConfigError: the path ends otherwise.
            MissingExtraError: networkx is not installed.
        """
        check_export(path)
        write = self.write_gexf if Path(path).suffix.lower() == ".gexf" else self.write_graphml
        write(path)

    def write_graphml(self, path: str | Path) -> None:
        """Write the graph as GraphML, which Gephi, igraph and others read.

        Raises:
            MissingExtraError: networkx is not installed.
        """
        graph = for_files(self.to_networkx())
        import networkx as nx

        nx.write_graphml(graph, path, edge_id_from_attribute="id")

    def write_gexf(self, path: str | Path) -> None:
        """Write the graph as GEXF, which Gephi reads.

        Raises:
            MissingExtraError: networkx is not installed.
        """
        graph = for_files(self.to_networkx())
        import networkx as nx

        nx.write_gexf(graph, path)


_RESERVED = {"id", "key", "type", "weight", "label", "start", "end", "source", "target"}
"""Names of attributes that mean something of their own to GEXF or GraphML"""
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def for_files(graph: nx.Graph[Any]) -> nx.Graph[Any]:
    """Return the graph as files can hold it.

    Each edge has a number as its `id`; an attribute whose name means something else to the format gets `event_` before
    it; and a character that XML forbids is written as Python writes it, backslash and number.
    """

    def plain(value: Any) -> Any:
        return _NOT_IN_XML.sub(lambda found: repr(found[0])[1:-1], value) if isinstance(value, str) else value

    def attributes(of: dict[str, Any]) -> dict[str, Any]:
        return {f"event_{name}" if name in _RESERVED else name: plain(value) for name, value in of.items()}

    written = graph.__class__()
    for node, of_node in graph.nodes(data=True):
        written.add_node(plain(node), **attributes(of_node))
    for number, (source, target, of_edge) in enumerate(graph.edges(data=True)):
        written.add_edge(plain(source), plain(target), **attributes(of_edge), id=str(number))
    return written


def check_export(path: str | Path) -> None:
    """Refuse, before any work, a path that no graph can be written to.

    Raises:
        ConfigError: it ends in neither `.graphml` nor `.gexf`, or there is no such folder.
        MissingExtraError: networkx is not installed.
    """
    _check_networkx()
    if Path(path).suffix.lower() not in (".graphml", ".gexf"):
        raise ConfigError(f"a graph is written as .graphml or .gexf, by the end of the path. Got {str(path)!r}.")
    if not Path(path).parent.is_dir():
        raise ConfigError(f"there is no folder {Path(path).parent} to write {Path(path).name} into. Make it first.")


def _check_networkx() -> None:
    if find_spec("networkx") is None:
        raise MissingExtraError("graphs of other tools need networkx: pip install 'influent[graph]'.")


def influence_graph(
    ledger: Ledger,
    *,
    by: str | None = None,
    period: str | None = None,
    sequences: Sequences | None = None,
    min_influence: float = 0.0,
) -> InfluenceGraph:
    """Add up credits from one user's events to another user's predictions.

    The influence on a user adds up to what the ledger puts down to others in that user's predictions, but for edges
    below `min_influence`; how many and how much these are is in the note. Intervals are those of a Poisson bootstrap
    over predictions, whose variance is the sum of squares of an edge's credits per prediction; by a gamma distribution
    with this mean and variance, since few credits add up skewed, and a normal one where the sum is not above 0.

    Args:
        by: split edges by the item, `item_id`, or by a factor of the source's events: `action`,
            `scene` or another category of events, an item or user feature, `gap`, `hour_of_day` …; see
            `influent.influence.levels.read_factors`, which joins the rarer values of a text. The edges of a pair add up
            to the one that it has unsplit.
        period: split edges by calendar windows of the targets' events, in UTC: a number and s, m, h, d or w. The column
            `period_start_us` says when each begins; those of a week begin on Monday.
        sequences: the events that were explained, for factors that are not in the ledger: scene, features of items.
        min_influence: edges with less, either way, are left out.

    Raises:
        ConfigError: there is no such column and no such factor, the ledger is shortened, so that it does not say what
            every event has, it has no times to split by, or `min_influence` is negative.
        DataError: nobody has a credit in anybody else's predictions, or the sequences are of other events.

    Example:
        Bob bought twice; ann's event has shares of 0.5 and 0.25 of the two. Then I(ann → bob) is 0.75.
    """
    check_real("min_influence", min_influence, 0.0)
    social, split = social_rows(ledger, by=by, period=period, sequences=sequences)
    key = [schema.SOURCE_USER_ID, schema.USER_ID, *split]
    edges = _added_up(social, key).rename_columns({schema.USER_ID: schema.TARGET_USER_ID})
    enough = pc.greater_equal(pc.abs(edges.column(INFLUENCE)), min_influence)
    left_out = edges.filter(pc.invert(enough)).column(INFLUENCE)
    edges = edges.filter(enough)
    note = GraphNote(
        model=ledger.note.model,
        fitted_on=ledger.note.fitted_on,
        head=ledger.note.head,
        by=by,
        period=period,
        n_predictions=len(ledger),
        n_left_out=len(left_out),
        left_out=pc.sum(left_out).as_py() or 0.0,
    )
    return InfluenceGraph(edges=edges, people=_people(ledger, social, sequences), note=note)


def social_rows(
    ledger: Ledger, *, by: str | None, period: str | None, sequences: Sequences | None
) -> tuple[pa.Table, list[str]]:
    """Return the credits of others' events, and the columns that they are split by; arguments as above."""
    check_type("ledger", ledger, Ledger, "explain(model, moments)")
    if ledger.note.top is not None:
        raise ConfigError(
            f"this ledger has rows for the largest {ledger.note.top} events only. Explain without 'top' to count all."
        )
    social = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "social"))
    if social.num_rows == 0:
        raise DataError("nobody has a credit in anybody else's predictions, so there is no graph.")
    is_timed = social.column(schema.GAP_US).null_count == 0
    check_split(by, sequences, is_timed=is_timed)
    if by is not None and by != schema.ITEM_ID:
        [factor] = read_factors(EventCredits.of(ledger, source="social"), sequences, [by])
        social = social.append_column(by, pa.array(factor.levels).take(pa.array(factor.code)))
    if period is not None:
        social = social.append_column(PERIOD, _period_starts(social.column(schema.TIME_US), span_us(period)))
    return social, [*([by] if by else []), *([PERIOD] if period else [])]


def check_split(by: str | None, sequences: Sequences | None, *, is_timed: bool = True) -> None:
    """Refuse to split edges by what is neither the item nor a factor of others' events.

    Raises:
        ConfigError: so it is.
    """
    if by is not None and not isinstance(by, str):
        raise ConfigError(f"The 'by' parameter must be the name of one column. Got {by!r}.")
    if by in _OF_EDGES:
        raise ConfigError(f"edges cannot be split by {by!r}, which they are made of. Call a column of yours otherwise.")
    known = [schema.ITEM_ID, *factor_names(sequences, has_lags=False, is_timed=is_timed)]
    if by is not None and by not in known:
        more = " Give sequences for more." if sequences is None else ""
        raise ConfigError(f"edges cannot be split by {by!r}.{nearest(by, known)} There are: {', '.join(known)}.{more}")


def _period_starts(moments: pa.ChunkedArray, period_us: int) -> pa.Array:
    if moments.null_count:
        raise ConfigError("this ledger is of an order-only log, which has no periods of time.")
    return pa.array(window_starts(moments.to_numpy(), period_us))


def _added_up(social: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the sums of credits by these columns, with intervals, the largest first."""
    by_prediction = social.group_by([*key, schema.PREDICTION_ID]).aggregate([(schema.CREDIT, "sum")])
    credit = by_prediction.column(f"{schema.CREDIT}_sum")
    by_prediction = by_prediction.append_column("square", pc.power(credit, 2))
    sums = by_prediction.group_by(list(key)).aggregate(
        [(f"{schema.CREDIT}_sum", "sum"), ("square", "sum"), (schema.PREDICTION_ID, "count")]
    )
    events = social.group_by([*key, schema.SOURCE_EVENT_ID]).aggregate([]).group_by(list(key))
    n_events = events.aggregate([(schema.SOURCE_EVENT_ID, "count")])
    sums = sums.join(n_events, keys=list(key), join_type="inner")
    mean = sums.column(f"{schema.CREDIT}_sum_sum").to_numpy()
    low, high = interval_of_sums(mean, sums.column("square_sum").to_numpy())
    table = pa.table(
        {
            **{name: sums.column(name) for name in key},
            INFLUENCE: mean,
            "low": low,
            "high": high,
            "n_predictions": sums.column(f"{schema.PREDICTION_ID}_count"),
            "n_events": sums.column(f"{schema.SOURCE_EVENT_ID}_count"),
        }
    )
    return table.sort_by([(INFLUENCE, "descending"), *((name, "ascending") for name in key)]).combine_chunks()


def interval_of_sums(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5th and the 97.5th percentile of sums with this mean and variance."""
    skewed = (mean > 0) & (variance > 0)
    shape = np.where(skewed, mean**2 / np.where(skewed, variance, 1.0), 1.0)
    normal = np.outer([-1.96, 1.96], np.sqrt(variance)) + mean
    low, high = (special.gammaincinv(shape, q) * mean / shape for q in (0.025, 0.975))
    return np.where(skewed, low, normal[0]), np.where(skewed, high, normal[1])


def events_of(ledger: Ledger, ids: pa.Array, sequences: Sequences | None) -> np.ndarray:
    """Return how many events each of these users has, float64 (U,); NaN where nothing here says so.

    A ledger of causes explains events. One of predictions has as many as were asked for.
    """
    if ledger.note.head == CAUSE:
        n = pc.value_counts(ledger.predictions.column(schema.USER_ID).combine_chunks())
        place = pc.index_in(ids, n.field("values"))
        return np.asarray(pc.fill_null(n.field("counts").take(place), 0), np.float64)
    if sequences is not None:
        return sequences.n_events_of(sequences.vocab.users.to_idx(ids)).astype(np.float64)
    return np.full(len(ids), np.nan)


def per_event(exerted: np.ndarray, n_events: np.ndarray) -> pa.Array:
    """Return what each event exerted; null where the number of events is not known."""
    return pa.array(exerted / np.maximum(n_events, 1), from_pandas=True)


def _people(ledger: Ledger, social: pa.Table, sequences: Sequences | None) -> pa.Table:
    exerted = _added_up(social, [schema.SOURCE_USER_ID]).rename_columns({schema.SOURCE_USER_ID: schema.USER_ID})
    pairs = social.group_by([schema.SOURCE_USER_ID, schema.USER_ID]).aggregate([(schema.CREDIT, "sum")])
    pairs = pairs.append_column("square", pc.power(pairs.column(f"{schema.CREDIT}_sum"), 2))
    squares = pairs.group_by(schema.SOURCE_USER_ID).aggregate([("square", "sum")])
    received = pairs.group_by(schema.USER_ID).aggregate([(f"{schema.CREDIT}_sum", "sum")])
    own = ledger.predictions.group_by(schema.USER_ID).aggregate([(schema.SCORE, "sum")])
    ids = pa.chunked_array([*own.column(schema.USER_ID).chunks, *exerted.column(schema.USER_ID).chunks]).unique()

    def of(table: pa.Table, key: str, column: str) -> np.ndarray:
        place = pc.index_in(ids, table.column(key).combine_chunks())
        return np.asarray(pc.fill_null(table.column(column).take(place), 0).to_numpy(), np.float64)

    n_events = events_of(ledger, ids, sequences)
    given = of(exerted, schema.USER_ID, INFLUENCE)
    taken = of(received, schema.USER_ID, f"{schema.CREDIT}_sum_sum")
    total = of(own, schema.USER_ID, f"{schema.SCORE}_sum")
    square = of(squares, schema.SOURCE_USER_ID, "square_sum")
    table = pa.table(
        {
            schema.USER_ID: ids,
            "exerted": given,
            "low": of(exerted, schema.USER_ID, "low"),
            "high": of(exerted, schema.USER_ID, "high"),
            "per_event": per_event(given, n_events),
            "reach": given**2 / np.where(square > 0, square, 1.0),
            "received": taken,
            "openness": np.where(total > 0, taken / np.where(total > 0, total, 1.0), 0.0),
            "n_events": pa.array(n_events, from_pandas=True).cast(pa.int64()),
        }
    )
    return table.sort_by([("exerted", "descending"), (schema.USER_ID, "ascending")]).combine_chunks()
