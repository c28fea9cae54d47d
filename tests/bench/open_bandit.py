"""Off-policy estimates on the Open Bandit Dataset beside the click rates that the other policy really had.

    python tests/bench/open_bandit.py FOLDER   (such as ../shared/data/open_bandit)

bts from the random log, and random from the bts log, men and women. The bts policy changes by the hour, so
as a target it is its own log's share of each item at each position; as the log its published propensities
weigh. DR's model is an item's click rate at a position, pulled to the position's, fitted on the other half of
the log's users. SNIPS by shares takes for the propensity the share of the item at the position in the whole
log, which is right when the hour matters to the policy but not to clicks. IPS and SNIPS are computed a second
time with DuckDB alone. Intervals resample users (those of equal features count as one). Refused is what
`adstool evaluate ope` would refuse.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adstool.config import EvaluationSettings
from adstool.evaluation.bootstrap import Resampler
from adstool.evaluation.off_policy import (
    LoggedActions,
    cells_of,
    dr,
    effective_size,
    ips,
    mips,
    overlap,
    snips,
    switch_dr,
)

RESAMPLES = 1000
PRIOR = 200.0  # impressions at the position's rate that an item's own rate is mixed with
DIRECT = """
with target as ({target}), joined as (
    select log.click, coalesce(target.share, 0) / log.propensity_score as w
    from read_csv($log) as log left join target using (item_id, position)
)
select avg(w * click), sum(w * click) / sum(w) from joined
"""
SHARES = """
select item_id, position, count(*) / sum(count(*)) over (partition by position) as share
from read_csv('{file}') group by item_id, position
"""


def file_of(root: Path, policy: str, campaign: str) -> Path:
    return root / policy / campaign / f"{campaign}.csv.gz"


def read(path: Path) -> dict[str, Any]:
    users = " || ".join(f"user_feature_{place}" for place in range(4))
    columns = f"item_id, position, click::double as click, propensity_score as p, {users} as u"
    return duckdb.execute(f"select {columns} from read_csv($f)", {"f": str(path)}).fetchnumpy()


def target_of(other: dict[str, Any], policy: str, items: int) -> np.ndarray:
    """[items, 4]: the target's chance of each item at each position."""
    if policy == "random":
        return np.full((items, 4), 1.0 / items)
    shown = np.zeros((items, 4))
    np.add.at(shown, (other["item_id"], other["position"]), 1.0)
    return shown / np.maximum(shown.sum(axis=0), 1.0)


def shares_of(log: dict[str, Any], items: int) -> np.ndarray:
    """[rows]: the share of the row's item at its position in the log."""
    return target_of(log, "", items)[log["item_id"], log["position"]]


def model_of(log: dict[str, Any], users: Resampler, items: int) -> np.ndarray:
    """[rows, items]: the click rate of each item at the row's position, by the other half of the users."""
    half = users.user % 2
    rates = np.empty((2, items, 4))
    for side in (0, 1):
        rows = half != side
        at = (log["item_id"][rows], log["position"][rows])
        shown, clicked = np.zeros((items, 4)), np.zeros((items, 4))
        np.add.at(shown, at, 1.0)
        np.add.at(clicked, at, log["click"][rows])
        base = (clicked.sum(axis=0) + 0.5) / (shown.sum(axis=0) + 100.0)
        rates[side] = (clicked + PRIOR * base) / (shown + PRIOR)
    return rates[half, :, log["position"]]


def direct(root: Path, logged: str, target: str, campaign: str, items: int) -> tuple[float, float]:
    """IPS and SNIPS by SQL."""
    log = str(file_of(root, logged, campaign))
    shares = SHARES.format(file=file_of(root, target, campaign))
    if target == "random":
        shares = f"select distinct item_id, position, 1.0 / {items} as share from read_csv('{log}')"
    row = duckdb.execute(DIRECT.format(target=shares), {"log": log}).fetchone()
    assert row is not None
    return float(row[0]), float(row[1])


def main(root: Path) -> None:
    print("campaign target   from     true on-policy         IPS                   SNIPS                 DR")
    print(
        " " * 25
        + "Switch-DR             MIPS by category      SNIPS by shares       ESS  max w  top 1 %  mean w"
    )
    for campaign in ("men", "women"):
        logs = {policy: read(file_of(root, policy, campaign)) for policy in ("random", "bts")}
        features = duckdb.execute(
            "select item_feature_2 from read_csv($f) order by item_id",
            {"f": str(root / "random" / campaign / "item_context.csv")},
        ).fetchnumpy()["item_feature_2"]
        items = len(features)
        for logged, target in (("random", "bts"), ("bts", "random")):
            log, other = logs[logged], logs[target]
            chances = target_of(other, target, items)
            users, others = Resampler(log["u"], RESAMPLES), Resampler(other["u"], RESAMPLES)
            rates = model_of(log, users, items)
            rows = np.arange(len(log["click"]))
            data = LoggedActions(
                log["click"],
                log["p"],
                chances[log["item_id"], log["position"]],
                rates[rows, log["item_id"]],
                (rates * chances[:, log["position"]].T).sum(axis=1),
            )
            cells = cells_of(features[log["item_id"]], log["position"])
            found = {
                "true": others.mean(other["click"]),
                "ips": ips(data, users),
                "snips": snips(data, users),
                "dr": dr(data, users),
                "switch": switch_dr(data, users)[0],
                "mips": mips(data, users, cells)[0],
                "shares": snips(replace(data, propensity=shares_of(log, items)), users),
            }
            by_hand = direct(root, logged, target, campaign, items)
            assert abs(by_hand[0] - found["ips"].value) < 1e-9, (by_hand, found["ips"])
            assert abs(by_hand[1] - found["snips"].value) < 1e-9, (by_hand, found["snips"])
            shown = {name: f"{v.value:.3%} ({v.low:.2%}-{v.high:.2%})".ljust(21) for name, v in found.items()}
            support = overlap(data, users)
            print(
                f"{campaign:8} {target:8} {logged:8}",
                shown["true"],
                shown["ips"],
                shown["snips"],
                shown["dr"],
            )
            print(
                " " * 24,
                shown["switch"],
                shown["mips"],
                shown["shares"],
                f"{effective_size(data.weight):,.0f}  {support['max_weight']:,.1f}  "
                f"{support['top_1_percent_share']:.0%}  {support['mean_weight']:.3f}",
                "refused" if effective_size(data.weight) < EvaluationSettings().min_ess else "",
            )
    print("IPS and SNIPS agree with the direct computation to 1e-9.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
