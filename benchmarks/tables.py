"""Results on disk to Markdown tables, one for each set.

Usage: python -m benchmarks.tables [SET …]
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.common import RESULTS

_SHOWN = ("HR@10", "NDCG@10", "AUC", "log loss", "MAE", "RMSE", "log-likelihood", "type error", "time RMSE")


def main(sets: list[str]) -> None:
    """Print the tables of these sets, or of all."""
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir() and (not sets or path.name in sets)):
        rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        if rows:
            print(f"\n{folder.name}: {rows[0].get('protocol', '')}; split {rows[0].get('split', '')}\n")
            print("\n".join(table(rows)))


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


def _lines(row: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    seeded = f", seed {row['seed']}" if "seed" in row else ""
    test = row["test"]
    # Labels are judged beside a constant: the other row is the model's.
    nested = [measures for who, measures in test.items() if who != "constant" and "mean" not in measures]
    lines = [(row["model"] + seeded, nested[0] if nested else test, row)]
    if "refitted" in row:
        lines.append((f"{row['model']}{seeded}, refitted", row["refitted"]["test"], {**row, **row["refitted"]}))
    return lines


def _cell(measure: dict[str, float] | None) -> str:
    return "" if measure is None else f"{measure['mean']:.4f} [{measure['low']:.4f}, {measure['high']:.4f}]"


if __name__ == "__main__":
    main(sys.argv[1:])
