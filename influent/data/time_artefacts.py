"""A log's times are searched for what makes them no times: lost digits, a coarse clock, hours of a week, overlap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from influent.data.clock import DAY_US, UNITS_US
from influent.data.moments import Moments
from influent.data.sequences import Sequences

_CLOCKS = {"day": UNITS_US["d"], "hour": UNITS_US["h"], "minute": UNITS_US["m"]}
_FEWEST = 100
"""Different times below which nothing is said of their digits: of so many none ends in 0 in 3 of 100,000 logs."""


@dataclass(frozen=True, kw_only=True)
class TimeArtefacts:
    """What the times of a log can and cannot say. Shares lie in [0, 1]; None where it cannot be known."""

    is_timed: bool
    clock: str | None = None
    """The coarsest of day, hour and minute at which nearly all times stand, if at any"""
    on_the_clock: float = 0.0
    """Share of events that stand exactly there"""
    ending_in_zero: float | None = None
    """Share of different times whose last digit, in the unit they are given in, is 0; a tenth, where none are lost"""
    is_folded: bool = False
    """Whether the times are hours of a week: from 0 to 168, whichever week it was"""
    after_test: float | None = None
    """Share of events that are later than the first moment of the test; None where no test was given"""

    @property
    def is_clipped(self) -> bool:
        """Return whether zeros at the end of times were lost."""
        return self.ending_in_zero is not None and self.ending_in_zero < 0.01

    @property
    def has_direction(self) -> bool:
        """Return whether it can be said who came first."""
        return self.is_timed and not self.is_clipped and not self.is_folded

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return what is wrong, and what it does to a result."""
        lines = []
        if not self.is_timed:
            lines.append(
                "The log has no times: nobody can be said to have come first, and direction cannot be learned."
            )
        if self.is_folded:
            lines.append(
                "Times are hours of a week, and which week it was is not said: across weeks nobody can be said to have "
                "come first, and direction cannot be learned."
            )
        elif self.clock is not None:
            lines.append(
                f"{self.on_the_clock:.0%} of events stand at the same place of a {self.clock}: who came first within a "
                f"{self.clock} is not known, and answers that come within it are not seen."
            )
        if self.is_clipped:
            lines.append(
                f"{self.ending_in_zero:.1%} of times end in 0, and a tenth should: zeros at their end were lost, so "
                "that 1230 reads as 123. Such times are wrong, and so is who came first."
            )
        if self.after_test:
            lines.append(
                f"{self.after_test:.0%} of training events are later than the first moment of the test: strengths are "
                "learned from what came after it too. Split by time to judge forecasts."
            )
        return lines


def find_time_artefacts(sequences: Sequences, *, test: Moments | None = None) -> TimeArtefacts:
    """Look for what in the times of a log could make an order out of nothing, or hide one.

    Args:
        test: moments at which what is learned from this log is judged.
    """
    times = sequences.time_us
    if times is None or len(times) == 0:
        return TimeArtefacts(is_timed=times is not None)
    clock, share = _clock(times)
    is_hourly = clock in ("day", "hour") and share == 1
    return TimeArtefacts(
        is_timed=True,
        clock=clock,
        on_the_clock=share,
        ending_in_zero=None if clock else _ending_in_zero(np.unique(times)),
        is_folded=is_hourly and bool(times.min() >= 0 and times.max() <= 7 * DAY_US),
        after_test=_after(times, test),
    )


def _clock(times: np.ndarray) -> tuple[str | None, float]:
    """Return the coarsest clock by which nine of ten times stand at one place, and their share.

    Of a single time nothing is said.
    """
    if times.min() == times.max():
        return None, 0.0
    for name, unit in _CLOCKS.items():
        _, counts = np.unique(times % unit, return_counts=True)
        if counts.max() >= 0.9 * len(times) and np.ptp(times) >= unit:
            return name, float(counts.max() / len(times))
    return None, 0.0


def _ending_in_zero(times: np.ndarray) -> float | None:
    """Return the share of times that end in 0 in the coarsest of s, ms and µs that they are whole numbers of.

    None of too few times, and of a clock that knows only some of the other digits, such as one of five seconds.
    """
    if len(times) < _FEWEST:
        return None
    unit = next(unit for unit in (1_000_000, 1_000, 1) if (times % unit == 0).all())
    share = np.bincount(times // unit % 10, minlength=10) / len(times)
    return float(share[0]) if share[1:].min() > 0.02 else None


def _after(times: np.ndarray, test: Moments | None) -> float | None:
    if test is None or test.time_us is None or len(test) == 0:
        return None
    return float((times > test.time_us.min()).mean())
