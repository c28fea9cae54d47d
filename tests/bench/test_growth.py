"""Growth of time and memory with the log: exponents, the measurement and the section that shows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adstool.bench.growth import STEPS, World, figures, measure_growth
from adstool.bench.process import spend
from adstool.errors import AdstoolError
from adstool.evaluation.growth import Measured, exponent
from adstool.evaluation.sections_growth import GROUPS, NAME, growth_json, growth_section
from adstool.workspace import Workspace, read_json, write_json


def measured(verb: str, events: int, seconds: float, peak_mb: float | None) -> Measured:
    return Measured(verb, events, events, seconds, seconds / 2, peak_mb)


HAND_MADE = [
    measured("ingest", 1_000, 2.0, 100.0),
    measured("embed", 1_000, 3.0, None),
    measured("ingest", 10_000, 20.0, 100.0),
    measured("embed", 10_000, 3.0 * 10**1.5, None),
]


def test_exponents_and_floors_by_hand() -> None:
    small, _, large, embed = HAND_MADE
    assert exponent(small, large, "seconds") == pytest.approx(1.0)
    assert exponent(small, large, "peak_mb") == pytest.approx(0.0)
    assert exponent(HAND_MADE[1], embed, "cpu_seconds") == pytest.approx(1.5)
    assert exponent(HAND_MADE[1], embed, "peak_mb") is None
    found = {figure.name: figure for figure in figures(HAND_MADE)}
    assert list(found) == [f"growth_{v}_{n}" for v in ("ingest", "embed") for n in (1000, 10000)]
    ingest = found["growth_ingest_10000"]
    assert (ingest.value, ingest.floor, ingest.ratio) == (20.0, 20.0, 1.0)
    assert ingest.to_json()["exponent"] == pytest.approx(1.0)
    assert ingest.to_json()["rows_per_second"] == pytest.approx(500.0)
    assert found["growth_embed_10000"].ratio == pytest.approx(10**0.5)


def test_the_report_draws_a_straight_line_for_a_power(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert growth_section(ws) == ""
    write_json(ws.reports / NAME, growth_json(HAND_MADE))
    html = growth_section(ws)
    assert "10,000" in html
    assert "1.50" in html
    assert html.count("<polyline") == 3  # seconds of both verbs, memory of the one whose memory is known


def test_every_verb_of_the_funnel_is_measured_once() -> None:
    names = [step.verb for step in STEPS]
    assert len(set(names)) == len(names)
    assert sorted(names) == sorted(verb for group in GROUPS.values() for verb in group)  # each has its line
    world = World(Path("x"), 1_000_000)
    assert (world.users, world.items) == (10_753, 4_301)  # 5 users to 2 ads to 2 pins


def test_processes_are_measured_and_finished_sizes_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    sizes, steps = (3_000, 9_000), STEPS[:2]
    (tmp_path / "work" / "9000").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        measure_growth(tmp_path / "work", kept, sizes, steps)
    waiting = read_json(kept)["sizes"]
    assert list(waiting) == ["3000"]
    (tmp_path / "work" / "9000").rmdir()
    found = measure_growth(tmp_path / "work", kept, sizes, steps)
    assert not kept.exists()
    assert [one.verb for one in found] == ["sample", "ingest"] * 2
    assert found[0].seconds == waiting["3000"][0]["seconds"]  # not measured again
    assert 2_000 < found[0].events < 4_500 < found[2].events < 12_000
    assert not list((tmp_path / "work").iterdir())
    if sys.platform == "linux":
        import resource

        # A child's peak counts from its parent's, and a worker of the tests may be large.
        most = max(2_000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 + 1)
        assert all(50 < (one.peak_mb or 0) < most and (one.cpu_seconds or 0) > 0.2 for one in found)


def test_a_verb_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(AdstoolError, match=r"rank --user u1 ended with 1: .*not a workspace"):
        spend(("--workspace", tmp_path, "rank", "--user", "u1"))
