"""Maps of importance on recommenders that read a set of items, by the protocol of LXR and SPINRec on MovieLens-1M.

Usage: python -m benchmarks.yardstick [--users N]

Ratings of four and five stars; users and items with at least two of them until that is so of all; four users in five to
learn from, the others to explain. Of each the best item that it has not is explained: its items are taken out in ten
steps, the most important first, and put in likewise. Barkan et al., A learning-to-explain approach for recommender
systems, 2024; the recommenders (a factorisation, a variational autoencoder, a neural collaborative filter, each over
the history) have the shapes, losses and rates that go with Barkan et al., Fidelity-aware recommendation explanations
via stochastic path integration, 2025, and are trained here.

One map stands for a recommender in every metric: the one with the least POS@5 on users that were learned from.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

import influent
from benchmarks.common import data_set, measured_on, write_result
from influent.evaluation.metrics import bootstrap_interval
from influent.evaluation.report import Measure

LISTS = (5, 10, 20)
N_BINS = 10
N_RIVALS = 10
PUBLISHED = {
    "factorisation": {"POS@5": 0.418, "INS": 0.939},
    "autoencoder": {"POS@5": 0.234, "INS": 0.029},
    "neural filter": {"POS@5": 0.210, "INS": 0.807},
}
"""Single-map rows of SPINRec's paper, of other trainings of the same kinds of recommender."""


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return the sets of items of the users to learn from and of those to explain, bool (U, I)."""
    liked = liked_often(pd.read_parquet(data_set("movielens-1m") / "events.parquet"))
    user, item = (pd.factorize(liked[key], sort=True)[0] for key in ("user_id", "item_id"))
    sets = sparse.csr_array((np.ones(len(user), bool), (user, item))).toarray()
    learned, asked = train_test_split(np.arange(len(sets)), test_size=0.2, random_state=42)
    return sets[learned], sets[asked]


def liked_often(log: pd.DataFrame) -> pd.DataFrame:
    """Return ratings of four and five stars of users and items that have at least two of them."""
    liked = log[log["value"] >= 4].drop_duplicates(["user_id", "item_id"])
    while True:
        by_user, by_item = (liked[key].map(liked[key].value_counts()) for key in ("user_id", "item_id"))
        keep = (by_user >= 2) & (by_item >= 2)
        if keep.all():
            return liked
        liked = liked[keep]


class Factorisation(nn.Module):
    """⟨Σ_j u_j + a, v_i + c⟩, through a sigmoid; the error of the output is squared."""

    batch_size, rate, is_softmax = 256, 0.0076, False

    def __init__(self, n_items: int, dim: int = 32) -> None:
        super().__init__()
        self.user, self.item = nn.Linear(n_items, dim), nn.Linear(n_items, dim)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the logit of each item."""
        return self.user(x_BI) @ (self.item.weight + self.item.bias[:, None])  # type: ignore[no-any-return]

    def loss(self, x_BI: Tensor, item_B2: Tensor) -> Tensor:
        """Return the loss of a chosen and another item of each user."""
        chosen_B, other_B = self(x_BI).gather(1, item_B2).sigmoid().unbind(1)
        return ((1 - chosen_B) ** 2 + other_B**2).mean()  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """A variational autoencoder with a multinomial likelihood; Liang et al., 2018.

    It names all that a user has. The weight of the divergence rises by 1 / 200,000 with each step, and the noise is a
    hundredth of what the variance says.
    """

    batch_size, rate, is_softmax = 128, 0.0007, True

    def __init__(self, n_items: int, hidden: int = 512, dim: int = 128) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(n_items, hidden), nn.ReLU(), nn.Linear(hidden, 2 * dim))
        self.decode = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, n_items))
        self.n_steps = 0

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the logit of each item."""
        return self.decode(self._encoded(x_BI)[0])  # type: ignore[no-any-return]

    def loss(self, x_BI: Tensor) -> Tensor:
        """Return the loss of all items of each user."""
        mean_BD, log_var_BD = self._encoded(x_BI)
        logits_BI = self.decode(mean_BD + 0.01 * torch.randn_like(mean_BD) * (0.5 * log_var_BD).exp())
        divergence = 0.5 * (mean_BD**2 + log_var_BD.exp() - 1 - log_var_BD).sum(dim=1).mean()
        self.n_steps += 1
        likelihood = (functional.log_softmax(logits_BI, dim=1) * x_BI).sum(dim=1).mean()
        return min(0.2, self.n_steps / 200_000) * divergence - likelihood

    def _encoded(self, x_BI: Tensor) -> tuple[Tensor, Tensor]:
        x_BI = functional.dropout(functional.normalize(x_BI, dim=1), 0.5, self.training)
        mean_BD, log_var_BD = self.encode(x_BI).chunk(2, dim=1)
        return mean_BD, log_var_BD


class NeuralFilter(nn.Module):
    """A factorisation and a network of three layers over user and item vectors; He et al., 2017, over the history."""

    batch_size, rate, is_softmax = 64, 0.001, False

    def __init__(self, n_items: int, dim: int = 8) -> None:
        super().__init__()
        self.user, self.item = (nn.Linear(n_items, dim, bias=False) for _ in range(2))
        self.deep_user, self.deep_item = nn.Linear(n_items, 4 * dim), nn.Linear(n_items, 4 * dim, bias=False)
        self.first_user, self.first_item = nn.Linear(4 * dim, 4 * dim), nn.Linear(4 * dim, 4 * dim, bias=False)
        self.rest = nn.Sequential(
            *(nn.ReLU(), nn.Dropout(0.5), nn.Linear(4 * dim, 2 * dim)),
            *(nn.ReLU(), nn.Dropout(0.5), nn.Linear(2 * dim, dim), nn.ReLU()),
        )
        self.last = nn.Linear(2 * dim, 1)

    def forward(self, x_BI: Tensor, item_BC: Tensor | None = None) -> Tensor:
        """Return the logit of each item, (B, I), or of each user's own items, (B, C)."""
        items = slice(None) if item_BC is None else item_BC
        wide_BCD = self.user(x_BI)[:, None] * self.item.weight.T[items]
        hidden_BH = self.first_user(functional.dropout(self.deep_user(x_BI), 0.5, self.training))
        hidden_CH = self.first_item(functional.dropout(self.deep_item.weight.T[items], 0.5, self.training))
        deep_BCD = self.rest(hidden_BH[:, None] + hidden_CH)
        return self.last(torch.cat([wide_BCD, deep_BCD], dim=2)).squeeze(2)  # type: ignore[no-any-return]

    def loss(self, x_BI: Tensor, item_B2: Tensor) -> Tensor:
        """Return the loss of a chosen and another item of each user."""
        chosen_B, other_B = self(x_BI, item_B2).unbind(1)
        return (functional.softplus(-chosen_B) + functional.softplus(other_B)).mean()


KINDS: dict[str, type[Factorisation | Autoencoder | NeuralFilter]] = {
    "factorisation": Factorisation,
    "autoencoder": Autoencoder,
    "neural filter": NeuralFilter,
}


def train(kind: str, sets: np.ndarray, *, epochs: int = 300, patience: int = 20, seed: int = 0) -> nn.Module:
    """Learn from all users but one in ten, which say which epoch is best.

    The autoencoder learns to name all items of a user. The others are shown each user's items but one in each epoch,
    and learn to tell that one from another that the user has not, drawn as it is popular.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = KINDS[kind](sets.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=model.rate)
    held_out, learned = sets[: len(sets) // 10], sets[len(sets) // 10 :]
    halves = np.random.default_rng(1).random(held_out.shape) < 0.5
    popularity = learned.sum(axis=0)
    best, weights, since = -1.0, {}, 0
    for _ in range(epochs):
        model.train()
        for rows in np.array_split(rng.permutation(len(learned)), len(learned) // model.batch_size):
            batch = learned[rows]
            if isinstance(model, Autoencoder):
                loss = model.loss(torch.from_numpy(batch).float())
            else:
                item_B2 = np.stack([drawn(batch, rng), drawn(~batch * popularity, rng)], axis=1)
                shown = batch.copy()
                np.put_along_axis(shown, item_B2[:, :1], False, axis=1)
                loss = model.loss(torch.from_numpy(shown).float(), torch.from_numpy(item_B2))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = recall(model, held_out & halves, held_out & ~halves)
        since = 0 if found > best else since + 1
        if found > best:
            best, weights = found, {name: weight.clone() for name, weight in model.state_dict().items()}
        if since == patience:
            break
    model.load_state_dict(weights)
    print(f"{kind}: recall@20 of the hidden half {best:.3f}", flush=True)
    return model.eval()


def drawn(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an item of each user, (B, I) to int64 (B,), drawn with chances in proportion to the weights."""
    summed = np.cumsum(weights, axis=1, dtype=np.float64)
    at = rng.random(len(weights)) * summed[:, -1]
    return (summed <= at[:, None]).sum(axis=1)  # type: ignore[no-any-return]


@torch.inference_mode()
def recall(model: nn.Module, shown: np.ndarray, hidden: np.ndarray, k: int = 20) -> float:
    """Return the mean share of the hidden items (at most k) that are among the best k of the others."""
    model.eval()
    logits = logits_of(model, shown)
    logits[shown] = -np.inf
    top = np.argpartition(-logits, k, axis=1)[:, :k]
    n = np.minimum(hidden.sum(axis=1), k)
    return float((np.take_along_axis(hidden, top, 1).sum(axis=1)[n > 0] / n[n > 0]).mean())


@torch.inference_mode()
def logits_of(model: nn.Module, sets: np.ndarray, batch: int = 64) -> np.ndarray:
    """Return the logits of sets of items, float32 (B, I)."""
    parts = [model(torch.from_numpy(sets[i : i + batch]).float()).numpy() for i in range(0, len(sets), batch)]
    return np.concatenate(parts)


def top_item(logits: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return the best item of each user that it has not, int64 (B,)."""
    return np.where(sets, -np.inf, logits).argmax(axis=1)  # type: ignore[no-any-return]


@torch.inference_mode()
def leave_one_out(model: nn.Module, owned: np.ndarray, weights: Tensor) -> np.ndarray:
    """Return what taking each owned item out takes from Σ weights · logits."""
    without = np.tile(owned, (int(owned.sum()), 1))
    places = np.flatnonzero(owned)
    without[np.arange(len(places)), places] = False
    found = np.zeros(len(owned), np.float64)
    whole = (model(torch.from_numpy(owned[None]).float()) * weights).sum()
    for first in range(0, len(places), 64):
        some = model(torch.from_numpy(without[first : first + 64]).float()) @ weights
        found[places[first : first + 64]] = (whole - some).numpy()
    return found


def integrated_gradients(model: nn.Module, owned: np.ndarray, weights: Tensor, n_steps: int = 20) -> np.ndarray:
    """Return the path integral of the gradient from the empty set to the owned one; Sundararajan et al., 2017."""
    x = torch.from_numpy(owned).float()
    steps = (torch.arange(n_steps) + 0.5) / n_steps
    inputs = (steps[:, None] * x).requires_grad_()
    (gradient,) = torch.autograd.grad((model(inputs) @ weights).sum(), inputs)
    return (gradient.mean(dim=0) * x).numpy().astype(np.float64)


OfLogits = Callable[[nn.Module, np.ndarray, Tensor], np.ndarray]
"""What each owned item, bool (I,), is for a weighted sum of logits, (I,)"""


def of_item(method: OfLogits, model: nn.Module, owned: np.ndarray, item: int) -> np.ndarray:
    """Return what each owned item is for the logit of an item."""
    weights = torch.zeros(len(owned))
    weights[item] = 1
    return method(model, owned, weights)


def against_rivals(method: OfLogits, model: nn.Module, owned: np.ndarray, item: int) -> np.ndarray:
    """Return what each owned item is for how far an item stands above the ten best others."""
    return method(model, owned, _margin(model, owned, owned, item))


def in_steps(method: OfLogits, model: nn.Module, owned: np.ndarray, item: int) -> np.ndarray:
    """Return in which of ten steps each owned item is taken out, ten of the first to one of the last.

    In each step the most important tenth goes, by how far the item stands above its ten best rivals without what is
    already gone. Within a step the more important has the larger part of 1 in addition.
    """
    left, found = owned.copy(), np.zeros(len(owned))
    n_owned = int(owned.sum())
    for step in range(N_BINS):
        importance = np.where(left, method(model, left, _margin(model, left, owned, item)), -np.inf)
        n_out = n_owned * (step + 1) // N_BINS - n_owned * step // N_BINS
        out = np.argsort(-importance, kind="stable")[:n_out]
        found[out] = N_BINS - step + np.linspace(0.9, 0, n_out)
        left[out] = False
    return found


def _margin(model: nn.Module, shown: np.ndarray, owned: np.ndarray, item: int) -> Tensor:
    """Return weights of logits, (I,): 1 of the item and −1/10 of each of the ten best others that are not owned."""
    logits = logits_of(model, shown[None])[0]
    logits[owned] = -np.inf
    logits[item] = -np.inf
    weights = torch.zeros(len(owned))
    weights[torch.from_numpy(np.argpartition(-logits, N_RIVALS)[:N_RIVALS])] = -1 / N_RIVALS
    weights[item] = 1
    return weights


METHODS: dict[str, OfLogits] = {"leave one out": leave_one_out, "integrated gradients": integrated_gradients}
QUESTIONS = {"": of_item, ", against rivals": against_rivals, ", in steps": in_steps}
MAPS = {
    name + question: partial(asked, method) for question, asked in QUESTIONS.items() for name, method in METHODS.items()
}
"""Maps from a recommender, what a user owns and an item to the importance of each owned item, (I,)"""


def importances(model: nn.Module, sets: np.ndarray, name: str) -> np.ndarray:
    """Return the importance of each owned item of each user, (B, I)."""
    items = top_item(logits_of(model, sets), sets)
    return np.stack([MAPS[name](model, owned, int(item)) for owned, item in zip(sets, items, strict=True)])


def references(learned: np.ndarray, sets: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
    """Return importances that do not look at the model."""
    x = sparse.csr_array(learned.astype(np.float32))
    together = (x.T @ x).toarray()
    length = np.sqrt(np.maximum(np.diag(together), 1))
    return {
        "cosine in the log": (together / np.outer(length, length))[item],
        "popularity": np.broadcast_to(np.diag(together), sets.shape),
        "random": np.random.default_rng(0).random(sets.shape),
    }


def judge(model: nn.Module, sets: np.ndarray, importance: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of each user, (B,)."""
    logits = logits_of(model, sets)
    item = top_item(logits, sets)
    n = sets.sum(axis=1)[:, None]
    # The place of each owned item, the most important first; the others come behind.
    place = np.argsort(np.argsort(np.where(sets, -importance, np.inf), axis=1, kind="stable"), axis=1)
    back = np.argsort(np.argsort(np.where(sets, importance, np.inf), axis=1, kind="stable"), axis=1)
    points = range(N_BINS + 1)
    away = [_standing(model, sets & (place >= n * p // N_BINS), sets, item) for p in points]
    last = [_standing(model, sets & (back >= n * p // N_BINS), sets, item) for p in points]
    come = [_standing(model, sets & (place < n * p // N_BINS), sets, item) for p in points]
    found = {f"POS@{k}": np.mean([rank <= k for rank, _ in away], axis=0) for k in LISTS}
    found |= {f"NEG@{k}": np.mean([rank <= k for rank, _ in last], axis=0) for k in LISTS}
    return found | {"DEL": np.mean([p for _, p in away], axis=0), "INS": np.mean([p for _, p in come], axis=0)}


def _standing(model: nn.Module, x: np.ndarray, owned: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the item's rank among what the whole history has not, and the recommender's output for it."""
    logits = logits_of(model, x)
    own = logits[np.arange(len(item)), item]
    if model.is_softmax:
        output = np.exp(own - np.logaddexp.reduce(logits.astype(np.float64), axis=1))
    else:
        output = 1 / (1 + np.exp(-own.astype(np.float64)))
    return 1 + (np.where(owned, -np.inf, logits) > own[:, None]).sum(axis=1), output


def measured(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return means over users with intervals."""
    return {
        metric: asdict(Measure(float(v.mean()), *bootstrap_interval(v, np.arange(len(v)))))
        for metric, v in values.items()
    }


def main(n_users: int) -> None:
    """Train, choose a map, judge, and write the result."""
    about = measured_on()
    learned, asked = load()
    print(f"{len(learned) + len(asked):,} users, {learned.shape[1]:,} items", flush=True)
    asked = asked[:n_users]
    progress = influent.progress_for(sys.stderr)
    found: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]]
    for kind in KINDS:
        model = train(kind, learned)
        some = learned[-200:]
        trial = {name: judge(model, some, importances(model, some, name))["POS@5"].mean() for name in MAPS}
        chosen = min(trial, key=lambda name: trial[name])
        rows = {}
        with progress.track(kind, len(MAPS)) as advance:
            for name in MAPS:
                started = time.perf_counter()
                importance = importances(model, asked, name)
                seconds = time.perf_counter() - started
                rows[name] = {"seconds": round(seconds, 2), **measured(judge(model, asked, importance))}
                advance()
        item = top_item(logits_of(model, asked), asked)
        for name, importance in references(learned, asked, item).items():
            rows[name] = measured(judge(model, asked, importance))
        found[kind] = {"chosen": chosen, "rows": rows, "published": PUBLISHED[kind]}
        best = rows[chosen]
        print(
            f"{kind}: {chosen}: POS@5 {best['POS@5']['mean']:.3f} (published {PUBLISHED[kind]['POS@5']:.3f}), "
            f"INS {best['INS']['mean']:.3f} (published {PUBLISHED[kind]['INS']:.3f})",
            flush=True,
        )
    write_result("yardstick", {**about, "n_users": len(asked), "n_items": learned.shape[1], "recommenders": found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="how many of the users to explain; all unless told")
    main(parser.parse_args().users)
