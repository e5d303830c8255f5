"""Maps of importance on recommenders that read a set of items, by the protocol of LXR and SPINRec on MovieLens-1M.

Usage: python -m benchmarks.yardstick [--users N]

Ratings of four and five stars; users and items with at least two of them until that is so of all; four users in five to
learn from, the others to explain. Of each the best item that it has not is explained: its items are taken out in ten
steps, the most important first, and put in likewise. Barkan et al., A learning-to-explain approach for recommender
systems, 2024; the recommenders are of the kinds that they use (a factorisation, a variational autoencoder, a neural
collaborative filter, each over the history), trained here.

One map stands for a recommender in every metric: the one with the least POS@5 on users that were learned from.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
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
    order = np.random.default_rng(42).permutation(len(sets))
    n_learned = int(0.8 * len(sets))
    return sets[order[:n_learned]], sets[order[n_learned:]]


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
    """⟨Σ_j u_j, v_i⟩ + b_i, through a sigmoid."""

    is_softmax = False

    def __init__(self, n_items: int, dim: int = 64) -> None:
        super().__init__()
        self.user = nn.Linear(n_items, dim, bias=False)
        self.item = nn.Linear(dim, n_items)
        nn.init.normal_(self.user.weight, std=0.05)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the logit of each item."""
        return self.item(self.user(x_BI))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """A variational autoencoder with a multinomial likelihood; Liang et al., 2018."""

    is_softmax = True

    def __init__(self, n_items: int, hidden: int = 300, dim: int = 64) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(n_items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * dim))
        self.decode = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, n_items))
        self.divergence = torch.zeros(())

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the logit of each item."""
        length = x_BI.norm(dim=1, keepdim=True).clamp(min=1e-6)
        mean, log_var = self.encode(functional.dropout(x_BI / length, 0.5, self.training)).chunk(2, dim=1)
        if self.training:
            self.divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(dim=1).mean()
            mean = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        return self.decode(mean)  # type: ignore[no-any-return]


class NeuralFilter(nn.Module):
    """A factorisation and a small network over user and item vectors, added; He et al., 2017, over the history."""

    is_softmax = False

    def __init__(self, n_items: int, dim: int = 16, hidden: int = 16) -> None:
        super().__init__()
        self.factors = Factorisation(n_items, 32)
        self.user, self.item = nn.Linear(n_items, dim, bias=False), nn.Embedding(n_items, dim)
        self.of_user, self.of_item = nn.Linear(dim, hidden), nn.Linear(dim, hidden, bias=False)
        self.last = nn.Linear(hidden, 1, bias=False)
        nn.init.normal_(self.user.weight, std=0.05)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the logit of each item."""
        hidden_BH, hidden_IH = self.of_user(self.user(x_BI)), self.of_item(self.item.weight)
        deep = self.last(torch.relu(hidden_BH[:, None] + hidden_IH)).squeeze(2)
        return self.factors(x_BI) + deep  # type: ignore[no-any-return]


KINDS: dict[str, type[nn.Module]] = {
    "factorisation": Factorisation,
    "autoencoder": Autoencoder,
    "neural filter": NeuralFilter,
}


def train(kind: str, sets: np.ndarray, *, epochs: int = 40, seed: int = 0) -> nn.Module:
    """Learn to name the half of a user's items that is hidden from the other half; keep the best epoch.

    One learned-from user in ten only says when to stop.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = KINDS[kind](sets.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-6)
    held_out, learned = sets[: len(sets) // 10], sets[len(sets) // 10 :]
    halves = np.random.default_rng(1).random(held_out.shape) < 0.5
    best, weights, since = -1.0, {}, 0
    for _ in range(epochs):
        model.train()
        for rows in np.array_split(rng.permutation(len(learned)), len(learned) // 128):
            batch = learned[rows]
            shown = batch & (rng.random(batch.shape) < rng.uniform(0.3, 0.9))
            loss = _loss(model, torch.from_numpy(shown).float(), torch.from_numpy(batch & ~shown), rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = recall(model, held_out & halves, held_out & ~halves)
        since = 0 if found > best else since + 1
        if found > best:
            best, weights = found, {name: weight.clone() for name, weight in model.state_dict().items()}
        if since == 5:
            break
    model.load_state_dict(weights)
    print(f"{kind}: recall@20 of the hidden half {best:.3f}", flush=True)
    return model.eval()


def _loss(model: nn.Module, shown_BI: Tensor, hidden_BI: Tensor, rng: np.random.Generator) -> Tensor:
    logits_BI = model(shown_BI)
    if model.is_softmax:
        log_p_BI = functional.log_softmax(logits_BI, dim=1)
        return -(log_p_BI * hidden_BI).sum() / len(shown_BI) + 0.2 * model.divergence  # type: ignore[operator]
    # As many items that were not chosen as hidden ones.
    n_hidden = int(hidden_BI.sum())
    user = torch.from_numpy(rng.integers(0, len(shown_BI), n_hidden))
    item = torch.from_numpy(rng.integers(0, shown_BI.shape[1], n_hidden))
    others = logits_BI[user, item][(~hidden_BI & (shown_BI == 0))[user, item]]
    hidden = logits_BI[hidden_BI]
    return functional.softplus(-hidden).mean() + functional.softplus(others).mean()


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


def mixture(logits: np.ndarray, sets: np.ndarray, *, rivals: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the explained item of each user, and the weights over items of what is explained, (B, I)."""
    open_to = np.where(sets, -np.inf, logits)
    item = open_to.argmax(axis=1)
    weights = np.zeros_like(logits)
    if rivals:
        order = np.argsort(-open_to, axis=1)[:, 1 : 1 + N_RIVALS]
        np.put_along_axis(weights, order, -1 / N_RIVALS, axis=1)
    weights[np.arange(len(item)), item] = 1
    return item, weights


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


Map = Callable[[nn.Module, np.ndarray, Tensor], np.ndarray]
MAPS: dict[str, tuple[Map, bool]] = {
    "leave one out": (leave_one_out, False),
    "integrated gradients": (integrated_gradients, False),
    "leave one out, against rivals": (leave_one_out, True),
    "integrated gradients, against rivals": (integrated_gradients, True),
}
"""A map, and whether it explains the item's logit or how far it stands above its ten best rivals."""


def importances(model: nn.Module, sets: np.ndarray, name: str) -> np.ndarray:
    """Return the importance of each owned item of each user, (B, I)."""
    of_user, rivals = MAPS[name]
    _, weights = mixture(logits_of(model, sets), sets, rivals=rivals)
    return np.stack([of_user(model, s, torch.from_numpy(w)) for s, w in zip(sets, weights, strict=True)])


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
    item, _ = mixture(logits, sets, rivals=False)
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
        item, _ = mixture(logits_of(model, asked), asked, rivals=False)
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
