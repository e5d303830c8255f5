"""Each step of the way from a log to recommendations, from run folder to run folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from influent.answers import answers_labels, ask_now, fitted_on_labels, judge_answers
from influent.data.artefacts import Artefacts, find_artefacts
from influent.data.clean import CleaningReport, clean
from influent.data.clock import span_us, unit_us
from influent.data.engine import Engine
from influent.data.events import Features, read_edges, read_events, read_items, read_users
from influent.data.moments import Moments, latest_moments, moments_of, now_and_before
from influent.data.sequences import Sequences, build_sequences
from influent.data.split import Split, SplitConfig
from influent.data.ties import Ties, build_ties
from influent.data.vectors import ItemVectors, read_vectors, reduce_vectors
from influent.data.vocab import UNKNOWN, Vocab
from influent.errors import ConfigError, SchemaError
from influent.evaluation.audit import audit
from influent.evaluation.faithfulness import FaithfulnessReport, check_faithfulness, credits_by
from influent.evaluation.report import Comparison, check_lengths, evaluate
from influent.evaluation.times import NextEventModel, evaluate_times
from influent.influence.difference import explain_difference
from influent.influence.explain import TimeModel, explain, explain_gap
from influent.influence.ledger import Ledger
from influent.models.config import ModelConfig, TrainConfig
from influent.models.item_to_item import DecayedCounts, Popularity
from influent.models.kinds import check_choice, model_config
from influent.models.methods import MethodName
from influent.models.model import Model, Refittable, tasks_of
from influent.models.ranks import Seen
from influent.models.social import check_times
from influent.models.social_ranker import SocialRanker, own_part
from influent.models.store import COUNTED, load_model
from influent.models.tracking import following
from influent.progress import Progress
from influent.recommendations import Recommendations, recommend
from influent.run import BEFORE_REFIT, Run, check_place, fitting, versions, writing
from influent.settings import check_int

if TYPE_CHECKING:
    from influent.models.predictor import Predictor


@dataclass(frozen=True)
class Cleaned:
    """What `clean_log` made."""

    report: CleaningReport
    artefacts: Artefacts
    sequences: Sequences


def clean_log(
    log: Any,
    folder: str | Path,
    *,
    columns: Mapping[str, Any] | None = None,
    rules: Mapping[str, Any] | None = None,
    items: Any = None,
    users: Any = None,
    numbers: Sequence[str] = ("value",),
    categories: Sequence[str] = ("scene",),
    memory_limit_bytes: int | None = None,
    progress: Progress | None = None,
) -> Cleaned:
    """Read and clean a log, put it in order, and begin a run folder with it.

    Args:
        columns: arguments of `read_events`.
        rules: arguments of `clean`.
        items: a table of items (`item_id`, `title`, …), as for `read_items`.
        users: a table of users, as for `read_users`.
        numbers: as for `build_sequences`.
        categories: likewise.
    """
    progress = progress or Progress()
    check_place(folder)
    engine = Engine(memory_limit_bytes=memory_limit_bytes)
    events = clean(read_events(log, engine=engine, **(columns or {})), **(rules or {}), progress=progress)
    sequences = build_sequences(
        events,
        items=None if items is None else _read_beside(read_items, items, "item", columns),
        users=None if users is None else _read_beside(read_users, users, "user", columns),
        numbers=numbers,
        categories=categories,
        progress=progress,
    )
    artefacts = find_artefacts(sequences)
    report = events.cleaning
    settings = {
        "log": str(log) if isinstance(log, str | Path) else type(log).__name__,
        "columns": columns or {},
        "rules": rules or {},
        "numbers": sequences.number_names,
        "categories": sequences.category_names,
        "versions": versions(),
    }
    with writing(folder, "clean", settings) as new:
        engine.write_parquet(f"SELECT * FROM {events.name} ORDER BY event_id", new / "events.parquet")
        _write_json(new / "cleaning.json", {**report.to_dict(), "artefacts": artefacts.to_dict()})
        sequences.save(new)
    return Cleaned(report, artefacts, sequences)


def fit_run(
    folder: str | Path,
    *,
    tasks: Sequence[Literal["ranking", "time"]] = ("ranking",),
    kind: str | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    split: SplitConfig | None = None,
    n_members: int = 1,
    edges: str | Path | None = None,
    text: bool = False,
    vectors: Sequence[str | Path] = (),
    refit: bool = False,
    track: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Model, Split]:
    """Fit a model on the training part of a run's sequences; goes on where an earlier, killed fit stopped.

    Args:
        tasks: what to learn, `ranking`, `time`, or both over one state; the first decides when training stops.
        kind: what `ModelConfig.backbone` may be, or one of the models that only count: see
            `influent.models.store.COUNTED`. By default what `model` says.
        n_members: how many trainings of a model that learns by gradient become their mean (`Ensemble`).
        edges: a file of edges, as for `read_edges`: what people that a user is tied to did is then added to the scores
            of a ranking (`SocialRanker`).
        text: whether a model that learns by gradient also reads what the log's items are called and about, through the
            packaged encoder (extra `text`).
        vectors: files of item vectors, as for `read_vectors`, which it also reads; each is called by its file.
        refit: fit again with the validation events and keep that model, as one would to deploy it; the one before
            is kept beside it, and `evaluate_run` judges both.
        track: who else is told of each epoch, beside the run folder: `tensorboard`, `mlflow`. Lines of JSON are
            written there in any case while the fit is running.
    """
    run, split_config = Run.open(folder, writes=True), split or SplitConfig()
    run.require("clean")
    parts = split_config.split(Sequences.load(run.folder))
    kind = kind or (model or ModelConfig()).backbone
    _check_fit(kind, tasks, model=model, train=train, track=track, n_members=n_members)
    if edges is not None and tuple(tasks) != ("ranking",):
        raise ConfigError(f"edges go with ranking alone, and this fit is for {' and '.join(tasks)}. Leave one out.")
    if (text or vectors) and kind in COUNTED:
        raise ConfigError(f"the model {kind!r} only counts, and reads no vectors of items. Leave text and vectors out.")
    ties = None if edges is None else _ties(edges, parts.train, progress)
    blocks = _blocks(parts.train.vocab, text, vectors, progress)
    with fitting(run.folder) as checkpoint:
        fitted: Refittable
        if kind in COUNTED:
            fitted = COUNTED[kind]().fit(parts.train, progress=progress)
        else:
            from influent.models.predictor import Predictor

            base = Predictor(task=tasks, model=model or model_config(kind, {}), train=train)
            fitted = _learned(base, parts, blocks, n_members, run.folder, checkpoint, track, progress)
        if ties is not None:
            fitted = SocialRanker(ties, own=fitted).fit(parts.train, parts.validation, progress=progress)
        refitted = fitted.refit(parts.train_and_validation, progress=progress) if refit else None
        about = {"n_members": n_members, "edges": edges, "text": text, "vectors": vectors}
        settings = {"split": asdict(split_config), "split_hash": parts.hash, **about, "versions": versions()}
        with writing(folder, "fit", settings, stands_on=run) as new:
            if refitted is not None:
                (new / BEFORE_REFIT).mkdir(exist_ok=True)
                fitted.save(new / BEFORE_REFIT)
            fitted = refitted or fitted
            fitted.save(new)
    return fitted, parts


def _check_fit(
    kind: str,
    tasks: Sequence[str],
    *,
    model: ModelConfig | None,
    train: TrainConfig | None,
    track: Sequence[str],
    n_members: int,
) -> None:
    """Refuse what does not go together, before anything is learned."""
    if not tasks or not set(tasks) <= {"ranking", "time"}:
        raise ConfigError(
            f"tasks must be ranking, time, or both. Got {', '.join(tasks) or 'none'}. Classification and regression "
            "are asked of labels: influent fit RUN --ask will_do …, or fit_labels_run."
        )
    check_choice(kind, tasks, model=model, train=train, track=track)
    check_int("members", n_members, 1)
    if n_members != 1 and kind in COUNTED:
        raise ConfigError("a model that only counts is the same each time, so it has one member. Leave 'members' out.")


def _learned(
    base: Predictor,
    parts: Split,
    blocks: Sequence[ItemVectors],
    n_members: int,
    folder: Path,
    checkpoint: Path,
    track: Sequence[str],
    progress: Progress | None,
) -> Refittable:
    """Fit a model that learns by gradient, or several that differ in their seed."""
    from influent.models.ensemble import Ensemble

    model: Predictor | Ensemble = base
    if n_members != 1:
        # Members have a checkpoint each, in a folder.
        model, checkpoint = Ensemble(base, n_members=n_members), checkpoint.with_suffix("")
    plain = {**asdict(base.model), **asdict(base.train)}
    with following(track, folder, name=base.model.backbone, settings=plain) as trackers:
        return model.fit(
            parts.train,
            parts.validation,
            vectors=blocks,
            checkpoint=checkpoint,
            trackers=trackers,
            progress=progress,
        )


def evaluate_run(
    folder: str | Path,
    *,
    k: Sequence[int] | None = None,
    seen: Seen | None = None,
    against: Sequence[Model] | None = None,
    unit: str | None = None,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Judge a run's model by what it was fitted for, on the test part, and keep a report of each.

    A ranking stands beside models that only count, times beside a constant rate, and answers to labels beside
    classical models, all fitted on the same events. Where ranking and time were learned together there are two
    reports, in this order.

    Args:
        k: of a ranking, the lengths of the lists that are judged; by default 10.
        seen: of a ranking, whether items of the history may come again; by default they may not.
        against: of a ranking, the models to stand beside it; by default popularity and decayed counts.
        unit: of times, the unit of densities and errors: s, m (minutes), h, d or w; by default h.
        threshold: of a classification, the probability that counts as a 1; by default 0.5.

    Raises:
        ConfigError: an argument is out of range, or is for something that the model was not fitted for.
    """
    run = Run.open(folder, writes=True)
    given = {"k": k, "seen": seen, "against": against, "unit": unit, "threshold": threshold}
    if answers_labels(run):
        answering, labels = fitted_on_labels(run)
        _check_given(given, [labels.test.kind])
        reports: dict[str, Comparison] = {}
        reports["evaluation"] = judge_answers(answering, labels, threshold=threshold, progress=progress)
    else:
        model, parts = _fitted(run)
        _check_given(given, tasks_of(model))
        reports = _judge_what_comes_next(run, model, parts, k, seen, against, unit, progress)
    settings = {name: value for name, value in given.items() if value is not None and name != "against"}
    with writing(run.folder, "evaluate", settings, stands_on=run) as new:
        for name, report in reports.items():
            (new / f"{name}.json").write_text(report.to_json())
            (new / f"{name}.md").write_text(report.to_markdown())
    return list(reports.values())


def _judge_what_comes_next(
    run: Run,
    model: Model,
    parts: Split,
    k: Sequence[int] | None,
    seen: Seen | None,
    against: Sequence[Model] | None,
    unit: str | None,
    progress: Progress | None,
) -> dict[str, Comparison]:
    """Return a report for each task, by the name of its files."""
    about: dict[str, Any] = {"protocol": parts.protocol, "split": parts.hash, "progress": progress}
    before = run.folder / BEFORE_REFIT
    models = [model, load_model(before)] if before.is_dir() else [model]
    reports: dict[str, Comparison] = {}
    if "ranking" in tasks_of(model):
        check_lengths(k := (10,) if k is None else k)
        others = [Popularity(), DecayedCounts()] if against is None else against
        known = {one.name for one in models}
        rivals = [other.fit(parts.train, progress=progress) for other in others if other.name not in known]
        reports["evaluation"] = evaluate([*models, *rivals], parts.test, k=k, seen=seen or "exclude", **about)
    if "time" in tasks_of(model):
        # Only a predictor is fitted for time, and it has all that is judged.
        timed, unit_s = cast(list[NextEventModel], models), unit_us(unit or "h") / 1e6
        name = "evaluation_times" if reports else "evaluation"
        reports[name] = evaluate_times(timed, parts.test, unit_s=unit_s, items=bool(reports), **about)
    return reports


def faithfulness_run(
    folder: str | Path,
    *,
    methods: Sequence[MethodName] | None = None,
    n_moments: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> FaithfulnessReport:
    """Hold the credits of a run's model against what it does when events are taken out, and keep the report.

    Args:
        methods: ways to give credit; by default all that fit the model.
        n_moments: how many test moments, one a user at most.

    Raises:
        ConfigError: the model ranks nothing, or a method does not fit it.
    """
    run = Run.open(folder, writes=True)
    if answers_labels(run):
        raise ConfigError(
            f"faithfulness is of rankings, and this run's model answers questions. Fit one that ranks: influent fit "
            f"{run.folder}"
        )
    model, parts = _fitted(run)
    if "ranking" not in tasks_of(model):
        raise ConfigError("faithfulness is of rankings, and this run's model ranks nothing. Fit with --task ranking.")
    report = check_faithfulness(
        model,
        parts.test,
        train=parts.train,
        methods=credits_by(own_part(model), methods),
        n_moments=n_moments,
        protocol=parts.protocol,
        split=parts.hash,
        seed=seed,
        progress=progress,
    )
    settings = {"methods": methods, "n_moments": n_moments, "seed": seed, "versions": versions()}
    with writing(run.folder, "faithfulness", settings, stands_on=run) as new:
        (new / "faithfulness.json").write_text(report.to_json())
        (new / "faithfulness.md").write_text(report.to_markdown())
    return report


def explain_run(
    folder: str | Path,
    *,
    users: Sequence[Any] | None = None,
    items: Sequence[Any] | None = None,
    top: int | None = None,
    contrast: int | None = None,
    against: Any = None,
    before: str | None = None,
    by_part: bool = False,
    method: MethodName | None = None,
    n_samples: int | None = None,
    n_steps: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Explain a run's test predictions and keep the ledger, or explain the latest moment of these users.

    What is explained is the score of an item; of a model that was fitted for time alone, when the next event comes;
    of one that answers labels, its answers.

    Args:
        users: whose latest moment to explain; their ledger is returned and not written.
        items: of a ranking, which items to explain, by default what came next, or the best-scored; of questions about
            items, which of them to ask these users about.
        contrast: of a ranking, against how many rivals.
        against: of a ranking, against which other item.
        before: of a ranking, how the scores of these users' items have changed since this long before their latest
            event, such as `7d`: see `explain_difference`.
        method: how credits are come by, and with the three settings after it how that is set: as for `explain`.

    Raises:
        ConfigError: an argument is out of range, or is for something that the model was not fitted for, or `before`
            stands beside `top` or `contrast`, or without `users`, or goes back behind a user's first event.
    """
    run = Run.open(folder, writes=users is None)
    how: dict[str, Any] = {"method": method, "n_samples": n_samples, "n_steps": n_steps, "seed": seed}
    shown: dict[str, Any] = {"top": top, "by_part": by_part, **how}
    rivals = {"contrast": contrast, "against": against}
    if answers_labels(run):
        answering, labels = fitted_on_labels(run)
        _check_given({"before": before}, [labels.test.kind])
        asked, about = (labels.test, items) if users is None else (ask_now(labels, users, items), None)
        # One that has no credits is refused there.
        ledger = explain(cast(Model, answering), asked, items=about, **rivals, **shown, progress=progress)
        ledger = audit(ledger, answering, labels)
    else:
        model, parts = _fitted(run)
        moments = parts.test
        if users is not None:
            moments = latest_moments(moments.sequences, moments.sequences.vocab.users.require_idx(users))
        _check_given({"items": items, **rivals, "before": before}, tasks_of(model))
        if before is not None:
            _check_before(users, top, contrast)
            now, then = now_and_before(moments.sequences, moments.user_idx, span_us(before))
            change: dict[str, Any] = {"items": items, "against": against, "by_part": by_part, **how}
            ledger = explain_difference(model, now, then, **change, progress=progress)
        elif "ranking" in tasks_of(model):
            ledger = explain(model, moments, items=items, **rivals, **shown, progress=progress)
        else:
            ledger = explain_gap(cast(TimeModel, model), moments, **shown)
        ledger = audit(ledger, model, parts)
    if users is None:
        settings = {"items": items, **rivals, **shown}
        with writing(run.folder, "explain", settings, stands_on=run) as new:
            ledger.save(new)
    return ledger


def _check_before(users: Sequence[Any] | None, top: int | None, contrast: int | None) -> None:
    """Refuse what does not go with a difference of two moments."""
    if users is None:
        raise ConfigError("'before' looks back from the latest event of users. Name them: --user ID.")
    if top is not None or contrast is not None:
        raise ConfigError(
            "'before' needs the credit of every event at both moments, of the same items: leave 'top' and 'contrast' "
            "out. 'against' names one item to stand against at both."
        )


def recommend_run(
    folder: str | Path,
    *,
    users: Sequence[Any] | None = None,
    events: Any = None,
    columns: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Recommendations:
    """Recommend to every user of a run and keep the lists, or to these users only, or from events handed in.

    Args:
        users: whom to recommend to; their lists are returned and not written.
        events: a log of other events to recommend from, read with `columns`; nothing is written.
        settings: further arguments of `recommend`.

    Raises:
        ConfigError: the model ranks no items.
    """
    progress = progress or Progress()
    run = Run.open(folder, writes=events is None and users is None)
    model, parts = _fitted(run)
    if "ranking" not in tasks_of(model):
        raise _no_ranking(run)
    if events is not None:
        kept = clean(read_events(events, **(columns or {})))
        handed_in = build_sequences(
            kept, numbers=parts.train.number_names, categories=parts.train.category_names, vocab=model.vocab
        )
        for line in (*_what_was_read(kept.cleaning, handed_in), *_strangers(handed_in, users or ())):
            progress.say(line)
        return recommend(model, _moments_for(handed_in, users), handed_in=True, **settings, progress=progress)
    for stranger in _strangers(parts.test.sequences, users or ()):
        progress.say(stranger)
    moments = _moments_for(parts.test.sequences, users)
    recommendations = recommend(model, moments, **settings, progress=progress)
    if users is None:
        n_without = len(moments) - len(recommendations.table.column("user_id").unique())
        if n_without:
            progress.say(f"{n_without:,} users have no list: nothing is left to recommend to them.")
        recommendations = replace(recommendations, ledger=audit(recommendations.ledger, model, parts))
        with writing(run.folder, "recommend", settings, stands_on=run) as new:
            recommendations.save(new)
    return recommendations


def _what_was_read(report: CleaningReport, handed_in: Sequences) -> list[str]:
    """Return what whoever hands events in has to know: notes of reading them, what was dropped, what is not known."""
    dropped = [f"{rule.n_dropped:,} events dropped, {rule.why}." for rule in report.rules if rule.n_dropped]
    columns = {"items": handed_in.item_idx, "actions": handed_in.action_idx}
    n_unknown = {what: int((column == UNKNOWN).sum()) for what, column in columns.items()}
    unknown = [f"{n:,} events are of {what} that the model does not know." for what, n in n_unknown.items() if n]
    return [*report.notes, *dropped, *unknown]


def _strangers(sequences: Sequences, users: Sequence[Any]) -> Iterator[str]:
    """Say of whom there are no events: they may be new, and may be somebody else mistyped."""
    known = sequences.vocab.users
    places = known.to_idx(users)
    for user, idx, n_events in zip(users, places, sequences.n_events_of(places), strict=True):
        if n_events == 0:
            near = known.nearest(user) if idx == UNKNOWN else ""
            yield f"user {user} has no events, so the list is that of somebody new.{near}"


def _ties(edges: str | Path, train: Sequences, progress: Progress | None) -> Ties:
    """Read edges before anything is trained, so that what is wrong with them costs no training."""
    check_times(train)
    ties = build_ties(read_edges(edges), train)
    for sentence in ties.sentences():
        (progress or Progress()).say(sentence)
    return ties


_TEXT_DIM = 64
"""To how many directions the text of items is reduced."""


def _blocks(
    vocab: Vocab, text: bool, vectors: Sequence[str | Path], progress: Progress | None
) -> tuple[ItemVectors, ...]:
    """Read what is known of items, before anything is trained."""
    blocks = [read_vectors(path, name=Path(path).name.split(".")[0], vocab=vocab) for path in vectors]
    if text:
        from influent.models.text import encode_items

        encoded = encode_items(vocab, progress=progress)
        blocks.append(reduce_vectors(encoded, dim=min(_TEXT_DIM, encoded.dim)))
    return tuple(blocks)


def _read_beside(read: Callable[..., Features], table: Any, noun: str, columns: Mapping[str, Any] | None) -> Features:
    """Read a table that lies beside the log; its id column may be called as in the log, or by our name."""
    name = (columns or {}).get(noun)
    if name is not None:
        with contextlib.suppress(SchemaError):
            return read(table, **{noun: name})
    return read(table)


def _moments_for(sequences: Sequences, users: Sequence[Any] | None) -> Moments:
    if users is not None:
        return moments_of(sequences, list(dict.fromkeys(users)))
    return latest_moments(sequences, np.flatnonzero(np.diff(sequences.offsets)))


def _fitted(run: Run) -> tuple[Model, Split]:
    """Return a run's model of what comes next, and the split that it was fitted on.

    Raises:
        ConfigError: the model answers labels.
    """
    if answers_labels(run):
        raise _no_ranking(run)
    run.require("clean")
    settings = run.require("fit")["settings"]
    model = load_model(run.folder)
    split = SplitConfig.of(settings["split"]).split(Sequences.load(run.folder))
    run.check_split(split.hash)
    return model, split


def _no_ranking(run: Run) -> ConfigError:
    return ConfigError(
        f"the model in {run.folder} ranks no items, so there is nothing to recommend. Fit one that does: "
        f"influent fit {run.folder}"
    )


_GOES_WITH = {
    "k": "ranking",
    "seen": "ranking",
    "against": "ranking",
    "items": "ranking",
    "contrast": "ranking",
    "before": "ranking",
    "unit": "time",
    "threshold": "classification",
}


def _check_given(given: Mapping[str, Any], tasks: Sequence[str]) -> None:
    """Refuse settings of another task than a model was fitted for: they would say nothing."""
    for name, value in given.items():
        if value is not None and _GOES_WITH[name] not in tasks:
            raise ConfigError(
                f"{name!r} goes with {_GOES_WITH[name]}, and this model was fitted for {' and '.join(tasks)}. "
                "Leave it out."
            )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
