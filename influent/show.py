"""Reports, ledgers and lists to what a person reads in a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from influent import schema
from influent.data.artefacts import Artefacts
from influent.data.clean import CleaningReport
from influent.data.clock import iso
from influent.data.vocab import Vocab
from influent.evaluation.report import Comparison
from influent.influence.attribution import Attribution
from influent.influence.drift import EVERYTHING, Drift
from influent.influence.evidence import evidence
from influent.influence.factors import Factors
from influent.influence.graph import INFLUENCE, PERIOD, InfluenceGraph
from influent.influence.leaders import Leaders
from influent.influence.ledger import Ledger
from influent.recommendations import Recommendations

if TYPE_CHECKING:
    from influent.evaluation.comparison import ComparisonReport
    from influent.evaluation.faithfulness import FaithfulnessReport
    from influent.evaluation.likeness import LikenessReport
    from influent.models.tuning import Tuned

_HEADS = {"time": "how soon the next event comes (log of its rate per second)"}
_N_FACTORS = 3
"""How many factors are shown level by level."""

_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")
_SPANS_S = (("year", 31_557_600), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


_AHEAD = "ahead of its rivals by"


def console() -> Console:
    """Return a console for standard output; a pipe gets lines wide enough not to be cut."""
    # Titles and ids are shown as they are: `:car:` in one is no picture.
    plain = Console(emoji=False)
    return plain if plain.is_terminal else Console(width=120, emoji=False)


def show_cleaning(out: Console, report: CleaningReport, artefacts: Artefacts) -> None:
    """Print what was read, what each rule dropped and why, and what could fool an analysis."""
    for note in report.notes:
        out.print(note, markup=False, highlight=False)
    table = _table("rule", ">dropped", "why")
    for rule in report.rules:
        _add_row(table, rule.name, f"{rule.n_dropped:,}", rule.why)
    out.print(table)
    out.print(
        f"{report.n_kept:,} of {report.n_read:,} events kept: {report.n_users:,} users, {report.n_items:,} items.",
        highlight=False,
    )
    for sentence in artefacts.sentences():
        out.print(sentence, markup=False, highlight=False)


def show_report(out: Console, report: Comparison, metrics: Sequence[str] = ()) -> None:
    """Print accuracy with intervals; `metrics` chooses columns, by default all, in as many tables as fit the width."""
    cells = report.cells()
    chosen = [place for place, name in enumerate(cells[0]) if place and (not metrics or name in metrics)]
    while chosen:
        n_fitting = next((n for n in range(len(chosen), 1, -1) if _fits(out, _columns(cells, chosen[:n]))), 1)
        out.print(_table_of(_columns(cells, chosen[:n_fitting])))
        out.print()
        chosen = chosen[n_fitting:]
    out.print(report.caption(), markup=False, highlight=False)


def show_comparison(out: Console, report: ComparisonReport) -> None:
    """Print what each model can do and takes, how exact its credits are, and what that costs."""
    cells, n_wide = report.cells(), 1 + len(report.shown())
    tables = [cells]
    if not _fits(out, cells):
        tables = [[row[:n_wide] for row in cells], [row[:1] + row[n_wide:] for row in cells]]
    for some in (*tables, report.credit_cells()):
        out.print(_table_of(some))
        out.print()
    for sentence in (report.price(), *report.failures(), report.caption()):
        out.print(sentence, markup=False, highlight=False)


def show_faithfulness(out: Console, report: FaithfulnessReport) -> None:
    """Print how true the credits of each method are, and what taking out masked events does."""
    out.print(_table_of(report.check_cells()))
    for removal, rows in report.orders.items():
        shown = [name for name in ("POS@5", "NEG@5", "DEL", "INS") if name in next(iter(rows.values()))]
        out.print(f"events {removal}:", markup=False, highlight=False)
        means = [[name, *(f"{row[metric].mean:.4f}" for metric in shown)] for name, row in rows.items()]
        out.print(_table_of([["order", *shown], *means]))
    out.print(report.caption(), markup=False, highlight=False)


def show_tuned(out: Console, tuned: Tuned) -> None:
    """Print the trials, the best first, and the best settings."""
    out.print(_table_of(tuned.cells()))
    out.print(tuned.caption(), markup=False, highlight=False)
    out.print(tuned.to_toml(), markup=False, highlight=False)


def show_graph(out: Console, graph: InfluenceGraph, leading: Leaders, n_rows: int = 10) -> None:
    """Print the people who moved others most, the largest edges, and what to keep in mind."""
    split, k = graph.note.split, leading.about["k"]
    columns = (">per event", ">per follower", ">reach", ">openness", ">rank, 95 %", f">in top {k}")
    table = _table("who", *split, ">events put down", ">95 % interval", *columns)
    for row in _in_words(leading.table.sort_by([("exerted", "descending")]), n_rows):
        ends = [str(row[name]) for name in (schema.USER_ID, *split)]
        # A graph of a run is of causes, which are events, so that it is known how many there are.
        sizes = [f"{row['exerted']:.1f}", f"{row['low']:.1f} to {row['high']:.1f}", f"{row['per_event']:.3f}"]
        shares = [f"{row['per_follower']:.2f}", f"{row['reach']:.1f}", f"{row['openness']:.0%}"]
        _add_row(table, *ends, *sizes, *shares, f"{row['rank_low']} to {row['rank_high']}", f"{row['in_top']:.0%}")
    out.print(table)
    table = _table("from", "to", *split, ">events put down", ">95 % interval", ">of events")
    for row in _in_words(graph.edges, n_rows):
        ends = [str(row[name]) for name in (schema.SOURCE_USER_ID, schema.TARGET_USER_ID, *split)]
        span = f"{row['low']:.2f} to {row['high']:.2f}"
        _add_row(table, *ends, f"{row[INFLUENCE]:.2f}", span, f"{row['n_predictions']:,}")
    out.print(table)
    for sentence in (*leading.sentences(), *graph.sentences()):
        out.print(sentence, markup=False, highlight=False)


def _in_words(table: pa.Table, n_rows: int) -> list[dict[str, Any]]:
    """Return the first rows, with periods as dates."""
    rows: list[dict[str, Any]] = table.slice(0, n_rows).to_pylist()
    return [row | {PERIOD: iso(row[PERIOD])[:16]} if PERIOD in row else row for row in rows]


def show_likeness(out: Console, report: LikenessReport) -> None:
    """Print what each way to tell influence from likeness says; the verdict is among the graph's sentences."""
    out.print(_table_of(_columns(report.cells(), range(2, 7))))


def show_ledger(out: Console, ledger: Ledger, vocab: Vocab, prediction_id: int, n_events: int | None = None) -> None:
    """Print one prediction's terms and their sum; `n_events` shows the largest and adds up the others."""
    wanted = pc.equal(ledger.predictions.column(schema.PREDICTION_ID), prediction_id)
    [prediction] = ledger.predictions.filter(wanted).to_pylist()
    title_of, note = _title_of(vocab), ledger.note
    against = "" if note.contrast is None else f" against its {note.contrast} best rivals"
    against += "" if note.against is None else f" against {title_of(note.against)}"
    # A question about the user has no item, and when the next event comes is one.
    about = [] if prediction[schema.ITEM_ID] is None else [title_of(prediction[schema.ITEM_ID]) + against]
    about += [] if note.head == "ranking" else [_HEADS.get(note.head, note.head)]
    about += ["now and not earlier"] if note.is_difference else []
    out.print(", ".join([f"user {prediction[schema.USER_ID]}", *about]), markup=False, highlight=False)
    rows = ledger.of(prediction_id)
    is_margin = note.contrast is not None or note.against is not None
    name = "the model said"
    if is_margin:
        name = _AHEAD if note.against is None else f"ahead of {title_of(note.against)} by"
    if note.is_difference:
        name = "the margin has changed by" if is_margin else "the score has changed by"
    out.print(_reasons_table(rows.to_pylist(), prediction[schema.SCORE], vocab, n_events, name=name))
    for sentence in _below(replace(ledger, table=rows, predictions=ledger.predictions.filter(wanted))):
        out.print(sentence, markup=False, highlight=False)


def _below(ledger: Ledger) -> Iterator[str]:
    """Say of one prediction how many events carry it, and how its credits were come by where they are estimates."""
    if ledger.note.top is None and (carriers := int(evidence(ledger)[0])):
        n_events = pc.count_distinct(ledger.table.column(schema.SOURCE_EVENT_ID)).as_py()
        yield f"half of all credit lies with {carriers:,} of {n_events:,} events"
    if ledger.note.method != "exact":
        yield f"credits are estimates: {ledger.note.how()}"


def _show_statement(out: Console, about: dict[str, Any]) -> None:
    """Print what a reader has to know of the ledger that tables were made of."""
    out.print("\n".join(about["statement"]), markup=False, highlight=False)


def show_factors(out: Console, found: Factors) -> None:
    """Print the factors by importance, and of the first the size of credits at each level."""
    if found.ranking is not None:
        table = _table("factor", ">share of the variance of log |credit|", ">95 % interval")
        for one in found.ranking.factors:
            _add_row(table, one.factor, f"{one.importance:.1%}", f"{one.low:.1%} to {one.high:.1%}")
        out.print(table)
        out.print(f"together: {found.ranking.explained:.0%}, among users not learned from\n", highlight=False)
    for name in found.names[:_N_FACTORS]:
        table = _table(name.replace("_", " "), ">events", ">mean |credit|", ">95 % interval", ">mean credit")
        for row in found.of(name):
            span = _between(row, "mean_abs_credit", ".4f")
            size, signed = f"{row['mean_abs_credit']:.4f}", f"{row['mean_credit']:+.4f}"
            _add_row(table, row["level"], f"{row['n_credits']:,}", size, span, signed)
        out.print(table)
        out.print()
    _show_statement(out, found.about)


def show_drift(out: Console, found: Drift) -> None:
    """Print how large credits are in each window, whether that changed, and how long influence lasts."""
    table = _table("from", ">events", ">mean |credit|", ">over what is expected", ">95 % interval")
    for row in found.of(EVERYTHING, EVERYTHING):
        span = _between(row, "index", ".2f")
        size = f"{row['mean_abs_credit']:.4f}"
        index = "none" if row["index"] is None else f"{row['index']:.2f}"
        _add_row(table, iso(row["window_start_us"])[:16], f"{row['n_credits']:,}", size, index, span)
    out.print(table)
    out.print()
    for row in found.change_rows():
        what = "all events" if row["factor"] == EVERYTHING else f"{row['factor']} {row['level']}"
        out.print(
            f"ALARM: {what} at {row['at'][:16]} (from {row['from'][:16]} to {row['to'][:16]}): {row['before']:.2f} "
            f"before, {row['after']:.2f} after",
            markup=False,
            highlight=False,
        )
    if verdict := found.verdict():
        out.print(verdict if found.is_alarm else f"No alarm. {verdict}", markup=False, highlight=False)
    out.print()
    table = _table("action", "half-life from", ">time", ">95 % interval")
    for row in found.half_lives.to_pylist():
        time, low, high = (_half_life(row[name]) for name in ("half_life_us", "low_us", "high_us"))
        _add_row(table, row["action"], row["from"], time, "" if low == high else f"{low} to {high}")
    out.print(table)
    _show_statement(out, found.about)


_NO_OUTCOMES = {
    "ledger": "The ledger's is empty: its credits add up to 0 or less, of which there are no shares.",
    "time_decay": "That of time decay is empty: the log has no times.",
}
"""Why a column of `show_attribution` is empty"""


def show_attribution(out: Console, found: Attribution) -> None:
    """Print the outcomes of each channel by each method, where these disagree, and what if a channel were not there."""
    channels = list(found.of("ledger"))
    table = _table("channel", *(f">{method.replace('_', ' ')}" for method in found.methods))
    for channel in channels:
        outcomes = [found.of(method)[channel]["outcomes"] for method in found.methods]
        _add_row(table, channel, *("" if one is None else f"{one:.1f}" for one in outcomes))
    out.print(table)
    about = found.about
    out.print(
        f"{about['n_outcomes']:,} outcomes ({about['outcome']}) of {about['n_journeys']:,} journeys; every column adds "
        f"up to them.",
        *(f" {why}" for method, why in _NO_OUTCOMES.items() if found.of(method)[channels[0]]["outcomes"] is None),
        sep="",
        markup=False,
        highlight=False,
    )
    widest = found.disagreements()[0]
    most, fewest = (widest[name].replace("_", " ") for name in ("most", "fewest"))
    if most != fewest:
        out.print(
            f"The methods differ most on {widest['channel']}: {most} puts {widest['difference']:.1f} more down to it "
            f"than {fewest}.",
            markup=False,
            highlight=False,
        )
    out.print()
    if about["exactness"] == "estimated":
        out.print(
            "Credits are estimates, so what the model would say without a channel can differ from this even in sign."
        )
    elif about["exactness"] != "exact":
        out.print("An event's credit is not exactly what its removal takes away, so neither is a channel's.")
    if of_others := about["shares"].get("social"):
        out.print(
            f"Events of other people carry {of_others:.0%} of the size of scores, and no channel has any of that."
        )
    rows = found.what_if.to_pylist()
    says_outcomes = rows[0]["outcome_change"] is not None
    outcomes = [">change of expected outcomes"] if says_outcomes else []
    is_margin = about.get("contrast") is not None or about.get("against") is not None
    change = ">change of all margins over rivals" if is_margin else ">change of all scores"
    table = _table("without", ">events", change, ">95 % interval", *outcomes)
    for row in rows:
        cells = [row["channel"], f"{row['n_events']:,}", f"{row['score_change']:+.1f}"]
        cells.append(_between(row, "score_change", "+.1f"))
        _add_row(table, *cells, *([f"{row['outcome_change']:+.2f}"] if says_outcomes else []))
    out.print(table)
    _show_statement(out, found.about)


def _between(row: dict[str, Any], name: str, form: str) -> str:
    """Return an interval in words; nothing where there is none."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low is None else f"{low:{form}} to {high:{form}}"


def _half_life(time_us: int | None) -> str:
    if time_us is None:
        return "longer than seen"
    seconds = time_us / 1e6
    name, length = next((one for one in _SPANS_S if seconds >= one[1]), _SPANS_S[-1])
    return f"{seconds / length:.1f} {name}s"


def show_recommendations(out: Console, recommendations: Recommendations, vocab: Vocab, user_id: Any) -> None:
    """Print one user's list, each item with its reasons and their sum."""
    for row in recommendations.of(user_id):
        out.print(
            f"{row[schema.RANK]}. {row['title']}   score {row[schema.SCORE]:+.3f}, from {row[schema.SERVED_FROM]}",
            markup=False,
            highlight=False,
        )
        explained, name = row[schema.SCORE], "the model said"
        if recommendations.ledger.note.contrast is not None:
            explained, name = row[schema.MARGIN], _AHEAD
        out.print(_reasons_table(row["reasons"], explained, vocab, name=name))
    if recommendations.ledger.note.exactness == "estimated":
        out.print(f"credits are estimates: {recommendations.ledger.note.how()}", markup=False, highlight=False)


def _reasons_table(
    rows: Sequence[dict[str, Any]],
    score: float,
    vocab: Vocab,
    n_events: int | None = None,
    *,
    name: str = "the model said",
) -> Table:
    title_of = _title_of(vocab)
    table = _table("because of", "when", ">credit")
    events = [row for row in rows if row[schema.SOURCE] in ("event", "social")]
    others = [row for row in rows if row[schema.SOURCE] not in ("event", "social")]
    shown = events if n_events is None else events[:n_events]
    for row in shown:
        action = row[schema.SOURCE_ACTION]
        what = title_of(row[schema.SOURCE_ITEM_ID])
        what += f" ({row[schema.SOURCE_NAME]})" if row[schema.SOURCE_NAME] else ""
        what = what if action in (None, schema.DEFAULT_ACTION) else f"{action} {what}"
        by = f"{row[schema.SOURCE_USER_ID]}: " if row[schema.SOURCE] == "social" else ""
        _add_row(table, by + what, _when(row), _signed(row))
    if len(shown) < len(events):
        left = sum(row[schema.CREDIT] for row in events[len(shown) :])
        _add_row(table, f"{len(events) - len(shown)} more events", "", f"{left:+.4f}")
    for row in others:
        _add_row(table, _label(row, vocab), "", _signed(row))
    table.add_section()
    _add_row(table, f"sum ({name} {score:+.4f})", "", f"{sum(row[schema.CREDIT] for row in rows):+.4f}")
    return table


def _label(row: dict[str, Any], vocab: Vocab) -> str:
    if row[schema.SOURCE] == "rest":
        return "all other events"
    if row[schema.SOURCE] == "baseline":
        return "a history that says nothing"
    if row[schema.SOURCE] == "residual":
        return "what the credits leave over"
    if row[schema.SOURCE] == "bias":
        return "the item itself" if row[schema.HEAD] == "ranking" else "without any event"
    name, features = row[schema.SOURCE_NAME], vocab.user_features
    is_of_user = features is not None and name in features.column_names
    return f"the user's {name}" if is_of_user else f"the {name.replace('_', ' ')}"


def _signed(row: dict[str, Any]) -> str:
    error = row.get(schema.STANDARD_ERROR)
    return f"{row[schema.CREDIT]:+.4f}" + ("" if error is None else f" ± {error:.4f}")


def _when(row: dict[str, Any]) -> str:
    # Events of others have no lag.
    is_social = row[schema.SOURCE] == "social"
    if row[schema.GAP_US if is_social else schema.LAG] is None:
        return "not read at this moment"
    if is_social:
        return f"{_span(row[schema.GAP_US])} before"
    place = "the latest" if row[schema.LAG] == 1 else f"{row[schema.LAG]} events ago"
    # Where the moment is not known, gaps count from the latest event, whose own gap is none.
    return f"{place}, {_span(row[schema.GAP_US])} before" if row[schema.GAP_US] else place


def _span(gap_us: int) -> str:
    seconds = gap_us // 1_000_000
    for name, length in _SPANS_S:
        if seconds >= length:
            n = seconds // length
            return f"{n:,} {name}{'s' if n > 1 else ''}"
    return "less than a second"


def _title_of(vocab: Vocab) -> Callable[[Any], str]:
    def title(item_id: Any) -> str:
        if item_id is None:
            return "an unknown item"
        idx = int(vocab.items.to_idx([item_id])[0])
        return str(item_id) if idx < 0 else vocab.title(idx)

    return title


def _table_of(cells: Sequence[Sequence[str]]) -> Table:
    """Return the table of a header and rows, all but the first column to the right."""
    (first, *others), *body = cells
    table = _table(first, *(">" + name for name in others))
    for row in body:
        _add_row(table, *row)
    return table


def _columns(cells: Sequence[Sequence[str]], places: Sequence[int]) -> list[list[str]]:
    """Return the first column and those at these places."""
    return [[row[0], *(row[place] for place in places)] for row in cells]


def _fits(out: Console, cells: Sequence[Sequence[str]]) -> bool:
    return out.measure(_table_of(cells), options=out.options.update(max_width=1000)).maximum <= out.width


def _add_row(table: Table, *cells: str) -> None:
    # Titles come from data: they are text, not markup, and give no orders to the terminal.
    table.add_row(*(Text(_CONTROL.sub(lambda found: repr(found[0])[1:-1], cell)) for cell in cells))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        # Some are named by columns of a log: they are text, not markup. What is too long is folded: half an id is none.
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        table.add_column(Text(column.removeprefix(">")), justify=justify, overflow="fold")
    return table
