"""What analysts ask of a run, from run folder to run folder: factors, drift, attribution, who moved whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from influent.answers import answers_labels, fitted_on_labels
from influent.data.clock import span_us
from influent.data.events import read_edges
from influent.data.sequences import Sequences
from influent.data.split import SplitConfig
from influent.data.tie_artefacts import find_tie_artefacts
from influent.data.ties import build_ties, co_acting
from influent.errors import ConfigError
from influent.evaluation.likeness import LikenessReport, check_likeness
from influent.influence.attribution import Attribution, attribute
from influent.influence.causes import explain_causes
from influent.influence.drift import Drift, drift
from influent.influence.factors import Factors, factors
from influent.influence.graph import InfluenceGraph, check_split, influence_graph
from influent.influence.journeys import journeys
from influent.influence.leaders import Leaders, leaders
from influent.influence.ledger import Ledger
from influent.models.hawkes import SocialConfig
from influent.models.model import tasks_of
from influent.models.social import Social
from influent.models.social_ranker import SocialRanker, own_part
from influent.models.store import load_model
from influent.progress import Progress
from influent.run import Run, versions, writing
from influent.settings import check_real


def factors_run(
    folder: str | Path,
    *,
    by: Sequence[str] | None = None,
    session_gap: str = "30m",
    rank: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Say what kinds of behaviour have large credits in a run's ledger, and keep tables and page.

    Args:
        by: the factors, by default all there are; the others likewise as for `factors`.
    """
    run, ledger, sequences = _explained(folder)
    found = factors(
        ledger, sequences=sequences, by=by, session_gap=session_gap, rank=rank, seed=seed, progress=progress
    )
    settings = {"by": by, "session_gap": session_gap, "rank": rank, "seed": seed, "versions": versions()}
    with writing(run.folder, "factors", settings, stands_on=run) as new:
        found.save(new)
    return found


def drift_run(
    folder: str | Path,
    *,
    by: Sequence[str] = ("action",),
    window: str = "7d",
    false_alarms: float = 0.02,
    seed: int = 0,
) -> Drift:
    """Say how influence changes over the moments of a run's ledger, and keep tables and page.

    The arguments are those of `drift`; half-lives also come from the run's model, if it ranks and is a sum.
    """
    run, ledger, sequences = _explained(folder)
    model = None if answers_labels(run) else load_model(run.folder)
    found = drift(ledger, sequences=sequences, model=model, by=by, window=window, false_alarms=false_alarms, seed=seed)
    settings = {"by": by, "window": window, "false_alarms": false_alarms, "seed": seed, "versions": versions()}
    with writing(run.folder, "drift", settings, stands_on=run) as new:
        found.save(new)
    return found


def attribute_run(
    folder: str | Path,
    *,
    outcome: Sequence[str] = (),
    by: str = "action",
    half_life: str = "7d",
    seed: int = 0,
) -> Attribution:
    """Put outcomes among a run's explained predictions down to channels, and keep the tables.

    Args:
        outcome: actions; none where the run's model answers a question, whose labels of 1 are the outcomes.
        by: as for `journeys`.
        half_life: as for `attribute`.

    Raises:
        ConfigError: no outcome is named where there has to be one, or the other way round.
        DataError: it never happens.
    """
    run, ledger, sequences = _explained(folder)
    if answers_labels(run) == bool(outcome):
        what = (
            "answers a question, whose labels of 1 are the outcomes: leave the outcome out"
            if outcome
            else "says what comes next: name the actions that are outcomes, such as purchase"
        )
        raise ConfigError(f"the model of {run.folder} {what}.")
    ends = list(outcome) if outcome else fitted_on_labels(run)[1].test
    found = attribute(journeys(ledger, sequences, outcome=ends, by=by), half_life=half_life, seed=seed)
    settings = {"outcome": list(outcome), "by": by, "half_life": half_life, "seed": seed, "versions": versions()}
    with writing(run.folder, "attribute", settings, stands_on=run) as new:
        found.save(new)
    return found


class MovedWhom(NamedTuple):
    """What `graph_run` finds."""

    graph: InfluenceGraph
    leaders: Leaders
    likeness: LikenessReport | None
    """None where ties were read off the log, of which nothing can be tested"""


def graph_run(
    folder: str | Path,
    *,
    edges: str | Path | None = None,
    by: str | None = None,
    period: str | None = None,
    window: str = "7d",
    min_influence: float = 0.0,
    progress: Progress | None = None,
) -> MovedWhom:
    """Say who moved whom in a run's log, beyond what its model expects of users' own pasts, and who leads; keep both.

    Strengths of ties are learned from the training part; what each event of the whole log was an answer to is added up.
    Where ties are given, it is tested whether people are merely alike, and the table of tests is kept and returned.

    Args:
        edges: a file of edges, as for `read_edges`; by default those that the run was fitted along, and where there are
            none, whoever acted on an item after somebody else is tied.
        by: as for `influence_graph`, and `period` likewise.
        window: how long ago an event can be that another is an answer to.

    Raises:
        ConfigError: the run's model ranks nothing, so that it expects nothing of an item, or the log is order-only.
        DataError: no edge ties two users of the log, or nobody has a credit in anybody else's events.
    """
    for span in (window, *([period] if period else [])):
        span_us(span)
    check_real("min_influence", min_influence, 0.0)
    run = Run.open(folder, writes=True)
    run.require("clean")
    settings = run.require("fit")["settings"]
    own = None if answers_labels(run) else load_model(run.folder)
    if own is None or "ranking" not in tasks_of(own):
        raise ConfigError(f"the model in {run.folder} ranks no items. Fit one that does: influent fit {run.folder}")
    given = own.social.ties if isinstance(own, SocialRanker) else None
    # What others add is learned here, so that it is beyond users' own pasts.
    own = own_part(own)
    sequences = Sequences.load(run.folder)
    check_split(by, sequences)
    split = SplitConfig.of(settings["split"]).split(sequences)
    train = split.train
    ties = given if edges is None else build_ties(read_edges(edges), train)
    if ties is None:
        ties = co_acting(train, window=window)
    model = Social(ties, own=own, config=SocialConfig(window=window)).fit(train, progress=progress)
    causes = explain_causes(model, sequences)
    found = influence_graph(causes, by=by, period=period, sequences=sequences, min_influence=min_influence)
    artefacts, likeness = find_tie_artefacts(ties, train, test=split.test), None
    found = replace(found, note=replace(found.note, artefacts=(*ties.sentences(), *artefacts.sentences())))
    if ties.are_given:
        likeness = check_likeness(model, train, artefacts=artefacts, progress=progress)
        found = replace(found, note=replace(found.note, likeness=likeness.sentence()))
    leading = leaders(causes, ties, by=by, period=period, sequences=sequences)
    those_of_the_fit = "those of the fit" if ties is given else None
    about = {"edges": str(edges) if edges else those_of_the_fit, "by": by, "period": period, "window": window}
    kept = {**about, "min_influence": min_influence, "versions": versions()}
    with writing(run.folder, "graph", kept, stands_on=run) as new:
        found.save(new)
        leading.save(new)
        if likeness is not None:
            likeness.save(new)
    return MovedWhom(found, leading, likeness)


def _explained(folder: str | Path) -> tuple[Run, Ledger, Sequences]:
    """Return a run, its ledger and the events that this explains."""
    run = Run.open(folder, writes=True)
    for step in ("clean", "fit", "explain"):
        run.require(step)
    return run, Ledger.load(run.folder), Sequences.load(run.folder)
