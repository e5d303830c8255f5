"""The command line: parse, call the library, print the answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influent import __version__, ledger_verbs
from influent.errors import ConfigError, InfluentError
from influent.options import (
    Action,
    Config,
    Delimiter,
    Device,
    Epochs,
    Item,
    Items,
    Log,
    RunFolder,
    RunOption,
    Scene,
    Seed,
    Seen,
    SeenOption,
    Size,
    SplitAt,
    Target,
    TargetAction,
    Time,
    TimeUnit,
    User,
    Users,
    Value,
)

if TYPE_CHECKING:
    from influent.data.split import SplitConfig
    from influent.progress import Progress

app = typer.Typer(
    name="influent",
    help="Predict what each user does next, and say in numbers that add up which earlier behaviours led there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Reasons(StrEnum):
    """Whether reasons say what carries an item past its rivals, or what its score is the sum of."""

    contrast = "contrast"
    score = "score"


_STATE = {"debug": False}


def _of_labels(help_: str, *names: str) -> Any:
    """Return an option of what `fit --ask` asks; the TOML section [label] has the same under its own names."""
    return typer.Option(*names, help=help_, rich_help_panel="Questions, with --ask")


@app.callback(invoke_without_command=True)
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    _STATE["debug"] = debug
    if version:
        typer.echo(f"influent {__version__}")
        raise typer.Exit


@app.command()
def clean(
    log: Log,
    run: RunOption,
    user: User = None,
    item: Item = None,
    time: Time = None,
    action: Action = None,
    value: Value = None,
    scene: Scene = None,
    time_unit: TimeUnit = None,
    delimiter: Delimiter = None,
    items: Items = None,
    users: Users = None,
    number: Annotated[
        list[str], typer.Option(help="Numeric column that belongs to an event, beside the value; repeatable.")
    ] = [],  # noqa: B006  (Typer copies it)
    category: Annotated[
        list[str],
        typer.Option(help="Column of strings or integers that belongs to an event, beside the scene; repeatable."),
    ] = [],  # noqa: B006
    min_user_events: Annotated[int, typer.Option(help="Fewest events of a user.")] = 1,
    min_item_events: Annotated[int, typer.Option(help="Fewest events of an item.")] = 1,
    since: Annotated[str | None, typer.Option(help="First moment kept, ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="First moment no longer kept, ISO 8601.")] = None,
    value_mads: Annotated[float | None, typer.Option(help="Drop values this many deviations off the median.")] = None,
    max_events_per_day: Annotated[int | None, typer.Option(help="Drop users who ever do more on a day.")] = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Keep exact duplicates.")] = False,
) -> None:
    """Read a log, drop what cannot be learned from, say what and why, and begin a run folder."""
    from influent import show, steps

    columns = _columns(user, item, time, action, value, scene, time_unit, delimiter)
    rules: dict[str, Any] = {
        "min_user_events": min_user_events,
        "min_item_events": min_item_events,
        "value_mads": value_mads,
        "max_events_per_day": max_events_per_day,
        "drop_duplicates": not keep_duplicates,
    }
    if since or until:
        rules["time_range"] = (since or "0001-01-01", until or "9999-12-31")
    cleaned = steps.clean_log(
        log,
        run,
        columns=columns,
        rules=rules,
        items=items,
        users=users,
        # Each once, whether the log has it under its own name or the user named it too.
        numbers=list(dict.fromkeys(["value", *number])),
        categories=list(dict.fromkeys(["scene", *category])),
        progress=_progress(),
    )
    show.show_cleaning(show.console(), cleaned.report, cleaned.artefacts)
    typer.echo(f"written: {run}")


@app.command()
def fit(
    run: RunFolder,
    model: Annotated[
        str | None,
        typer.Option(
            help="additive (as by default), feedback; black boxes: sasrec, hstu, gru, lstm; of a ranking counts, ease, "
            "…; with --ask logistic, svm, ridge, mlp, boosting."
        ),
    ] = None,
    size: Size = None,
    task: Annotated[
        list[str], typer.Option(help="ranking (as by default): what comes next; time: when; repeatable.")
    ] = [],  # noqa: B006
    split: Annotated[
        str | None, typer.Option(help="last (as by default), or a time or share of events where test begins.")
    ] = None,
    target: Target = "first",
    target_action: TargetAction = [],  # noqa: B006
    config: Annotated[Path | None, typer.Option(help=r"TOML with \[model], \[train] and \[label] settings.")] = None,
    context: Annotated[
        list[str],
        typer.Option(help="User feature, category, hour_of_day or day_of_week with a line of its own; repeatable."),
    ] = [],  # noqa: B006
    gate: Annotated[str | None, typer.Option(help="event, or query: weights also depend on the latest event.")] = None,
    members: Annotated[int, typer.Option(help="How many trainings become their mean.")] = 1,
    edges: Annotated[
        Path | None,
        typer.Option(help="source_user_id, target_user_id: what people one is tied to just did is added to scores."),
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Read items' titles, texts and categories too, through a packaged encoder.")
    ] = False,
    vectors: Annotated[
        list[Path], typer.Option(help="item_id, vector: what is known of items; called by the file; repeatable.")
    ] = [],  # noqa: B006
    refit: Annotated[bool, typer.Option("--refit", help="Fit again with the validation events, to deploy.")] = False,
    seen: Annotated[Seen | None, typer.Option(help="Whether validation lets items of the history come again.")] = None,
    track: Annotated[list[str], typer.Option(help="Also tell tensorboard or mlflow of each epoch; repeatable.")] = [],  # noqa: B006
    epochs: Epochs = None,
    seed: Seed = None,
    device: Device = None,
    ask: Annotated[str | None, _of_labels("will_do, amount_within, of_events or number_of_events.")] = None,
    horizon: Annotated[str | None, _of_labels("How far ahead: 28d; also s, m (minutes), h and w.")] = None,
    action: Annotated[list[str], _of_labels("What counts, by default any action; repeatable.")] = [],  # noqa: B006
    absent: Annotated[bool, _of_labels("Ask who stays away instead: churn.", "--absent")] = False,
    number: Annotated[str | None, _of_labels("Which number of an event; value by default.")] = None,
    log: Annotated[bool, _of_labels("Ask for log1p of the number.", "--log")] = False,
    positive: Annotated[list[str], _of_labels("Action that makes an event a 1; repeatable.")] = [],  # noqa: B006
    among: Annotated[list[str], _of_labels("Action asked about, the positive too; repeatable.")] = [],  # noqa: B006
    cutoff: Annotated[str | None, _of_labels("Time, or share, where test begins; late by default.")] = None,
    n_cutoffs: Annotated[int | None, _of_labels("How many moments to train at; 1 by default.")] = None,
    validation_users: Annotated[float | None, _of_labels("Of a short log, the share to validate with.")] = None,
) -> None:
    """Fit a model on the training part of a run; a fit that was killed goes on where it stopped."""
    from influent import steps
    from influent.answers import fit_labels_run
    from influent.data.questions import LabelConfig
    from influent.models.config import TrainConfig
    from influent.models.kinds import model_config, read_settings

    settings = read_settings(config, ("model", "train", "label"))
    asked = _given(
        ask=ask,
        horizon=horizon,
        actions=action,
        absent=absent or None,
        number=number,
        log=log or None,
        positive=positive,
        among=among,
        cutoff=cutoff,
        n_cutoffs=n_cutoffs,
        validation_users=validation_users,
    )
    label = {**settings.get("label", {}), **asked}
    train = {**settings.get("train", {}), **_given(epochs=epochs, seed=seed, device=device, seen=seen)}
    flags = _given(size=size, gate=gate, context=context, target_actions=target_action)
    of_model = {**settings.get("model", {}), **flags}
    shared: dict[str, Any] = {
        "kind": model,
        "model": model_config(model, of_model) if of_model else None,
        "train": TrainConfig.from_dict(train) if train else None,
        "track": track,
        "progress": _progress(),
    }
    parts = _split(split, target, target_action)
    if label:
        if task or parts or edges or refit or members != 1 or text or vectors:
            raise ConfigError(
                "--task, --split, --target, --target-action, --members, --edges, --text, --vectors and --refit go with "
                "ranking and time. A question has --action and --cutoff."
            )
        answering, labels = fit_labels_run(run, LabelConfig.from_dict(label), **shared)
        what = f"{answering.name} on {len(labels.train):,} questions of {labels.train.name!r}"
        typer.echo(f"fitted: {what}, split {labels.hash} ({labels.protocol})")
    else:
        tasks: Any = task or ["ranking"]
        more: dict[str, Any] = {"split": parts, "n_members": members, "edges": edges, "refit": refit}
        more |= {"text": text, "vectors": vectors}
        fitted, events = steps.fit_run(run, tasks=tasks, **more, **shared)
        learned = events.train_and_validation if refit else events.train
        what = f"{fitted.name} on {len(learned):,} events"
        typer.echo(f"fitted: {what}, split {events.hash} ({events.protocol})")
    typer.echo(f"written: {run}")


@app.command()
def tune(
    run: RunFolder,
    trials: Annotated[int, typer.Option(help="How many settings to try, those of before included.")] = 20,
    model: Annotated[str | None, typer.Option(help="additive (as by default), feedback, sasrec, hstu, …")] = None,
    size: Size = None,
    split: SplitAt = None,
    target: Target = "first",
    target_action: TargetAction = [],  # noqa: B006
    config: Annotated[Path | None, typer.Option(help=r"TOML with \[model], \[train] and \[space] to search.")] = None,
    pruner: Annotated[str, typer.Option(help="median gives up what is behind; none lets each trial end.")] = "median",
    seen: Annotated[Seen | None, typer.Option(help="Whether validation lets items of the history come again.")] = None,
    epochs: Epochs = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Search the settings with the best validation score; test events are never looked at."""
    from influent import choose, show
    from influent.models.kinds import read_settings

    settings = read_settings(config, ("model", "train", "space"))
    parts = _split(split, target, target_action) or choose.split_of(run)
    of_model = _given(size=size, target_actions=parts.actions)
    tuned = choose.tune_run(
        run,
        kind=model,
        model={**settings.get("model", {}), **of_model},
        train={**settings.get("train", {}), **_given(epochs=epochs, seed=seed, device=device, seen=seen)},
        space=settings.get("space"),
        n_trials=trials,
        pruner=pruner,  # type: ignore[arg-type]
        seed=seed or 0,
        split=parts,
        progress=_progress(),
    )
    show.show_tuned(show.console(), tuned)
    typer.echo(f"written: {run / 'tuned.toml'}")


@app.command()
def compare(
    run: RunFolder,
    model: Annotated[
        list[str],
        typer.Option(help="A model as in fit, or sasrec=FILE.toml with settings of its own; repeatable."),
    ] = ["additive", "sasrec", "counts"],  # noqa: B006
    k: Annotated[list[int], typer.Option(help="Length of the list that is judged; repeatable.")] = [10],  # noqa: B006
    seen: SeenOption = Seen.exclude,
    size: Size = None,
    split: SplitAt = None,
    target: Target = "first",
    target_action: TargetAction = [],  # noqa: B006
    config: Config = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Judge models fitted again with the validation events.")
    ] = False,
    explained: Annotated[int, typer.Option(help="Test moments to explain, of as many users.")] = 200,
    epochs: Epochs = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Put models side by side: accuracy, time, memory, and how exact their credits are."""
    from influent import choose, show
    from influent.models.kinds import new_models, read_settings

    parts = _split(split, target, target_action) or choose.split_of(run)
    file = read_settings(config)
    shared = {**file, "train": {"seen": seen.value, **file.get("train", {})}}
    wins = {
        "model": _given(size=size, target_actions=parts.actions),
        "train": _given(epochs=epochs, seed=seed, device=device),
    }
    report = choose.compare_run(
        run,
        new_models(model, shared=shared, wins=wins),
        k=k,
        seen=seen.value,
        split=parts,
        refit=refit,
        n_explained=explained,
        progress=_progress(),
    )
    show.show_comparison(show.console(), report)
    typer.echo(f"written: {run / 'comparison.md'}")


@app.command()
def evaluate(
    run: RunFolder,
    k: Annotated[
        list[int] | None,
        typer.Option(help="Of a ranking: length of the list that is judged, 10 by default; repeatable."),
    ] = None,
    seen: Annotated[
        Seen | None, typer.Option(help="Of a ranking: whether items of the history may come again; not by default.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of times: s, m, h, d or w; h by default.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of a classification: the probability that counts as a 1; 0.5 by default.")
    ] = None,
    faithfulness: Annotated[
        bool, typer.Option("--faithfulness", help="Judge the credits instead: take events out, and see what changes.")
    ] = False,
    method: Annotated[
        list[str], typer.Option(help="With --faithfulness: a way to credits, by default all that fit; repeatable.")
    ] = [],  # noqa: B006
    moments: Annotated[int | None, typer.Option(help="With --faithfulness: how many users; 200 by default.")] = None,
) -> None:
    """Judge a run's model on its test part, beside simple ones: a ranking, times, or answers; or judge its credits."""
    from influent import show, steps

    settings = _given(k=k, seen=seen, unit=unit, threshold=threshold)
    of_faithfulness = _given(methods=method, n_moments=moments)
    if settings if faithfulness else of_faithfulness:
        raise ConfigError(
            "--method and --moments go with --faithfulness, and --k, --seen, --unit and --threshold without it."
        )
    if faithfulness:
        found = steps.faithfulness_run(run, **of_faithfulness, progress=_progress())
        show.show_faithfulness(show.console(), found)
        typer.echo(f"written: {run / 'faithfulness.md'}")
        return
    reports = steps.evaluate_run(run, **settings, progress=_progress())
    for report, name in zip(reports, ("evaluation.md", "evaluation_times.md"), strict=False):
        show.show_report(show.console(), report)
        typer.echo(f"written: {run / name}")


@app.command()
def explain(
    run: RunFolder,
    user: Annotated[list[str] | None, typer.Option(help="Explain this user's latest moment; repeatable.")] = None,
    item: Annotated[list[str] | None, typer.Option(help="Explain this item; repeatable.")] = None,
    top: Annotated[int | None, typer.Option(help="Events with a row of their own; the rest is one row.")] = None,
    contrast: Annotated[int | None, typer.Option(help="Explain an item against its best rivals, this many.")] = None,
    against: Annotated[str | None, typer.Option(help="Explain --item against this one: why it, and not this.")] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="With --user: how the score has changed since 7d before the latest event: why now, not then."
        ),
    ] = None,
    by_part: Annotated[
        bool, typer.Option("--by-part", help="Split each event's credit by what of it counted.")
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="exact; estimates: leave_one_out, shapley, integrated_gradients, gradient, attention, similarity."
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="With shapley: how many orders of the events to draw.")] = None,
    steps: Annotated[int | None, typer.Option(help="With integrated_gradients: points of the path.")] = None,
    seed: Annotated[int | None, typer.Option(help="With shapley: where the draw comes from.")] = None,
) -> None:
    """Say which earlier events led to each score, answer or gap: for the whole test part, or for one user."""
    from influent import show
    from influent.data.vocab import Vocab
    from influent.steps import explain_run

    ledger = explain_run(
        run,
        users=user,
        items=item,
        top=top,
        contrast=contrast,
        against=against,
        before=before,
        by_part=by_part,
        method=method,  # type: ignore[arg-type]
        n_samples=samples,
        n_steps=steps,
        seed=seed,
        progress=_progress(),
    )
    out, vocab = show.console(), Vocab.load(run)
    for prediction_id in range(len(ledger) if user else 1):
        show.show_ledger(out, ledger, vocab, prediction_id, n_events=10)
    typer.echo(
        f"{len(ledger):,} predictions, {ledger.table.num_rows:,} credits; histories read: {ledger.note.n_passes:,}"
    )
    typer.echo("\n".join(ledger.statement()))
    if not user:
        typer.echo(f"written: {run / 'ledger.parquet'}")


for verb in (ledger_verbs.factors, ledger_verbs.drift, ledger_verbs.attribute, ledger_verbs.graph):
    app.command()(verb)


@app.command()
def recommend(
    run: RunFolder,
    user: Annotated[list[str] | None, typer.Option(help="Recommend to this user only; repeatable.")] = None,
    k: Annotated[int, typer.Option(help="Length of each list.")] = 10,
    seen: SeenOption = Seen.exclude,
    candidate: Annotated[list[str] | None, typer.Option(help="Recommend only this item; repeatable.")] = None,
    exclude: Annotated[list[str], typer.Option(help="Never recommend this item; repeatable.")] = [],  # noqa: B006
    reasons: Annotated[
        Reasons, typer.Option(help="contrast: what carries it past its rivals; score: what its score is made of.")
    ] = Reasons.contrast,
    n_reasons: Annotated[int, typer.Option(help="Events named as reasons for each item.")] = 3,
    events: Annotated[str | None, typer.Option(help="A log of other events to recommend from.")] = None,
    user_column: Annotated[str | None, typer.Option(help="Its column that says who.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Its column that says to what.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Its column that says when.")] = None,
    action_column: Annotated[str | None, typer.Option(help="Its column that says what was done.")] = None,
    value_column: Annotated[str | None, typer.Option(help="Its column with a number.")] = None,
    scene_column: Annotated[str | None, typer.Option(help="Its column that says where it happened.")] = None,
) -> None:
    """Recommend with reasons: to every user of a run, to some, or to whoever is in other events."""
    from influent import show, steps
    from influent.data.vocab import Vocab

    columns = _columns(user_column, item_column, time_column, action_column, value_column, scene_column)
    if columns and events is None:
        raise ConfigError("columns are those of other events. Name them: --events LOG.")
    found = steps.recommend_run(
        run,
        users=user,
        events=events,
        columns=columns,
        progress=_progress(),
        k=k,
        seen=seen.value,
        candidates=candidate,
        exclude=exclude,
        n_reasons=n_reasons,
        reasons=reasons.value,
    )
    out, vocab = show.console(), Vocab.load(run)
    users = list(dict.fromkeys(found.table.column("user_id").to_pylist()))
    for someone in users if user or events else users[:1]:
        typer.echo(f"for user {someone}:")
        show.show_recommendations(out, found, vocab, someone)
    for someone in sorted(set(user or ()) - set(map(str, users))):
        typer.echo(f"for user {someone}: nothing is left that may be recommended.")
    if user is None and events is None:
        typer.echo(f"written: {run / 'recommendations.parquet'} ({len(users):,} users)")


@app.command()
def demo(
    log: Annotated[str | None, typer.Argument(help="A log of your own; without one, a planted world.")] = None,
    run: RunOption = Path("runs/demo"),
    user: User = None,
    item: Item = None,
    time: Time = None,
    action: Action = None,
    value: Value = None,
    scene: Scene = None,
    time_unit: TimeUnit = None,
    delimiter: Delimiter = None,
    items: Items = None,
    seen: SeenOption = Seen.exclude,
) -> None:
    """Go the whole way in one command: clean, fit, evaluate, explain, recommend."""
    from influent import demo as whole_path
    from influent import show

    columns = _columns(user, item, time, action, value, scene, time_unit, delimiter)
    if log is None:
        if columns or items or seen is not Seen.exclude:
            raise ConfigError("columns, --items and --seen are of a log of your own. Name it: influent demo LOG …")
        whole_path.run_demo(run, show.console(), _progress())
        return
    whole_path.run_on_log(log, run, show.console(), _progress(), columns=columns, items=items, seen=seen.value)


def _columns(
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    action: str | None = None,
    value: str | None = None,
    scene: str | None = None,
    time_unit: str | None = None,
    delimiter: str | None = None,
) -> dict[str, Any]:
    """Return the arguments of `read_events` that were given."""
    return _given(
        user=user,
        item=item,
        time=time,
        action=action,
        value=value,
        scene=scene,
        time_unit=time_unit,
        delimiter=delimiter,
    )


def _split(at: str | None, target: str, actions: Sequence[str]) -> SplitConfig | None:
    """Return what was asked for, or None where nothing was."""
    from influent.data.split import SplitConfig

    if at is None and not actions and target == "first":
        return None
    return SplitConfig(at=at or "last", target=target, actions=tuple(actions))  # type: ignore[arg-type]


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given, as plain values."""
    plain = {name: value.value if isinstance(value, StrEnum) else value for name, value in options.items()}
    return {name: value for name, value in plain.items() if value is not None and value != [] and value != ()}


def _progress() -> Progress:
    from influent.progress import progress_for

    return progress_for(sys.stderr)


@contextmanager
def _one_message() -> Iterator[None]:
    """Turn what a user can mend into one message and exit code 2."""
    try:
        yield
    except InfluentError as error:
        if _STATE["debug"]:
            raise
        typer.echo(f"influent: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if _STATE["debug"]:
            raise
        typer.echo(f"influent: {error}", err=True)
        sys.exit(2)


def main() -> None:
    """Run the command line."""
    with _one_message():
        app(standalone_mode=True)
