"""What a model says of validation events and labels, to one score for each task; higher is better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.models.examples import Examples
from influent.models.ranks import BATCH, ndcg, target_ranks

if TYPE_CHECKING:
    from influent.models.predictor import Predictor


def validation_scores(model: Predictor, examples: Examples) -> dict[str, float]:
    """Return the score of each of the model's tasks, the first task's first: what decides when training stops.

    The score is NDCG@10 for ranking, the log-likelihood for time, and minus the loss for labels. Where time comes first
    and ranking is there too, the log-likelihood of the next event, its time and its item together, leads.
    """
    found: dict[str, float] = {}
    for task in model.tasks:
        if task == "ranking":
            assert examples.validation is not None
            ranks, offsets = target_ranks(model, examples.validation, seen=model.train.seen)
            found["ndcg@10"] = float(ndcg(ranks, offsets, k=10).mean())
        elif task == "time":
            assert examples.validation is not None
            log_density = model.log_density(examples.validation)
            if not found and "ranking" in model.tasks:
                found["log_likelihood"] = _mean(log_density + _log_chance(model, examples.validation))
            found["log_density"] = _mean(log_density)
        else:
            for _, asked in examples.labels:
                if asked.kind == task:
                    found[f"score of {asked.name}"] = -_label_loss(model, asked)
    return found


def _mean(values: np.ndarray) -> float:
    """Return the mean of what is known, NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _log_chance(model: Predictor, moments: Moments) -> np.ndarray:
    """Return the log-probability of the first item that came next, (N,); NaN where none came or it is unknown."""
    found = np.full(len(moments), np.nan)
    for first in range(0, len(moments), BATCH):
        some = moments.take(slice(first, first + BATCH))
        rows = np.flatnonzero(some.target_stop > some.stop)
        item = some.sequences.item_idx[some.stop[rows]]
        rows, item = rows[item >= 0], item[item >= 0]
        log_RI = torch.log_softmax(torch.from_numpy(model.predict(some.take(rows))), dim=1)
        found[first + rows] = log_RI[torch.arange(len(rows)), torch.from_numpy(item).long()].numpy()
    return found


def _label_loss(model: Predictor, labels: Labels) -> float:
    """Return the mean log loss, or the mean squared error in the label's unit."""
    answer = model.predict(labels)
    if labels.kind == "regression":
        return float(((answer - labels.label) ** 2).mean())
    of_label = np.where(labels.label == 1, answer, 1 - answer)
    return float(-np.log(np.maximum(of_label, 1e-12)).mean())
