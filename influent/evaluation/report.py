"""Models and moments to one table of accuracy, with intervals, for the terminal, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar, get_args

import numpy as np

from influent.data.moments import Moments, ranges
from influent.errors import ConfigError, DataError
from influent.evaluation.metrics import METRICS, bootstrap_interval
from influent.models.model import Model, check_may_judge
from influent.models.ranks import Seen, target_ranks
from influent.progress import Progress
from influent.settings import check_list, check_type


@dataclass(frozen=True)
class Measure:
    """A mean over moments and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


class Comparison:
    """Models side by side, a row each; `caption` says what the table is of."""

    rows: dict[str, dict[str, Measure]]
    """Model name to metric name to measure."""

    def caption(self) -> str:
        """Return in one sentence what the table is of."""
        raise AssertionError(f"{type(self).__name__} does not say what it is of")

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def metrics(self) -> list[str]:
        """Return the names of the metrics, in the order of the columns."""
        return list(next(iter(self.rows.values())))

    def cells(self) -> list[list[str]]:
        """Return the table as texts: a header, then a row for each model."""
        header = ["model", *self.metrics()]
        body = [[name, *(str(measure) for measure in row.values())] for name, row in self.rows.items()]
        return [header, *body]

    def to_markdown(self) -> str:
        """Return the table in Markdown, with its caption."""
        header, *body = self.cells()
        lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in body]
        return "\n".join([*lines, "", self.caption()]) + "\n"


@dataclass(frozen=True)
class Report(Comparison):
    """What was measured, of whom, and how."""

    protocol: str
    split: str
    """Hash of the split, empty where moments came from none."""
    seen: Seen
    n_moments: int
    unknown_targets: float
    """Share of the targets that are not in the catalogue the model knows: misses, whatever it does."""
    seen_targets: float
    """Share of the targets that the user had before: misses where seen items are left out."""
    rows: dict[str, dict[str, Measure]]

    def caption(self) -> str:
        """Return in one sentence what the table is of."""
        left_out = "left out" if self.seen == "exclude" else "kept"
        return (
            f"{self.protocol}; {self.n_moments:,} moments, full catalogue, seen items {left_out} "
            f"({self.seen_targets:.1%} of targets were seen before, {self.unknown_targets:.1%} are unknown); "
            f"95 % intervals by bootstrap over users; split {self.split or 'not named'}."
        )


def check_lengths(k: Sequence[int]) -> None:
    """Refuse lengths of lists that are no lengths.

    Raises:
        ConfigError: `k` is empty, or holds something else than ints from 1.
    """
    check_list("k", k)
    if any(isinstance(length, bool) or not isinstance(length, int) or length < 1 for length in k) or not k:
        raise ConfigError(f"The 'k' parameter of evaluate must hold ints in the range [1, inf). Got {list(k)} instead.")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def by_name(models: Sequence[NamedT] | Mapping[str, NamedT], *, taken: str | None = None) -> dict[str, NamedT]:
    """Return models by what tables call them: their own names, or those that a mapping gives.

    Args:
        taken: a name that none may have.

    Raises:
        ConfigError: there is none, or two have one name.
    """
    if isinstance(models, Mapping):
        pairs = list(models.items())
    else:
        check_list("models", models)
        pairs = [(model.name, model) for model in models]
    names = [name for name, _ in pairs]
    if not names or len(set(names)) < len(names) or taken in names:
        but = "" if taken is None else f" and none called {taken!r}"
        raise ConfigError(
            f"there must be at least one model, no two of one name{but}. Got {names}. Name them yourself where two are "
            "called alike: {'plain': model, 'wide': other}."
        )
    return dict(pairs)


def evaluate(
    models: Sequence[Model] | Mapping[str, Model],
    moments: Moments,
    *,
    k: Sequence[int] = (10,),
    seen: Seen = "exclude",
    protocol: str = "moments as given",
    split: str = "",
    n_resamples: int = 1000,
    progress: Progress | None = None,
) -> Report:
    """Judge models by where what came next stands in their ranking of the full catalogue.

    Args:
        models: a list, or a mapping from the name that the table gives each.
        k: lengths of the lists that are judged.
        seen: whether items of the history may be recommended again.

    Raises:
        LeakageError: a model was fitted on other events than the training part of this split.
        DataError: no moment has a target.
        ConfigError: a list length is out of range.
    """
    check_lengths(k)
    if seen not in get_args(Seen):
        raise ConfigError(f"The 'seen' parameter of evaluate must be 'exclude' or 'keep'. Got {seen!r} instead.")
    named = by_name(models)
    check_type("moments", moments, Moments, "split_last(sequences).test")
    moments = moments.take(np.flatnonzero(moments.target_stop > moments.stop))
    if len(moments) == 0:
        raise DataError("no moment has a target, so there is nothing to judge by. Use the moments of a split.")
    items, offsets = moments.target_items()
    rows: dict[str, dict[str, Measure]] = {}
    for called, model in named.items():
        check_may_judge(model, moments)
        ranks, _ = target_ranks(model, moments, seen=seen, progress=progress)
        values = {
            f"{name}@{length}": metric(ranks, offsets, length) for length in k for name, metric in METRICS.items()
        }
        rows[called] = {
            name: Measure(float(value.mean()), *bootstrap_interval(value, moments.user_idx, n_resamples=n_resamples))
            for name, value in values.items()
        }
    return Report(
        protocol=protocol,
        split=split,
        seen=seen,
        n_moments=len(moments),
        unknown_targets=float((items < 0).mean()),
        seen_targets=_share_seen(moments, items, offsets),
        rows=rows,
    )


def _share_seen(moments: Moments, items: np.ndarray, offsets: np.ndarray) -> float:
    width = moments.sequences.vocab.n_items + 1
    lengths = moments.stop - moments.start
    before = moments.sequences.item_idx[ranges(moments.start, lengths)]
    had = np.repeat(np.arange(len(moments)), lengths) * width + before
    targets = np.repeat(np.arange(len(moments)), np.diff(offsets)) * width + items
    return float((np.isin(targets, had) & (items >= 0)).mean())
