"""Orders that are walked only as far as needed, against sorting everything."""

import numpy as np
import pytest

from adstool.features.items import NO_TIME
from adstool.funnel import orders
from adstool.funnel.orders import Orders, first_allowed
from adstool.funnel.semantic import SemanticIndex

N = 500


@pytest.fixture(params=[1, 1024])
def walked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MIN_WALK", request.param)


@pytest.mark.usefixtures("walked")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_orders_are_those_of_sorting_what_is_allowed(share: float) -> None:
    rng = np.random.default_rng(5)
    allowed = rng.random(N) < share
    popularity, within = rng.integers(0, 9, N).astype(np.float32), rng.random(N)
    created = rng.integers(0, 100, N)
    created[::7] = NO_TIME
    category, advertiser = rng.integers(-1, 5, N), rng.integers(-1, 20, N)
    newness = rng.random(N)
    made = Orders.of(popularity, created, category, advertiser, within, newness)
    able = np.flatnonzero(allowed).tolist()
    for k in (0, 1, 7, N):
        wanted = sorted(able, key=lambda p: (-popularity[p], p))[:k]
        assert first_allowed(made.popular, k, allowed).tolist() == wanted
        wanted = sorted((p for p in able if 20 < created[p] <= 60), key=lambda p: (-created[p], p))[:k]
        assert made.made_between(20, 60, k, allowed).tolist() == wanted
        for group in range(5):
            scores = within * (1 + newness)
            wanted = sorted((p for p in able if category[p] == group), key=lambda p: -scores[p])[:k]
            assert made.by_category.first(group, k, allowed).tolist() == wanted
        wanted = sorted((p for p in able if advertiser[p] == 3), key=lambda p: -within[p])[:k]
        assert made.by_advertiser.first(3, k, allowed).tolist() == wanted


def test_many_items_are_compared_by_long_prefixes_alone() -> None:
    """Where enough share all codes, those with fewer in common are not looked at; scores stay the same."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, (5000, 3)).astype(np.int16)
    index, engaged = SemanticIndex(codes), codes[:3]
    allowed = rng.random(5000) < 0.8
    everything = index.score(engaged)
    positions, scores = index.agreeing(engaged, 10, allowed)
    assert scores == pytest.approx(everything[positions])
    assert allowed[positions].all()
    same = (codes[:, None] == engaged[None]).all(axis=2).any(axis=1)
    assert set(positions.tolist()) == set(np.flatnonzero(same & allowed).tolist())
    positions, _ = index.agreeing(engaged, 5000, allowed)
    assert set(positions.tolist()) == set(np.flatnonzero((everything > 0) & allowed).tolist())
