"""Credits beside the truth of planted worlds: do they name the event that caused what came next?

Usage: python -m benchmarks.planted [--users N]

In a world each event knows which event caused it. At three levels of noise (how much of the log is caused at all),
every method is judged by the same predictions: average precision of its credits for the true causes, over all pairs
of a prediction and an event read for it, and how far events' shares of a prediction, by action and gap, are from those
of the true rates.
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
from influent.evaluation.report import Measure
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
        for name, order in references(ledger, world).items():
            rows[name] = judge(with_credits(ledger, order), cause, world)
            _say(name, rows)
        found[noise] = {"share_caused": share, "rows": rows}
    write_result("planted", {**about, "n_users": n_users, "worlds": found})


def judge(ledger: influent.Ledger, cause: np.ndarray, world: influent.World) -> dict[str, Any]:
    """Return how well credits find causes, and how like the true kernel they are."""
    error = kernel_error(ledger, world)
    return {**asdict(recover_causes(ledger, cause)), "kernel_error": None if error is None else asdict(error)}


def kernel_error(ledger: influent.Ledger, world: influent.World) -> Measure | None:
    """Return how far shares of credit by action and gap are from shares of the true rate, in parts of the latter.

    An event's share is its credit over the sum of the positive credits of its prediction, or nothing where its own is
    below 0; its true share is the same of its true rate, the chance that it is the cause where one of the events is.
    Mean shares are compared in cells of action and gap with a hundred events and more; the error is the root mean
    square of the difference, weighed by events, divided by that of the truth, with a 95 % interval by bootstrap over
    predictions. Predictions that no event of the history can have led to, or without any positive credit, have no
    shares and are left out; None where all are.
    """
    rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "event"))
    _, prediction = np.unique(rows.column(schema.PREDICTION_ID).to_numpy(), return_inverse=True)
    _, action = np.unique(rows.column(schema.SOURCE_ACTION).to_pylist(), return_inverse=True)
    bucket = np.searchsorted(GAP_EDGES_S[1:-1], rows.column(schema.GAP_US).to_numpy() / 1e6, side="right")
    shares = []
    for size in (true_rates(ledger, world), np.maximum(rows.column(schema.CREDIT).to_numpy(), 0)):
        total = np.bincount(prediction, weights=size)[prediction]
        shares.append(np.divide(size, total, out=np.full(len(size), np.nan), where=total > 0))
    true_share, share = shares
    has_both = np.isfinite(true_share) & np.isfinite(share)
    _, owner = np.unique(prediction[has_both], return_inverse=True)
    cell = (action * len(GAP_EDGES_S) + bucket)[has_both]
    is_large = np.bincount(cell) >= 100
    if not is_large.any():
        return None
    shape = owner.max() + 1, len(is_large)
    counted_PC, true_PC, found_PC = (
        np.bincount(owner * shape[1] + cell, weights, np.prod(shape)).reshape(shape)[:, is_large]
        for weights in (np.ones(len(cell)), true_share[has_both], share[has_both])
    )
    rng = np.random.default_rng(0)
    drawn_RP = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=1000)
    n_RC, truth_RC, off_RC = (
        np.concatenate([np.ones((1, shape[0])), drawn_RP]) @ sums for sums in (counted_PC, true_PC, found_PC - true_PC)
    )
    # Weighed by events, the mean square of a cell's mean is Σ sum² / n over Σ n.
    squares = (np.sum(np.square(sums) / np.maximum(n_RC, 1), axis=1) for sums in (off_RC, truth_RC))
    error, *resampled = np.sqrt(np.divide(*squares))
    return Measure(float(error), *(float(end) for end in np.quantile(resampled, [0.025, 0.975])))


def true_rates(ledger: influent.Ledger, world: influent.World) -> np.ndarray:
    """Return at what rate, per second, each of the ledger's events leads to the item that is explained."""
    rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "event"))
    action, gap_s = np.array(rows.column(schema.SOURCE_ACTION).to_pylist()), rows.column(schema.GAP_US).to_numpy() / 1e6
    strength = dict(zip(*(world.actions.column(n).to_pylist() for n in ("action", "strength")), strict=True))
    rate = np.zeros(len(action))
    for part in world.kernels.to_pylist():
        of, scale_s = action == part["action"], part["scale_us"] / 1e6
        rate[of] += strength.get(part["action"], 0.0) * part["weight"] / scale_s * np.exp(-gap_s[of] / scale_s)
    names = (schema.SOURCE_ITEM_ID, schema.ITEM_ID)
    follows = zip(*(world.excitation.column(name).to_pylist() for name in (*names, "weight")), strict=True)
    weight = {(source, item): share for source, item, share in follows}
    pairs = zip(*(rows.column(name).to_pylist() for name in names), strict=True)
    return np.asarray(rate * [weight.get(pair, 0.0) for pair in pairs])


def references(ledger: influent.Ledger, world: influent.World) -> dict[str, np.ndarray]:
    """Return orders that look at no model, as credits of the ledger's event rows; the first knows the world."""
    rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "event"))
    return {
        "the true rate": true_rates(ledger, world),
        "recency": 1 / rows.column(schema.LAG).to_numpy().astype(np.float64),
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
    error = (
        "none" if row["kernel_error"] is None else "{mean:.2f} [{low:.2f}, {high:.2f}]".format_map(row["kernel_error"])
    )
    print(
        f"  {name}: average precision {row['average_precision']:.3f}, largest credit right "
        f"{row['largest_credit']:.1%}, kernel error {error}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=300)
    main(parser.parse_args().users)
