"""A question in plain settings, and sequences, to labels that are split into what is learned from and judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from influent import schema
from influent.data.clock import DAY_US, iso, span_us
from influent.data.label_split import LabelSplit, split_events_at, split_labels_at
from influent.data.labels import (
    Cut,
    Labels,
    amount_within,
    latest_cutoff_us,
    number_of_events,
    of_events,
    will_do,
)
from influent.data.sequences import Sequences
from influent.data.split import read_cut
from influent.errors import ConfigError, DataError, nearest
from influent.settings import Checked

Ask = Literal["will_do", "amount_within", "of_events", "number_of_events"]

_BY_HORIZON = ("cutoff", "n_cutoffs", "step", "validation_users")
_BY_EVENT = ("since", "until", "cutoff", "validation")
_TAKES: Mapping[str, tuple[str, ...]] = {
    "will_do": ("horizon", "actions", "absent", *_BY_HORIZON),
    "amount_within": ("horizon", "actions", "number", "log", *_BY_HORIZON),
    "of_events": ("positive", "among", *_BY_EVENT),
    "number_of_events": ("number", "actions", "log", *_BY_EVENT),
}
"""The settings of each question; any other is refused, as it would say nothing."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig(Checked):
    """What is asked of a log, and where its answers are cut into training, validation and test.

    Questions with a horizon (`will_do`, `amount_within`) are asked of every user at cutoffs and split as
    `split_labels_at` does; those about events (`of_events`, `number_of_events`) as `split_events_at` does.

    Raises:
        ConfigError: there is no such question, it lacks a setting or has none of this name, or a value is out of
            range.

    Example:
        >>> LabelConfig(ask="will_do", horizon="4w", actions=("purchase",), absent=True)  # churn  # doctest: +ELLIPSIS
        LabelConfig(ask='will_do', horizon='4w', actions=('purchase',), absent=True, ...)
        >>> LabelConfig(ask="will_do", horizon="28")
        Traceback (most recent call last):
        influent.errors.ConfigError: '28' has no unit. Write a number above 0 and its unit, s, m, h, d or w: '28d' is \
28 days, '12h' half a day.
    """

    ask: Ask | Literal[""] = ""
    """Which question: the name of the function that builds its labels. There has to be one."""
    horizon: str = ""
    """How long after the moment the answer is known: a number and s, m (minutes), h, d or w, such as `28d`."""
    actions: tuple[str, ...] = ()
    """What counts; by default any action."""
    absent: bool = False
    """Ask the opposite: 1 where the user stays away (churn)."""
    number: str = schema.VALUE
    """Which number of an event."""
    log: bool = False
    """Ask for log1p of the number."""
    positive: tuple[str, ...] = ()
    """The actions that make a 1."""
    among: tuple[str, ...] = ()
    """The actions that are asked about, the positive ones among them."""
    since: str | float = ""
    """Ask only about events at or after this time."""
    until: str | float = ""
    """Ask only about events before this time."""
    cutoff: str | float = ""
    """Where test begins: a time (ISO 8601), or the share of the events that come before it, such as 0.8. By default
    the latest moment whose answer is in the log; of questions about events, after 0.8 of their moments."""
    n_cutoffs: int = 1
    """How many cutoffs are trained on."""
    step: str = ""
    """How far they lie apart, as a horizon is written; by default a horizon."""
    validation_users: float = 0.0
    """For a log too short for three horizons: the share of the users that is held out for validation."""
    validation: float = 0.9
    """Of questions about events, the share of the moments before the cutoff that comes before validation."""

    def __post_init__(self) -> None:
        known = get_args(Ask)
        if not self.ask:
            asks = " or ".join(known)
            raise ConfigError(f"these settings are of a question, and none is asked. Set ask (--ask) to {asks}.")
        if self.ask not in known:
            raise ConfigError(
                f"there is no question {self.ask!r}. There are: {', '.join(known)}.{nearest(str(self.ask), known)}"
            )
        for name in ("horizon", "number", "step"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"LabelConfig.{name} must be a text, in quotes. Got {getattr(self, name)!r}.")
        for name in ("since", "until", "cutoff"):
            cut = getattr(self, name)
            if isinstance(cut, bool) or not isinstance(cut, str | int | float):
                raise ConfigError(f"LabelConfig.{name} must be a time in quotes, or a share. Got {cut!r}.")
        for name in ("actions", "positive", "among"):
            self._check_names(name)
        for name in ("absent", "log"):
            self._check_bool(name)
        self._check_int("n_cutoffs", 1)
        self._check_real("validation_users", 0.0, 1.0)
        self._check_real("validation", 0.0, 1.0)
        self._check_what_is_taken()

    def _check_what_is_taken(self) -> None:
        takes = _TAKES[self.ask]
        for setting in fields(self)[1:]:
            if setting.name not in takes and getattr(self, setting.name) != setting.default:
                others = [ask for ask, names in _TAKES.items() if setting.name in names]
                raise ConfigError(
                    f"{self.ask} takes no {setting.name!r}, which is for {' and '.join(others)}. "
                    f"It takes: {', '.join(takes)}."
                )
        if "horizon" in takes:
            if not self.horizon:
                raise ConfigError(f"{self.ask} needs a horizon: how far ahead to look, such as '28d' or '12h'.")
            span_us(self.horizon)
        if self.step:
            span_us(self.step)

    def split(self, sequences: Sequences) -> LabelSplit:
        """Return the labels of these sequences to learn from, to validate with and to be judged by.

        Raises:
            DataError, ConfigError, SchemaError, UnknownIdError: as the question's function and its split say; and
                DataError where all answers to learn from, or to be judged by, are the same.
        """
        cut = self._cut("cutoff")
        if "horizon" in _TAKES[self.ask]:
            horizon_us = span_us(self.horizon)
            parts = split_labels_at(
                self._at_cutoffs(sequences, horizon_us / DAY_US),
                iso(latest_cutoff_us(sequences, horizon_us)) if cut is None else cut,
                n_cutoffs=self.n_cutoffs,
                step_days=span_us(self.step) / DAY_US if self.step else None,
                validation_users=self.validation_users or None,
            )
        else:
            cut = 0.8 if cut is None else cut
            parts = split_events_at(self._about_events(sequences), cut, validation=self.validation)
        for part, labels in (("training", parts.train), ("test", parts.test)):
            if np.ptp(labels.label) == 0:
                raise DataError(
                    f"all {len(labels):,} {part} labels of {labels.name!r} are {labels.label[0]:g}: there is nothing "
                    "to tell apart. Ask with another horizon or action, or cut elsewhere."
                )
        return parts

    def _cut(self, name: str) -> str | float | None:
        """Return the time or share that a setting names, None where it was left out; 0 was not left out."""
        cut = read_cut(getattr(self, name))
        return None if cut == "" else cut

    def _at_cutoffs(self, sequences: Sequences, horizon_days: float) -> Callable[[Sequence[Cut]], Labels]:
        """Return what builds the labels of some cutoffs."""
        plain: dict[str, Any] = {"horizon_days": horizon_days, "actions": self.actions or None}
        if self.ask == "will_do":
            return partial(will_do, sequences, absent=self.absent, **plain)
        return partial(amount_within, sequences, number=self.number, log=self.log, **plain)

    def _about_events(self, sequences: Sequences) -> Labels:
        within: dict[str, Any] = {name: self._cut(name) for name in ("since", "until")}
        if self.ask == "of_events":
            return of_events(sequences, positive=self.positive, among=self.among, **within)
        return number_of_events(sequences, number=self.number, actions=self.actions or None, log=self.log, **within)
