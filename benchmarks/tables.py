"""Results on disk to Markdown tables, one for each set.

Usage: python -m benchmarks.tables [SET …]
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
    # By seed: a training may be there both alone and as a member of an ensemble.
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        name = row["model"].removesuffix("-ensemble")
        for one in row.get("members", [row]):
            if name in ("additive", *BLACK_BOXES) and "NDCG@10" in one.get("test", {}):
                found.setdefault(name, {})[one["seed"]] = one["test"]["NDCG@10"]["mean"]
    means = {name: sum(values.values()) / len(values) for name, values in found.items()}
    boxes = [name for name in BLACK_BOXES if name in means]
    if "additive" not in means or not boxes:
        return []
    best = max(boxes, key=lambda name: means[name])
    share = 1 - means["additive"] / means[best]
    return [
        f"price of exactness, NDCG@10: {share:+.1%} (additive {means['additive']:.4f}, best black box {best} "
        f"{means[best]:.4f}; below zero nothing is paid)"
    ]


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
    main(sys.argv[1:])
