"""What arms brought, and what lies between them: totals, intervals by user, delivery by campaign."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.evaluation.bootstrap import Estimate, Resampler, estimate
from adstool.marketplace.market import CLICKS, CONVERSIONS, FIXED, MONEY, Advertised, Market
from adstool.marketplace.simulation import SUMS, Delivered

Array = NDArray[Any]
CLOSE = 0.05  # a target counts as met from so much below it
USED = 0.95  # a budget counts as used from this share on
PAID = {FIXED: "bid a click", CLICKS: "clicks", CONVERSIONS: "conversions", MONEY: "money"}


def unwanted(market: Market) -> list[str]:
    """The actions that users do not like to happen, such as a hide."""
    return [name for name, good in zip(market.actions, market.wanted, strict=True) if not good]


def arm_figures(market: Market, campaigns: Advertised, found: Delivered, scale: float) -> dict[str, Any]:
    """Totals of one arm; `scale` brings a part of the traffic up to all of it. revenue is what campaigns
    paid; value the expected money of the clicks they got, those that a used up budget did not pay included;
    value_calibration what predictions said of that money over what it is.
    """
    total = {name: found.total(name) * scale for name in found.names}
    spend = total.pop("spend")
    figures: dict[str, Any] = {
        "revenue": spend,
        "spend": spend,
        "value": total["value"],
        "roas": total["value"] / spend if spend else float("nan"),
        "value_calibration": total["expected_value"] / total["value"] if total["value"] else float("nan"),
        "budget_utilisation": _utilisation(campaigns, found, scale),
        "budgets_used_up": _used_up(campaigns, found, scale),
        **{name: total[name] for name in SUMS[1:] if name != "value"},
        "hides": sum(total[name] for name in unwanted(market)),
        "actions": {name: total[name] for name in found.names[len(SUMS) :]},
        "utility": _utility(market, total),
        "targets": _targets(delivery(campaigns, found, scale)),
    }
    return figures


def _utility(market: Market, total: dict[str, float]) -> float:
    """What users got out of it, by the weights of their actions."""
    counts = {**total, market.actions[market.click]: total["clicks"]}
    return float(sum(w * counts[name] for name, w in zip(market.actions, market.weights, strict=True)))


def _utilisation(campaigns: Advertised, found: Delivered, scale: float) -> float:
    """The share of all budgets that was spent."""
    limited = np.isfinite(campaigns.budget)
    money = campaigns.budget[limited].sum() * len(found.campaigns)
    spend = np.minimum(found.campaigns[:, limited, 0] * scale, campaigns.budget[limited]).sum()
    return float(spend / money) if money > 0 else float("nan")


def _used_up(campaigns: Advertised, found: Delivered, scale: float) -> float:
    """The share of campaigns' days that ended with the budget used."""
    limited = np.isfinite(campaigns.budget)
    if not limited.any():
        return 0.0
    return float((found.campaigns[:, limited, 0] * scale >= USED * campaigns.budget[limited]).mean())


def delivery(campaigns: Advertised, found: Delivered, scale: float) -> list[dict[str, Any]]:
    """A row a campaign that was shown or spent: budget and target against what was delivered, over all days.

    delivered is in the unit of the target: money or conversions by unit of spend, from the clicks it got;
    predicted is what predictions said of the same clicks, which is all that a bidder knows.
    """
    names = found.names
    sums = found.campaigns.sum(axis=0) * scale
    days = len(found.campaigns)
    rows = []
    for number in np.flatnonzero(sums[:, names.index("views")] > 0):
        spend = float(sums[number, 0])
        unit = "conversions" if campaigns.pays_for[number] == CONVERSIONS else "value"
        target, budget = float(campaigns.target[number]), float(campaigns.budget[number]) * days
        delivered, promised = (
            float(sums[number, names.index(name)]) / spend if spend > 0 else float("nan")
            for name in (unit, f"expected_{unit}")
        )
        rows.append({
            "campaign_id": campaigns.ids[number],
            "pays_for": PAID[int(campaigns.pays_for[number])],
            "budget": budget,
            "spend": spend,
            "used": spend / budget if np.isfinite(budget) else float("nan"),
            "target": target if target > 0 else None,
            "delivered": delivered,
            "predicted": promised,
            "clicks": float(sums[number, names.index("clicks")]),
            "value": float(sums[number, names.index("value")]),
        })  # fmt: skip
    return rows


def _targets(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of campaigns with a target and spend: how many meet it within 5 %, and how many of them leave neither
    budget nor target unused: 95 % of the budget spent, or the return within 5 % of the target."""
    aimed = [row for row in rows if row["target"] and row["spend"] > 0]
    met = [row for row in aimed if row["delivered"] >= (1 - CLOSE) * row["target"]]
    believed = [row for row in aimed if row["predicted"] >= (1 - CLOSE) * row["target"]]
    bound = [row for row in met if row["used"] >= USED or row["delivered"] <= (1 + CLOSE) * row["target"]]
    return {
        "campaigns": len(aimed),
        "met": len(met) / len(aimed) if aimed else float("nan"),
        "met_as_predicted": len(believed) / len(aimed) if aimed else float("nan"),
        "met_and_used": len(bound) / len(aimed) if aimed else float("nan"),
        "spend_on_met": _share(met, aimed),
    }


def _share(some: list[dict[str, Any]], all_: list[dict[str, Any]]) -> float:
    spend = sum(row["spend"] for row in all_)
    return sum(row["spend"] for row in some) / spend if spend else float("nan")


def differences(
    market: Market, base: Delivered, other: Delivered, scale: float, resamples: int, seed: int
) -> dict[str, Any]:
    """other − base by metric: value, interval and change relative to base, over resamples of users.

    Users are drawn alike in both arms, so that what they share cancels. What budgets do is as simulated:
    resampling does not run the days again.
    """
    users = len(base.users)
    draws = Resampler(np.arange(users), resamples, seed)

    def column(found: Delivered, name: str) -> Array:
        return found.users[:, found.names.index(name)] * scale

    metrics = {"revenue": ["spend"], "value": ["value"], "clicks": ["clicks"], "conversions": ["conversions"]}
    metrics["hides"] = unwanted(market)
    result: dict[str, Any] = {}
    for metric, names in metrics.items():
        if not names:
            continue
        pair = (np.sum([column(found, name) for name in names], axis=0) for found in (base, other))
        before, after = draws.sums(*pair)
        result[metric] = _difference(before, after)
    sums = draws.sums(*(column(found, name) for found in (base, other) for name in ("spend", "value")))
    with np.errstate(divide="ignore", invalid="ignore"):
        result["roas"] = _difference(sums[1] / sums[0], sums[3] / sums[2])
    return result


def _difference(before: Array, after: Array) -> dict[str, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        absolute, relative = estimate(after - before), estimate(after / before - 1)
    return {"value": absolute.value, "interval": absolute.interval, **_relative(relative)}


def _relative(found: Estimate) -> dict[str, Any]:
    return {"relative": found.value, "relative_interval": found.interval}


def gains(
    campaigns: Advertised, base: Delivered, other: Delivered, scale: float, most: int = 5
) -> dict[str, Any]:
    """Who gains and who pays: campaigns by what they get beyond what they pay, other against base."""
    size = len(campaigns)

    def of(found: Delivered, name: str) -> Array:
        return np.asarray(found.campaigns[..., found.names.index(name)].sum(axis=0) * scale)

    spend = of(other, "spend") - of(base, "spend")
    value = of(other, "value") - of(base, "value")
    surplus = value - spend
    order = np.argsort(surplus, kind="stable")

    def listed(rows: Array) -> list[dict[str, Any]]:
        return [
            {
                "campaign_id": campaigns.ids[row],
                "spend": spend[row],
                "value": value[row],
                "surplus": surplus[row],
            }
            for row in rows.tolist()
        ]

    touched = int(((spend != 0) | (value != 0)).sum())
    return {
        "campaigns": touched,
        "gain": int((surplus > 0).sum()),
        "lose": int((surplus < 0).sum()),
        "best": listed(order[::-1][: min(most, size)]),
        "worst": listed(order[: min(most, size)]),
    }
