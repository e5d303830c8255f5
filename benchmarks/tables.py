"""Results on disk to Markdown tables: one for each set, or with `summary` one line for each ranking.

Usage: python -m benchmarks.tables [summary | SET …]
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.common import RESULTS

_SHOWN = ("HR@10", "NDCG@10", "AUC", "log loss", "MAE", "RMSE", "log-likelihood", "type error", "time RMSE")


BLACK_BOXES = ("sasrec", "hstu", "gru", "lstm")


def main(sets: list[str]) -> None:
    """Print the tables of these sets, or of all."""
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir() and (not sets or path.name in sets)):
        rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        if rows:
            print(f"\n{folder.name}: {rows[0].get('protocol', '')}; split {rows[0].get('split', '')}\n")
            print("\n".join([*table(rows), "", *price(rows), *speed(rows)]))


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of what all rows have in common."""
    lines = [line for row in rows for line in _lines(row)]
    shown = [name for name in _SHOWN if any(name in measures for _, measures, _ in lines)]
    header = ["model", *shown, "fit, s", "memory, MiB"]
    found = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for name, measures, row in lines:
        cells = [_cell(measures.get(metric)) for metric in shown]
        found.append(
            "| " + " | ".join([name, *cells, str(row.get("fit_seconds", "")), str(row["peak_memory_mib"])]) + " |"
        )
    return found


def price(rows: list[dict[str, Any]]) -> list[str]:
    """Return the line that says what exactness costs: the additive model beside the best black box of ours."""
    means = {name: sum(values) / len(values) for name, values in by_training(rows, "NDCG@10").items()}
    boxes = [name for name in BLACK_BOXES if name in means]
    if "additive" not in means or not boxes:
        return []
    best = max(boxes, key=lambda name: means[name])
    share = 1 - means["additive"] / means[best]
    return [
        f"price of exactness, NDCG@10: {share:+.1%} (additive {means['additive']:.4f}, best black box {best} "
        f"{means[best]:.4f}; below zero nothing is paid)"
    ]


def by_training(rows: list[dict[str, Any]], metric: str) -> dict[str, list[float]]:
    """Return what each training of each model has on the test, by model."""
    # By seed: a training may be there both alone and as a member of an ensemble.
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        name = row["model"].removesuffix("-ensemble")
        for one in row.get("members", [row]):
            if metric in one.get("test", {}):
                found.setdefault(name, {})[one.get("seed", 0)] = one["test"][metric]["mean"]
    return {name: list(values.values()) for name, values in found.items()}


def summary() -> None:
    """Print a line for each ranking: the additive model, the best black box of ours, the peer's, and counts."""
    print("| data | additive | best black box of ours | RecTools | decayed counts |\n|---|---:|---:|---:|---:|")
    for name, title in _RANKINGS.items():
        rows = [json.loads(path.read_text()) for path in sorted((RESULTS / name).glob("*.json"))]
        metrics = {metric: by_training(rows, metric) for metric in ("HR@10", "NDCG@10")}
        cells = [
            _best(metrics, among)
            for among in (("additive",), BLACK_BOXES, ("rectools-sasrec", "rectools-hstu"), ("counts",))
        ]
        print(f"| {title} | " + " | ".join(cells) + " |")


_RANKINGS = {
    "movielens-100k": "MovieLens-100K",
    "movielens-1m": "MovieLens-1M, four stars or more",
    "movielens-1m-by-time": "the same, split by time",
    "amazon-beauty": "Amazon Beauty",
    "amazon-sports": "Amazon Sports",
    "amazon-toys": "Amazon Toys",
}


def _best(metrics: dict[str, dict[str, list[float]]], among: tuple[str, ...]) -> str:
    """Return means over trainings of the model with the best NDCG@10, and how many there are."""
    there = [name for name in among if name in metrics["NDCG@10"]]
    if not there:
        return "–"
    means = {name: {metric: sum(of[name]) / len(of[name]) for metric, of in metrics.items()} for name in there}
    best = max(there, key=lambda name: means[name]["NDCG@10"])
    said = " / ".join(f"{mean:.4f}" for mean in means[best].values())
    return f"{_TITLES[best]} {said}".strip()


_TITLES = {
    "additive": "",
    "counts": "",
    "sasrec": "SASRec",
    "hstu": "HSTU",
    "gru": "GRU",
    "lstm": "LSTM",
    "rectools-sasrec": "SASRec",
    "rectools-hstu": "HSTU",
}


def speed(rows: list[dict[str, Any]]) -> list[str]:
    """Return how long the peer and we trained until 99 % of the peer's best validation NDCG@10, in CPU seconds."""
    ours = [row for row in rows if row["model"] == "additive" and "fit_cpu_seconds" in row]
    peers = [row for row in rows if row["model"].startswith("rectools-") and "train_cpu_seconds" in row["epochs"][0]]
    lines = []
    for peer in peers:
        wanted = 0.99 * max(epoch["ndcg@10"] for epoch in peer["epochs"])
        theirs = _until([(epoch["ndcg@10"], epoch["train_cpu_seconds"]) for epoch in peer["epochs"]], wanted)
        assert theirs is not None, "its best epoch is as good as wanted"
        for row in ours:
            # An epoch's share of the CPU seconds is that of its seconds.
            factor = row["fit_cpu_seconds"] / row["fit_seconds"]
            epochs = [(epoch["validation_ndcg@10"], epoch["seconds"] * factor) for epoch in row["epochs"]]
            seconds = _until(epochs, wanted)
            said = "never" if seconds is None else f"{seconds:.0f} s, {theirs / seconds:.1f} times as fast"
            lines.append(
                f"until validation NDCG@10 {wanted:.4f}: {peer['model']} {theirs:.0f} s, additive, seed {row['seed']}, "
                f"{said}; peak memory {peer['peak_memory_mib']} and {row['peak_memory_mib']} MiB"
            )
    return lines


def _until(epochs: list[tuple[float, float]], wanted: float) -> float | None:
    """Return the seconds of the epochs up to the first that is as good as wanted."""
    total = 0.0
    for score, seconds in epochs:
        total += seconds
        if score >= wanted:
            return total
    return None


def _lines(row: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    seeded = f", seed {row['seed']}" if "seed" in row else ""
    test = row["test"]
    # Labels are judged beside a constant: the other row is the model's.
    nested = [measures for who, measures in test.items() if who != "constant" and "mean" not in measures]
    lines = [(row["model"] + seeded, nested[0] if nested else test, row)]
    if "refitted" in row:
        lines.append((f"{row['model']}{seeded}, refitted", row["refitted"]["test"], {**row, **row["refitted"]}))
    for member in row.get("members", []):
        # Time and memory are the whole ensemble's.
        of_member = {**member, "model": f"member of {row['model']}", "peak_memory_mib": ""}
        lines += _lines(of_member) if "test" in member else []
    return lines


def _cell(measure: dict[str, float] | None) -> str:
    return "" if measure is None else f"{measure['mean']:.4f} [{measure['low']:.4f}, {measure['high']:.4f}]"


if __name__ == "__main__":
    if sys.argv[1:] == ["summary"]:
        summary()
    else:
        main(sys.argv[1:])
