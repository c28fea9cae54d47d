"""Real delays: marketing leads that become deals within weeks (olist), as conversions yet to be reported.

    python tests/bench/olist_delays.py /work/shared/data/olist [--seeds 3]

Leads from January 2018, at a cut-off on 1 April, by logistic models of origin and landing page. Prints what
each way of allowing for deals to come predicts for the leads of April and May, which have matured since, as
mean and standard deviation over resamples of the leads trained on; and the maturity curve (the share of a
lead's deals that are won by its age) that each delay model predicts at the cut-off, beside Kaplan-Meier of
the leads after it, and of those before it as they turned out.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adstool.training.conversion_losses import (
    Observed,
    bucket_loss,
    delay_weights,
    dfm_loss,
    elapsed_labels,
    late_loss,
    plain_loss,
    seen_share,
)
from adstool.training.delay import DAY, Clicks, observe
from adstool.training.metrics import auc, calibration_ratio, normalized_entropy

NEVER = np.iinfo(np.int64).max
HORIZON, WAIT = 45 * DAY, 3 * DAY
START, CUT = "2018-01-01", "2018-04-01"
AGES = (1, 3, 7, 14, 21, 30, 45)  # days
DELAYS = ("none", "fnw", "es-dfm", "dfm", "elapsed", "oracle")
BUCKETS = 8
EDGES = torch.tensor(HORIZON / DAY * np.linspace(0, 1, BUCKETS + 1) ** 2, dtype=torch.float32)
PAGES = 20  # landing pages with a column of their own


@dataclass(frozen=True)
class Leads:
    """Leads in the order of time: features [n, F], when they came and when the deal was won."""

    x: Tensor
    clicks: Clicks

    def part(self, chosen: NDArray[np.bool_]) -> Leads:
        """These leads only, numbered anew."""
        some = self.clicks.part(chosen)
        return Leads(
            self.x[torch.from_numpy(chosen)], Clicks(np.arange(len(some.ts)), some.ts, some.reported)
        )


def read_leads(folder: Path) -> Leads:
    """The leads from START on, with their deals."""
    import pyarrow.csv as csv

    leads = csv.read_csv(folder / "olist_marketing_qualified_leads_dataset.csv").to_pylist()
    deals = csv.read_csv(folder / "olist_closed_deals_dataset.csv").to_pylist()
    won = {deal["mql_id"]: microseconds(str(deal["won_date"])) for deal in deals}
    rows = sorted(
        (microseconds(str(lead["first_contact_date"])), str(lead["mql_id"]), lead)
        for lead in leads
        if microseconds(str(lead["first_contact_date"])) >= microseconds(START)
    )
    ts = np.array([row[0] for row in rows])
    reported = np.array([max(won.get(row[1], NEVER), row[0]) for row in rows])
    columns = []
    for name in ("origin", "landing_page_id"):
        values = [str(row[2][name]) for row in rows]
        common = sorted(set(values), key=lambda value: -values.count(value))[:PAGES]
        columns += [[float(value == one) for value in values] for one in common]
    x = torch.tensor(columns).T
    return Leads(x, Clicks(np.arange(len(ts)), ts, reported[:, None]))


def microseconds(text: str) -> int:
    """Microseconds UTC of a date or time."""
    return int(np.datetime64(datetime.fromisoformat(text), "us").astype(np.int64))


def fit(leads: Leads, delay: str, wait: int, cut: int) -> tuple[Tensor, Tensor]:
    """The weights [F + 1, ...] of p(deal) and of its delay: late share, rate of dfm, or buckets."""
    stream = observe(leads.clicks, cut, delay, wait, HORIZON)
    x = leads.x[torch.from_numpy(stream.row)]
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    label, first = torch.from_numpy(stream.label), torch.from_numpy(stream.first.astype(np.float32))
    late = torch.from_numpy(stream.late)
    weights = torch.zeros(x.shape[1], 1 + (BUCKETS if delay == "elapsed" else 1), requires_grad=True)
    age = torch.from_numpy(((cut - leads.clicks.ts) / DAY).astype(np.float32))[torch.from_numpy(stream.row)]
    days = torch.from_numpy(stream.days)
    optimizer = torch.optim.LBFGS([weights], max_iter=15, line_search_fn="strong_wolfe")

    def loss(held: Tensor) -> Tensor:
        logits = x @ weights
        cvr, other = logits[:, :1], logits[:, 1:]
        one = torch.ones_like(first)
        corrected = torch.from_numpy(stream.corrected.astype(np.float32))
        weight, mass = delay_weights(
            delay, x @ held[:, :1], x @ held[:, 1:2], label, corrected, torch.from_numpy(stream.repeat)
        )
        told = label
        if delay == "elapsed":
            share = seen_share((x @ held[:, 1:]).unsqueeze(1), age.unsqueeze(1), EDGES)
            told = elapsed_labels(x @ held[:, :1], share, label)
        seen = Observed(one, first, one, told, weight, mass)
        total = 1e-3 * (weights[:-1] ** 2).sum()
        if delay == "dfm":
            return total + dfm_loss(cvr, other, seen, days)
        if delay == "elapsed":
            return total + plain_loss(cvr, seen) + bucket_loss(other.unsqueeze(1), label, days, age, EDGES)
        return total + plain_loss(cvr, seen) + late_loss(other, late, torch.from_numpy(stream.repeat))

    for _ in range(12):  # weights of observations are those of the last round, so that each round is convex
        held = weights.detach().clone()

        def closure(held: Tensor = held) -> Tensor:
            optimizer.zero_grad()
            value = loss(held)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()[:, :1], weights.detach()[:, 1:]


def scores(leads: Leads, weights: Tensor) -> Tensor:
    """Logits [n] of a column of weights."""
    return outputs(leads, weights)[:, 0]


def outputs(leads: Leads, weights: Tensor) -> Tensor:
    """Logits [n, outputs]."""
    return torch.cat([leads.x, torch.ones(len(leads.x), 1)], dim=1) @ weights


def kaplan_meier(leads: Leads, end: int) -> NDArray[np.float64]:
    """The product-limit estimate of the share of leads with a deal by each of AGES, censored at `end`."""
    delay = np.where(
        leads.clicks.reported[:, 0] == NEVER, NEVER, leads.clicks.reported[:, 0] - leads.clicks.ts
    )
    seen = np.minimum(delay, end - leads.clicks.ts)
    event = delay <= end - leads.clicks.ts
    alive, curve = 1.0, []
    times = np.unique(seen[event])
    at = 0
    for age in AGES:
        while at < len(times) and times[at] <= age * DAY:
            alive *= 1.0 - event[seen == times[at]].sum() / (seen >= times[at]).sum()
            at += 1
        curve.append(1.0 - alive)
    return np.array(curve)


def curves(leads: Leads, cut: int, after: Leads) -> dict[str, NDArray[np.float64]]:
    """The maturity by age that each delay model predicts for the leads after the cut-off."""
    dfm, rate = fit(leads, "dfm", WAIT, cut)
    p = torch.sigmoid(scores(after, dfm))
    hazard = functional.softplus(scores(after, rate))
    exponential = np.array([float((p * (1 - torch.exp(-hazard * age))).sum()) for age in AGES])
    shares = []
    for age in AGES[:-1]:
        cvr, late = fit(leads, "es-dfm", age * DAY, cut)
        p = torch.sigmoid(scores(after, cvr))
        shares.append(float((p * (1 - torch.sigmoid(scores(after, late)))).sum() / p.sum()))
    cvr, delays = fit(leads, "elapsed", WAIT, cut)
    p, buckets = torch.sigmoid(outputs(after, cvr)), outputs(after, delays).unsqueeze(1)
    elapsed = np.array(
        [float((p * seen_share(buckets, torch.full((len(p), 1), float(age)), EDGES)).sum()) for age in AGES]
    )
    return {
        "dfm": exponential / exponential[-1],
        "es-dfm": np.array([*shares, 1.0]),
        "elapsed": elapsed / elapsed[-1],
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    leads = read_leads(args.folder)
    cut = microseconds(CUT)
    before, after = leads.part(leads.clicks.ts <= cut), leads.part(leads.clicks.ts > cut)
    truth = after.clicks.converted(HORIZON)[:, 0].astype(np.float64)
    print(
        f"{len(before.x):,} leads before {CUT}, {len(after.x):,} after it with {int(truth.sum())} deals "
        "in 45 days"
    )
    print(f"\n{'delay':>8}{'calibration':>20}{'AUC':>18}{'NE':>18}")
    for delay in DELAYS:
        found = []
        for seed in range(args.seeds):
            chosen = np.sort(np.random.default_rng(seed).integers(0, len(before.x), len(before.x)))
            drawn = before.clicks
            sample = Leads(
                before.x[torch.from_numpy(chosen)],
                Clicks(np.arange(len(chosen)), drawn.ts[chosen], drawn.reported[chosen]),
            )
            p = torch.sigmoid(scores(after, fit(sample, delay, WAIT, cut)[0])).double().numpy()
            found.append((calibration_ratio(truth, p), auc(truth, p), normalized_entropy(truth, p)))
        columns = np.array(found).T
        print(f"{delay:>8}" + "".join(f"{c.mean():>12.3f} ± {c.std():.3f}" for c in columns))
    end = int(max(leads.clicks.reported[leads.clicks.reported < NEVER].max(), leads.clicks.ts.max()))
    share = kaplan_meier(after, end)
    real = share / share[-1]
    error = np.sqrt(real * (1 - real) / truth.sum())
    print(f"\n{'days':>16}" + "".join(f"{age:>8}" for age in AGES) + f"{'largest gap':>16}")
    print(f"{'Kaplan-Meier':>16}" + "".join(f"{value:>8.3f}" for value in real))
    earlier = kaplan_meier(before, end)
    print(f"{'of those before':>16}" + "".join(f"{value:>8.3f}" for value in earlier / earlier[-1]))
    print(f"{'± error':>16}" + "".join(f"{value:>8.3f}" for value in error))
    for name, curve in curves(before, cut, after).items():
        gap = np.abs(curve - real).max()
        print(f"{name:>16}" + "".join(f"{value:>8.3f}" for value in curve) + f"{gap:>14.3f}")


if __name__ == "__main__":
    main()
