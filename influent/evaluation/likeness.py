"""Is it influence, or are people alike? What is put down to others, beside what cannot have moved anybody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from influent.data.sequences import Sequences
from influent.data.tie_artefacts import TieArtefacts, find_tie_artefacts
from influent.errors import ConfigError
from influent.evaluation import likeness_tests as tests
from influent.evaluation.likeness_tests import FEWEST, LikenessTest, Probe
from influent.evaluation.report import Measure
from influent.models.social import Social
from influent.progress import Progress
from influent.run import made
from influent.settings import check_int, check_type

Verdict = Literal["directed beyond likeness", "likeness cannot be ruled out", "not enough data"]

_HEADER = ("test", "what is put down to others", "as it was", "placebo", "more by user", "if alike", "for influence")


@dataclass(frozen=True, kw_only=True)
class LikenessReport:
    """How many events are put down to others, beside placebos, and what that says."""

    forward: float
    backward: float
    """What likeness alone looks like: nobody is moved by what has not happened yet"""
    beyond: Measure
    """Forward minus backward for each user, with an interval by bootstrap over users"""
    n_users: int
    """Users to whom something is put down in either direction"""
    verdict: Verdict
    tests: tuple[LikenessTest, ...]
    """One row for each way to tell; the verdict is by the first, unless another speaks against it"""
    reasons: tuple[str, ...] = ()
    """What else led to the verdict, and what in the data could mislead"""

    def sentence(self) -> str:
        """Return the verdict and why."""
        return (
            f"Forwards {self.forward:,.1f} training events are put down to others, with time reversed "
            f"{self.backward:,.1f}; for each of {self.n_users:,} users {self.beyond} more. Verdict: {self.verdict}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def cells(self) -> list[list[str]]:
        """Return the table as texts, its header first."""
        return [list(_HEADER), *(test.cells() for test in self.tests)]

    def to_markdown(self) -> str:
        """Return the table in Markdown, with the verdict and its reasons."""
        header, *rows = (f"| {' | '.join(cells)} |" for cells in self.cells())
        return "\n".join([header, "|---|---|---:|---:|---:|---|---|", *rows, "", self.sentence(), *self.reasons]) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write `likeness.json` and `likeness.md`."""
        folder = made(folder)
        (folder / "likeness.json").write_text(self.to_json())
        (folder / "likeness.md").write_text(self.to_markdown())


def check_likeness(
    model: Social,
    train: Sequences,
    *,
    control_items: Sequence[Any] = (),
    artefacts: TieArtefacts | None = None,
    n_draws: int = 20,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> LikenessReport:
    """Hold what is put down to others against what would be if people were merely alike, and say which it is.

    People who are alike act on the same items before and after each other equally often; somebody who is moved acts
    after. So the verdict is by time reversed: "directed beyond likeness" where more is put down to others forwards, by
    an interval over users. It is taken back where a placebo gets as much as what it is a placebo of (times shuffled,
    ties rewired, future acts, acts before the tie, control items), or where the log's times have no direction. It does
    not see through somebody who merely always comes first. Anagnostopoulos, Kumar and Mahdian, Influence and
    correlation in social networks, 2008, reverse edges and shuffle times for the same reason.

    Args:
        model: fitted on `train`.
        control_items: items that no target could see, on which nobody can have been moved.
        artefacts: of these ties and events, if they are known.
        n_draws: how many times times are shuffled, and ties rewired.

    Raises:
        NotFittedError: the model is not fitted.
        ConfigError: the log is order-only, a number is out of range, or ties were read off it: these run both ways, so
            that what moves somebody forwards moves the other backwards, and nothing can be told from that.
        UnknownIdError: a control item is not in the log.
    """
    check_type("model", model, Social, "Social(ties, own=model).fit(sequences)")
    check_type("train", train, Sequences, "build_sequences(events)")
    if not model.ties.are_given:
        raise ConfigError(
            "ties that were read off the log run both ways, and time reversed tells nothing of them. Use ties that are "
            "known: build_ties(read_edges(...), sequences)."
        )
    check_int("n_draws", n_draws, 2)
    halfway, f_EK = model.halfway(train, progress=progress)
    back, place = train.backwards()
    line_EK = halfway.line_terms(train, f_EK)
    forward = halfway.received(train, line_EK)
    backward = halfway.received(back, halfway.line_terms(back, f_EK[place]))
    of_time = tests.time_reversed(forward, backward, n_resamples=n_resamples, seed=seed)
    probe = Probe(
        model=halfway.along(halfway.ties),
        train=train,
        f_EK=f_EK,
        line_EK=line_EK,
        ties=model.ties,
        n_draws=n_draws,
        n_resamples=n_resamples,
        seed=seed,
    )
    rows = (of_time, *tests.placebos(probe, control_items))
    artefacts = artefacts or find_tie_artefacts(model.ties, train, seed=seed)
    n_users = int(((forward >= 0.5) | (backward >= 0.5)).sum())
    assert of_time.beyond is not None
    return LikenessReport(
        forward=float(forward.sum()),
        backward=float(backward.sum()),
        beyond=of_time.beyond,
        n_users=n_users,
        verdict=_verdict(rows, n_users, artefacts),
        tests=rows,
        reasons=(*_failed(rows), *artefacts.sentences()),
    )


def _verdict(rows: Sequence[LikenessTest], n_users: int, artefacts: TieArtefacts) -> Verdict:
    if n_users < FEWEST or not artefacts.has_direction:
        return "not enough data"
    is_directed = rows[0].speaks == "for" and all(row.speaks != "against" for row in rows)
    return "directed beyond likeness" if is_directed else "likeness cannot be ruled out"


def _failed(rows: Sequence[LikenessTest]) -> list[str]:
    return [
        f"The placebo of {row.name!r} gets as much as what it is a placebo of."
        for row in rows
        if row.speaks == "against"
    ]
