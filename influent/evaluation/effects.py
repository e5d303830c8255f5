"""A table of units for whom exposure was drawn by chance, to the effect of exposure on an outcome.

Only what was randomised has one here: without a chance of exposure that somebody drew by, people who were exposed and
people who were not differ in more than exposure, and a difference between them is no effect.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from influent import schema
from influent.data.units import Design, Units, read_units
from influent.errors import ConfigError, DataError
from influent.evaluation.least_squares import Coefficient, fit_coefficient, without_rounding
from influent.evaluation.permutation import permutation_p_value
from influent.evaluation.report import Measure
from influent.settings import check_int

EFFECT, UNADJUSTED, PLACEBO, NAIVE = "effect", "without covariates", "placebo", "naive difference"


@dataclass(frozen=True, kw_only=True)
class EffectReport:
    """What exposure does to an outcome, in the outcome's unit, with 95 % intervals that follow from the draw."""

    outcome: str
    """The column of the outcome"""
    design: str
    """How exposure was drawn, in words"""
    rows: dict[str, Measure]
    """`effect`, where there are covariates `without covariates`, where there is one `placebo`, and the
    `naive difference`: of the two means, with the interval that it would have were all rows independent"""
    p_value: float
    """How often chance alone makes as clear a difference, by drawing exposure anew"""
    n_permutations: int
    without_exposure: float
    """Mean outcome of those who were not exposed, weighted as the effect is"""
    standard_error: float
    degrees_of_freedom: float
    n_exposed: int
    """Rows"""
    n_unexposed: int
    n_draws_exposed: int
    """What was drawn as a whole: units, clusters, or these in single periods"""
    n_draws_unexposed: int

    @property
    def effect(self) -> Measure:
        """Return the effect and its interval."""
        return self.rows[EFFECT]

    @property
    def placebo(self) -> Measure | None:
        """Return the same estimate of the outcome before exposure, where that was given."""
        return self.rows.get(PLACEBO)

    @property
    def naive(self) -> Measure:
        """Return the difference of the two means."""
        return self.rows[NAIVE]

    def sentences(self) -> list[str]:
        """Return what was found, in plain words. A failed placebo takes the word effect away."""
        said = [self._finding()]
        said.append(
            f"{self.n_draws_exposed:,} draws ({self.n_exposed:,} rows) were exposed, {self.n_draws_unexposed:,} "
            f"({self.n_unexposed:,}) were not. Drawn anew {self.n_permutations:,} times, chance alone shows as clear a "
            f"difference in a share of {self.p_value:.4f}."
        )
        if self.placebo is not None:
            fits = "which covers 0, as it should" if _covers_zero(self.placebo) else "which does not cover 0"
            said.append(f"Before exposure the difference was {self.placebo}, {fits}.")
        return said

    def _finding(self) -> str:
        if self.placebo is not None and not _covers_zero(self.placebo):
            return (
                f"The exposed differ in {self.outcome} by {self.effect}, but they differed before exposure too. That "
                "happens to 5 of 100 draws; look whether exposure was drawn as declared before calling it an effect."
            )
        because = f"exposure was randomised: {self.design}"
        if _covers_zero(self.effect):
            return f"No effect of exposure on {self.outcome} is shown: {self.effect} covers 0; {because}."
        moves = "raises" if self.effect.mean > 0 else "lowers"
        low, high = sorted((abs(self.effect.low), abs(self.effect.high)))
        amount = Measure(abs(self.effect.mean), low, high)
        return f"Exposure {moves} {self.outcome} by {amount}. This is an effect, because {because}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_markdown(self) -> str:
        """Return the table in Markdown, with its sentences."""
        lines = [f"| {self.outcome} | exposed less not exposed |", "|---|---:|"]
        lines += [f"| {name} | {measure} |" for name, measure in self.rows.items()]
        return "\n".join([*lines, "", " ".join(self.sentences())]) + "\n"


def estimate_effect(
    units: Any,
    *,
    probability: float | str | None = None,
    outcome: str = "outcome",
    exposed: str = "exposed",
    unit: str = schema.USER_ID,
    cluster: str | None = None,
    stratum: str | None = None,
    period: str | None = None,
    each_period: bool = False,
    covariates: Sequence[str] = (),
    placebo: str | None = None,
    n_permutations: int = 2000,
    seed: int = 0,
) -> EffectReport:
    """Estimate what a randomised exposure does to an outcome, on average over the rows.

    Each row weighs 1 / the chance of what became of it (Hájek, 1971). Covariates and strata enter centred, each with
    a slope of its own in both arms, which never makes a large sample less precise (Lin, 2013,
    https://doi.org/10.1214/12-AOAS583). The interval is that of the draw: rows of one cluster, or of one unit in
    several periods, count as dependent (CR2, Student's t by the number of them). The estimate takes it that nobody's
    exposure reaches others outside their cluster; where it does, draw by larger clusters.

    Args:
        units: a row for each unit, or for each unit and period: a path or table, as `read_events` takes it.
        probability: the chance of exposure that was drawn by, above 0 and below 1, or the column that has it.
        outcome: the column of the outcome, a number that is known of every row.
        exposed: the column that says whether: booleans, or 0 and 1.
        unit: the column that says who.
        cluster: the column of what was exposed or not as a whole: villages, classes, households.
        stratum: the column within whose values exposure was drawn; the effect is that of all strata by their size.
        period: the column that tells the rows of one unit apart.
        each_period: whether exposure was drawn anew in each period; else it was drawn once.
        covariates: columns of numbers from before exposure. One from after it biases the effect.
        placebo: the column of the outcome before exposure, which exposure cannot have moved. A covariate of that name
            is left out of the placebo's own estimate.
        n_permutations: how often exposure is drawn anew for the p-value.

    Raises:
        ConfigError: no chance of exposure is declared, one column has two parts to play, or a number is out of range.
        SchemaError: a column is missing (the message names the nearest), or is not of numbers.
        DataError: exposure cannot have been drawn as declared: a chance of 0 or 1, a cluster of both kinds, an arm or
            stratum without two draws, numbers of exposed that the chances do not lead to; an outcome or covariate is
            not known of a row; or a covariate follows from others.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"user_id": list("abcd"), "exposed": [1, 1, 0, 0], "outcome": [5.0, 7.0, 1.0, 3.0]})
        >>> report = estimate_effect(table, probability=0.5)
        >>> print(report.effect, f"{report.degrees_of_freedom:.1f}")      # 6 − 2, ± 4.303 √(2 / 2 + 2 / 2)
        4.0000 [-2.0849, 10.0849] 2.0
    """
    check_int("n_permutations", n_permutations, 1)
    check_int("seed", seed, 0)
    if probability is None:
        raise ConfigError(
            "nothing says that exposure was randomised, and a difference between people who came to be exposed and "
            "others is no effect. Give the chance that was drawn by, probability=0.5, or the column that has it. If "
            "nothing was drawn, ask who moved whom by a model: influence_graph and the ledger of explain."
        )
    design = Design(
        probability=probability, unit=unit, cluster=cluster, stratum=stratum, period=period, each_period=each_period
    )
    if isinstance(covariates, str):
        raise ConfigError(f"covariates is a list of columns: covariates=[{covariates!r}].")
    covariates = list(covariates)
    before = [] if placebo is None or placebo in covariates else [placebo]
    _check_parts(design, outcome, exposed, covariates, placebo)
    read = read_units(units, design, outcome=outcome, exposed=exposed, numbers=[*covariates, *before])
    _check_covariates(read, covariates)
    adjusted = _fit(read, read.outcome, covariates)
    rows = {EFFECT: adjusted.measure()}
    if covariates:
        rows[UNADJUSTED] = _fit(read, read.outcome, []).measure()
    if placebo is not None:
        others = [name for name in covariates if name != placebo]
        rows[PLACEBO] = _fit(read, read.numbers[placebo], others).measure()
    rows[NAIVE] = _naive(read.outcome, read.exposed)
    drawn = read.exposed[read.first]
    return EffectReport(
        outcome=outcome,
        design=_in_words(read),
        rows=rows,
        p_value=permutation_p_value(read, _known_apart(read, covariates), n_permutations=n_permutations, seed=seed),
        n_permutations=n_permutations,
        without_exposure=float(np.average(read.outcome[~read.exposed], weights=_weight(read)[~read.exposed])),
        standard_error=adjusted.standard_error,
        degrees_of_freedom=adjusted.degrees_of_freedom,
        n_exposed=int(read.exposed.sum()),
        n_unexposed=int((~read.exposed).sum()),
        n_draws_exposed=int(drawn.sum()),
        n_draws_unexposed=int((~drawn).sum()),
    )


def _weight(units: Units) -> np.ndarray:
    """Return 1 / the chance of what became of each row."""
    return np.asarray(1 / np.where(units.exposed, units.probability, 1 - units.probability))


def _before(units: Units, covariates: Sequence[str]) -> dict[str, np.ndarray]:
    """Return blocks and covariates as columns whose means are 0."""
    columns = {f"block {block}": (units.block == block).astype(np.float64) for block in range(1, units.block.max() + 1)}
    columns |= {name: units.numbers[name] for name in covariates}
    return {name: column - column.mean() for name, column in columns.items()}


def _fit(units: Units, outcome: np.ndarray, covariates: Sequence[str]) -> Coefficient:
    known = _before(units, covariates)
    exposed = units.exposed.astype(np.float64)
    columns = {"constant": np.ones(len(units)), EFFECT: exposed} | known
    columns |= {f"{name} if exposed": exposed * column for name, column in known.items()}
    return fit_coefficient(columns, outcome, _weight(units), units.owner, EFFECT)


def _known_apart(units: Units, covariates: Sequence[str]) -> np.ndarray:
    """Return the outcome less what blocks and covariates say of it, exposure not looked at."""
    columns = np.stack([np.ones(len(units)), *_before(units, covariates).values()], axis=1)
    apart = units.outcome - units.outcome.mean()
    left = apart - columns @ np.linalg.lstsq(columns, apart, rcond=None)[0]
    return without_rounding(left, units.outcome)


def _naive(outcome: np.ndarray, exposed: np.ndarray) -> Measure:
    """Return the difference of the means as if every row had been drawn for itself with one chance."""
    columns = {"constant": np.ones(len(outcome)), EFFECT: exposed.astype(np.float64)}
    return fit_coefficient(columns, outcome, np.ones(len(outcome)), np.arange(len(outcome)), EFFECT).measure()


def _covers_zero(measure: Measure) -> bool:
    return measure.low <= 0 <= measure.high


def _in_words(units: Units) -> str:
    design, low, high = units.design, units.probability.min(), units.probability.max()
    who = f"each {design.owner}" + (" as a whole" if design.cluster else "")
    when = f"anew in each {design.period}" if design.each_period else "once"
    within = f", within each {design.stratum}" if design.stratum else ""
    chance = f"a chance of {low:g}" if high - low < 1e-12 else f"known chances from {low:.3g} to {high:.3g}"
    return f"drawn {when} for {who}{within}, with {chance}"


def _check_parts(design: Design, outcome: str, exposed: str, covariates: Sequence[str], placebo: str | None) -> None:
    """Refuse a column that plays two parts; only the outcome before may be a covariate too."""
    parts = {"outcome": outcome, "exposed": exposed, "unit": design.unit, "cluster": design.cluster}
    parts |= {"stratum": design.stratum, "period": design.period}
    parts |= {"probability": design.probability if isinstance(design.probability, str) else None}
    for name in {*covariates, placebo} - {None}:
        part = next((part for part, taken in parts.items() if taken == name), None)
        if part is not None:
            raise ConfigError(f"{name!r} is the {part} and cannot also be a covariate or the placebo.")
    if outcome == exposed:
        raise ConfigError(f"{outcome!r} cannot be both the outcome and who was exposed.")
    if len(set(covariates)) < len(covariates):
        raise ConfigError(f"covariates must be different columns. Got {', '.join(map(repr, covariates))}.")


def _check_covariates(units: Units, covariates: Sequence[str]) -> None:
    for name in covariates:
        if np.ptp(units.numbers[name]) == 0:
            raise DataError(f"the covariate {name!r} is the same in every row, so it tells nothing. Leave it out.")
    exposed = units.exposed[units.first]
    spare = int(min(exposed.sum(), (~exposed).sum())) - int(units.block.max()) - 1
    if len(covariates) >= max(spare, 1):
        raise DataError(
            f"{len(covariates)} covariates are too many for {exposed.sum():,} draws that were exposed and "
            f"{(~exposed).sum():,} that were not: at most {max(spare - 1, 0)} leave something to tell chance by."
        )
