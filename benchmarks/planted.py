"""Credits beside the truth of planted worlds: do they name the event that caused what came next?

Usage: python -m benchmarks.planted [--users N]

In a world each event knows which event caused it. At three levels of noise (how much of the log is caused at all),
every method is judged by the same predictions: average precision of its credits for the true causes, over all pairs
of a prediction and an event read for it, and how far the mean credit by action and gap is from the true kernel.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import influent
from benchmarks.common import measured_on, write_result
from influent import schema
from influent.evaluation.truth import recover_causes
from influent.models.methods import MethodName

STRENGTHS = {"little noise": 1.2, "middle": 1.0, "much noise": 0.6}
"""What the strength of every action is multiplied by: the share of caused events falls with it."""

SETTINGS: dict[str, dict[str, Any]] = {
    "additive": {"backbone": "additive"},
    "sasrec": {"backbone": "sasrec", "max_len": 100},
    "gru": {"backbone": "gru", "max_len": 100},
}
METHODS: dict[str, tuple[MethodName, ...]] = {
    "additive": ("exact", "gradient", "similarity"),
    "sasrec": ("leave_one_out", "integrated_gradients", "shapley", "gradient", "attention", "similarity"),
    "gru": ("leave_one_out", "integrated_gradients", "gradient", "similarity"),
}
GAP_EDGES_S = np.array([0, 600, 3600, 4 * 3600, 86400, 3 * 86400, 7 * 86400, 14 * 86400, np.inf])


def main(n_users: int) -> None:
    """Judge every method in every world, and write the result."""
    about, found = measured_on(), {}
    for noise, strength in STRENGTHS.items():
        world = influent.simulate_world(influent.WorldConfig(n_users=n_users, strength_scale=strength))
        events = influent.clean(influent.read_events(world.events), drop_duplicates=False)
        split = influent.split_last(influent.build_sequences(events))
        parent = world.parents.column("parent_event_id").fill_null(-1).to_numpy()
        cause = parent[split.test.sequences.event_id[split.test.stop]]
        share = float((parent >= 0).mean())
        print(f"\n{noise}: {world.events.num_rows:,} events, {share:.0%} of them caused by another", flush=True)
        rows: dict[str, dict[str, Any]] = {}
        for name, settings in SETTINGS.items():
            model = influent.Predictor(model=influent.ModelConfig.from_dict(settings))
            model.fit(split.train, split.validation)
            for method in METHODS[name]:
                ledger = influent.explain(model, split.test, method=method)
                rows[f"{name}, {method}"] = judge(ledger, cause, world)
                _say(f"{name}, {method}", rows)
        ledger = influent.explain(influent.DecayedCounts().fit(split.train), split.test)
        rows["counts, exact"] = judge(ledger, cause, world)
        for name, order in references(ledger).items():
            rows[name] = judge(with_credits(ledger, order), cause, world)
            _say(name, rows)
        found[noise] = {"share_caused": share, "rows": rows}
    write_result("planted", {**about, "n_users": n_users, "worlds": found})


def judge(ledger: influent.Ledger, cause: np.ndarray, world: influent.World) -> dict[str, Any]:
    """Return how well credits find causes, and how like the true kernel they are."""
    return {**asdict(recover_causes(ledger, cause)), "kernel_error": kernel_error(ledger, world)}


def kernel_error(ledger: influent.Ledger, world: influent.World) -> float:
    """Return how far mean credits by action and gap are from the true intensities there, as a share.

    Of the cells with a hundred events and more, credits are scaled to the truth by least squares; the error is the
    root mean square of what is left, weighed by events, divided by that of the truth.
    """
    rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "event"))
    action = np.array(rows.column(schema.SOURCE_ACTION).to_pylist())
    gap_s = rows.column(schema.GAP_US).to_numpy() / 1e6
    credit = rows.column(schema.CREDIT).to_numpy()
    strength = dict(zip(*(world.actions.column(n).to_pylist() for n in ("action", "strength")), strict=True))
    bucket = np.clip(np.searchsorted(GAP_EDGES_S, gap_s, side="right") - 1, 0, len(GAP_EDGES_S) - 2)
    mean, truth, weight = [], [], []
    for name in strength:
        kernel = [row for row in world.kernels.to_pylist() if row["action"] == name]
        density = sum(
            row["weight"] / (row["scale_us"] / 1e6) * np.exp(-gap_s / (row["scale_us"] / 1e6)) for row in kernel
        )
        for place in range(len(GAP_EDGES_S) - 1):
            cell = (action == name) & (bucket == place)
            if cell.sum() >= 100:
                mean.append(credit[cell].mean())
                truth.append(float((strength[name] * density[cell]).mean()))
                weight.append(int(cell.sum()))
    # Intensities span orders of magnitude and credits are logits: what is compared is the logarithm's shape.
    m, t, w = np.array(mean), np.log1p(np.array(truth) * 86400), np.array(weight, float)
    scale = (w * m * t).sum() / max((w * m * m).sum(), 1e-12)
    return float(np.sqrt((w * (scale * m - t) ** 2).sum() / (w * t**2).sum()))


def references(ledger: influent.Ledger) -> dict[str, np.ndarray]:
    """Return orders that look at no model, as credits of the ledger's event rows."""
    rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "event"))
    return {
        "recency": -rows.column(schema.LAG).to_numpy().astype(np.float64),
        "the same item": np.array(
            [
                float(source == item)
                for source, item in zip(
                    rows.column(schema.SOURCE_ITEM_ID).to_pylist(), rows.column(schema.ITEM_ID).to_pylist(), strict=True
                )
            ]
        ),
        "random": np.random.default_rng(0).random(rows.num_rows),
    }


def with_credits(ledger: influent.Ledger, credit: np.ndarray) -> influent.Ledger:
    """Return a ledger whose event rows have other credits; it does not close."""
    is_event = pc.equal(ledger.table.column(schema.SOURCE), "event").to_numpy()
    column = ledger.table.column(schema.CREDIT).to_numpy().copy()
    column[is_event] = credit
    place = ledger.table.column_names.index(schema.CREDIT)
    return replace(ledger, table=ledger.table.set_column(place, schema.CREDIT, pa.array(column)))


def _say(name: str, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[name]
    print(
        f"  {name}: average precision {row['average_precision']:.3f}, largest credit right "
        f"{row['largest_credit']:.1%}, kernel error {row['kernel_error']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=800)
    main(parser.parse_args().users)
