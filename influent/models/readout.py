"""One question of a model that answers several, as a model of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from influent.data.labels import Labels
from influent.data.vocab import Vocab
from influent.errors import ConfigError
from influent.progress import Progress

if TYPE_CHECKING:
    from influent.models.predictor import Predictor


@dataclass(frozen=True)
class Readout:
    """One question of a joint model, with the methods of a model of labels."""

    predictor: Predictor
    label_mean: float
    """The mean of the question's training labels"""
    fitted_on: str
    """The fingerprint of these labels"""

    @property
    def name(self) -> str:
        """Return how reports call it."""
        return self.predictor.name

    @property
    def vocab(self) -> Vocab:
        """Return the ids it was fitted with."""
        return self.predictor.vocab

    def predict(self, labels: Labels) -> np.ndarray:
        """Answer each question, float64 (L,)."""
        return self.predictor.predict(labels)

    def fit(self, train: Labels, validation: Labels | None = None, *, progress: Progress | None = None) -> Self:
        """Refuse: a joint model learns its questions together.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("this is one question of a joint model. Fit the Predictor that it is of.")

    def save(self, folder: str | Path) -> None:
        """Write the joint model."""
        self.predictor.save(folder)
