"""What a log with known chances says of another way to choose: off-policy estimates of its value.

A log in which each thing was shown with a known probability is an experiment. What another policy would have earned is
then estimated without confounding, by weighing each reward with how much likelier the other policy was to show it.

Shapes: N impressions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from influent.errors import ConfigError, DataError
from influent.evaluation.report import Measure
from influent.settings import check_int


@dataclass(frozen=True, kw_only=True)
class OffPolicyReport:
    """The value of a policy, a row for each estimator, in the reward's unit."""

    rows: dict[str, Measure]
    n_impressions: int
    n_effective: float
    """(Σ w)² / Σ w²: as many impressions of the policy's own would be worth as much; Kish, 1965"""
    largest_weight: float
    logged: Measure
    """The mean reward of the log itself"""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_markdown(self) -> str:
        """Return the table in Markdown, with its caption."""
        lines = ["| estimator | value of the policy |", "|---|---:|"]
        lines += [f"| {name} | {measure} |" for name, measure in self.rows.items()]
        caption = (
            f"{self.n_impressions:,} impressions with known chances, worth {self.n_effective:,.0f} of the policy's "
            f"own; largest weight {self.largest_weight:.1f}; the log itself earned {self.logged}; 95 % intervals by "
            "bootstrap."
        )
        if "direct method" in self.rows:
            caption += " The direct method's takes its predictions as they are: how far these are off is not in it."
        return "\n".join([*lines, "", caption]) + "\n"


def off_policy_value(
    reward: np.ndarray,
    propensity: np.ndarray,
    target: np.ndarray,
    *,
    predicted: np.ndarray | None = None,
    expected: np.ndarray | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> OffPolicyReport:
    """Estimate what a policy would have earned where another one chose by known chances.

    With w = target / propensity: inverse propensity, mean of w·r (Horvitz and Thompson, 1952); self-normalised,
    Σ w·r / Σ w (Swaminathan and Joachims, 2015); and with predictions of a model that was fitted on other
    impressions, the direct method, mean of `expected`, and doubly robust, mean of `expected + w (r − predicted)`
    (Dudík et al., 2011).

    Args:
        reward: what came of each impression, (N,).
        propensity: the chance that the log's policy showed what it showed, (N,), in (0, 1].
        target: the chance that the policy in question shows the same, (N,), in [0, 1].
        predicted: the reward that a model predicts of what was shown, (N,).
        expected: the reward it predicts of the policy in question there: Σ over choices of chance times prediction.

    Raises:
        DataError: there are no impressions, a propensity is not known or 0, a chance is not in [0, 1], a reward is not
            finite, or the policy shows nothing of what was shown.
        ConfigError: arrays differ in length or are tables, only one of `predicted` and `expected` is given, or a number
            is out of range.

    Example:
        >>> reward, propensity = np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.5)
        >>> always_first = np.array([1.0, 1.0, 0.0, 0.0])     # the first two impressions were of what it shows
        >>> report = off_policy_value(reward, propensity, always_first)
        >>> {name: measure.mean for name, measure in report.rows.items()}   # w = 2, 2, 0, 0
        {'inverse propensity': 0.5, 'self-normalised': 0.5}
    """
    check_int("n_resamples", n_resamples, 1)
    check_int("seed", seed, 0)
    reward, propensity, target = (np.asarray(values, np.float64) for values in (reward, propensity, target))
    if (predicted is None) != (expected is None):
        raise ConfigError("predicted and expected go together: both come from one model of the reward. Give both.")
    given = [np.asarray(values, np.float64) for values in (predicted, expected) if values is not None]
    _check(reward, propensity, target, given)
    weight = target / propensity
    columns = {"reward": reward, "weighted": weight * reward, "weight": weight}
    if given:
        columns |= {"expected": given[1], "corrected": given[1] + weight * (reward - given[0])}
    names = list(columns)
    table = np.stack(list(columns.values()), axis=1)
    rng = np.random.default_rng(seed)
    # How often each impression is drawn; the means of a resample are then one product.
    draws = (rng.multinomial(len(table), np.full(len(table), 1 / len(table))) for _ in range(n_resamples))
    means = np.stack([drawn @ table for drawn in draws]) / len(table)

    def measure(of: Any) -> Measure:
        low, high = np.quantile(of(means.T), [0.025, 0.975])
        return Measure(float(of(table.mean(axis=0))), float(low), float(high))

    place = {name: number for number, name in enumerate(names)}
    rows = {
        "inverse propensity": measure(lambda m: m[place["weighted"]]),
        "self-normalised": measure(lambda m: m[place["weighted"]] / np.maximum(m[place["weight"]], 1e-300)),
    }
    if given:
        rows = {
            "direct method": measure(lambda m: m[place["expected"]]),
            **rows,
            "doubly robust": measure(lambda m: m[place["corrected"]]),
        }
    return OffPolicyReport(
        rows=rows,
        n_impressions=len(reward),
        n_effective=float(weight.sum() ** 2 / (weight**2).sum()),
        largest_weight=float(weight.max()),
        logged=measure(lambda m: m[place["reward"]]),
    )


def _check(reward: np.ndarray, propensity: np.ndarray, target: np.ndarray, given: list[np.ndarray]) -> None:
    shapes = {values.shape for values in (reward, propensity, target, *given)}
    if len(shapes) > 1 or reward.ndim != 1:
        raise ConfigError(f"every argument needs one number for each impression. Got shapes {sorted(shapes)}.")
    if not len(reward):
        raise DataError("there are no impressions to estimate from.")
    if not all(np.isfinite(values).all() for values in (reward, *given)):
        raise DataError("a reward or a prediction is missing or not finite. Leave out impressions without a reward.")
    if not ((propensity > 0) & (propensity <= 1)).all():
        n_wrong = int((~((propensity > 0) & (propensity <= 1))).sum())
        raise DataError(
            f"{n_wrong:,} impressions have a propensity that is not in (0, 1]. What was shown had a chance to be "
            "shown: a 0 says that the log's chances are wrong. Leave such impressions out only if you know why."
        )
    if not ((target >= 0) & (target <= 1)).all():
        raise DataError("the policy's chances must lie in [0, 1].")
    if not target.any():
        raise DataError("the policy shows nothing of what was shown, so the log says nothing of it.")
