"""The verbs of the command line that analyse a run: factors, drift, attribute, graph."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from influent.options import RunFolder, Seed
from influent.progress import progress_for


def factors(
    run: RunFolder,
    by: Annotated[list[str], typer.Option(help="A factor, by default all there are; repeatable.")] = [],  # noqa: B006
    session_gap: Annotated[str, typer.Option(help="A session ends where nothing follows for this long.")] = "30m",
    rank: Annotated[bool, typer.Option(help="Rank factors and adjust them for each other.")] = True,
    seed: Seed = None,
) -> None:
    """Say what makes a behaviour influential: the size of credits by action, distance, scene, item, user and time."""
    from influent import analyses, show

    found = analyses.factors_run(
        run, by=by or None, session_gap=session_gap, rank=rank, seed=seed or 0, progress=progress_for(sys.stderr)
    )
    show.show_factors(show.console(), found)
    typer.echo(f"written: {run / 'factors.html'}")


def drift(
    run: RunFolder,
    window: Annotated[str, typer.Option(help="Length of a calendar window: 7d; also s, m (minutes), h, w.")] = "7d",
    by: Annotated[list[str], typer.Option(help="A factor whose levels are looked at; repeatable.")] = ["action"],  # noqa: B006
    false_alarms: Annotated[float, typer.Option(help="How often a log without change may raise the alarm.")] = 0.02,
    seed: Seed = None,
) -> None:
    """Say how influence changes: by calendar window, where it breaks, how long it lasts, by cohort."""
    from influent import analyses, show

    found = analyses.drift_run(run, by=by, window=window, false_alarms=false_alarms, seed=seed or 0)
    show.show_drift(show.console(), found)
    typer.echo(f"written: {run / 'drift.html'}")


def attribute(
    run: RunFolder,
    outcome: Annotated[list[str], typer.Option(help="Action that is an outcome; repeatable.")] = [],  # noqa: B006
    by: Annotated[str, typer.Option(help="What a channel is: action, scene, another category or feature.")] = "action",
    half_life: Annotated[str, typer.Option(help="Of the rule time_decay: 7d; also s, m (minutes), h, w.")] = "7d",
    seed: Seed = None,
) -> None:
    """Put outcomes down to channels: by credits, and by first and last touch, linear, decay, position and Markov."""
    from influent import analyses, show

    found = analyses.attribute_run(run, outcome=outcome, by=by, half_life=half_life, seed=seed or 0)
    show.show_attribution(show.console(), found)
    typer.echo(f"written: {run / 'attribution.parquet'}")


def graph(
    run: RunFolder,
    edges: Annotated[
        Path | None,
        typer.Option(help="Who is tied to whom: source_user_id, target_user_id; else those of fit, or all co-acting."),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Split edges: action, scene, another factor, item_id.")] = None,
    period: Annotated[str | None, typer.Option(help="Split edges by calendar windows of this length: 30d.")] = None,
    window: Annotated[str, typer.Option(help="How long ago what an event answers can be: 7d; also s, m, h, w.")] = "7d",
    min_influence: Annotated[float, typer.Option(help="Leave out edges with less.")] = 0.0,
    export: Annotated[
        list[Path], typer.Option(help="Also write the graph: who.graphml or who.gexf; needs networkx; repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Say who moved whom: whose events others' events were answers to, beyond what their own past expects."""
    from influent import analyses, show
    from influent.influence.graph import check_export

    for path in export:
        check_export(path)
    found = analyses.graph_run(
        run,
        edges=edges,
        by=by,
        period=period,
        window=window,
        min_influence=min_influence,
        progress=progress_for(sys.stderr),
    )
    show.show_graph(show.console(), found.graph, found.leaders)
    if found.likeness is not None:
        show.show_likeness(show.console(), found.likeness)
    for path in export:
        found.graph.export(path)
        typer.echo(f"written: {path}")
    typer.echo(f"written: {run / 'edges.parquet'}")
