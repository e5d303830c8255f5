"""From the randomised log of a shop's front page to the value of Thompson sampling, beside what that earned itself.

Usage: python -m benchmarks.open_bandit
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import data_set, measured_on, write_result
from influent.evaluation.offpolicy import off_policy_value


def main() -> None:
    """Estimate for both campaigns, and write the result."""
    about = measured_on()
    columns = ["item_id", "position", "value", "propensity_score", "policy", "campaign"]
    log = pd.read_parquet(data_set("open-bandit-small") / "events.parquet", columns=columns)
    found: dict[str, Any] = {}
    for campaign, rows in log.groupby("campaign"):
        random, thompson = (rows[rows["policy"] == policy] for policy in ("random", "bts"))
        report = estimate(random, thompson)
        earned = float(thompson["value"].mean())
        print(f"\n{campaign}: Thompson sampling earned {earned:.4f} in its own log\n\n{report.to_markdown()}")
        covers = {name: bool(row.low <= earned <= row.high) for name, row in report.rows.items()}
        found[str(campaign)] = {"own_log": earned, "estimates": asdict(report), "covers": covers}
    write_result("open-bandit", {**about, "campaigns": found})


def estimate(random: pd.DataFrame, thompson: pd.DataFrame) -> Any:
    """Estimate from the random log what Thompson sampling earns, with chances as its own log has them.

    It learned while it ran, so its chances changed; how often it showed an item at a position is their mean. (The mean
    of the logged propensities is not: an item is logged when its chance is high, and they add up to more than 1.)
    """
    chance = thompson.groupby(["position", "item_id"]).size() / thompson.groupby("position").size()
    target = chance.reindex(pd.MultiIndex.from_frame(random[["position", "item_id"]])).fillna(0.0).to_numpy()
    predicted, expected = np.zeros(len(random)), np.zeros(len(random))
    # The click rate of an item, shrunk to the mean as 200 impressions would; each half by the other.
    half = np.arange(len(random)) % 2
    for part in (0, 1):
        other, own = random[half != part], half == part
        mean = other["value"].mean()
        by_item = other.groupby("item_id")["value"].agg(["sum", "size"])
        rate = (by_item["sum"] + 200 * mean) / (by_item["size"] + 200)
        predicted[own] = random[own]["item_id"].map(rate).fillna(mean)
        rate_of = chance.index.get_level_values("item_id").map(rate).to_numpy(float, na_value=mean)
        of_place = (chance * rate_of).groupby("position").sum()
        expected[own] = random[own]["position"].map(of_place).to_numpy()
    return off_policy_value(
        random["value"].to_numpy(),
        random["propensity_score"].to_numpy(),
        target,
        predicted=predicted,
        expected=expected,
    )


if __name__ == "__main__":
    main()
