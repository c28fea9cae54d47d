"""The funnel log where it can be written nowhere: it waits, within a limit, and is written after."""

from __future__ import annotations

import dataclasses
import time

from adstool.config import Settings
from adstool.funnel.rank import Ranker
from adstool.server.keeping import KeepingThread
from adstool.server.metrics import Meters
from adstool.server.ranking import RankingThread
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def test_the_oldest_go_beyond_the_limit_and_the_rest_is_written(
    shop_copy: Workspace, settings: Settings
) -> None:
    ranker = Ranker(shop_copy, settings)
    rows = []
    for number in range(5):
        before = ranker.log.pending
        ranker.rank({"user_id": f"u{number}", "request_id": f"r{number}"})
        rows.append(ranker.log.pending - before)
    limit = sum(rows[2:])
    serve = dataclasses.replace(settings.serve, max_log_rows=limit, flush_seconds=0.1, refresh_seconds=60.0)
    settings = dataclasses.replace(settings, serve=serve)
    meters = Meters()
    keeping = KeepingThread(shop_copy, settings, RankingThread(lambda: ranker, serve, meters), meters)
    shop_copy.spool.write_text("in the way")
    with shop_copy.lock(0.0):
        keeping.start()
        keeping.take(ranker.log.take())
        assert (ranker.log.pending, keeping.pending) == (0, limit)
        time.sleep(0.5)  # it tries, finds the workspace taken, and cannot put them aside
        assert keeping.pending == limit
    keeping.stop()
    assert keeping.pending == 0
    with open_warehouse(shop_copy, settings, read_only=True) as con:
        logged = con.execute("select request_id, count(*) from funnel group by 1 order by 1").fetchall()
    assert logged == [(f"r{number}", rows[number]) for number in (2, 3, 4)]
    assert meters.registry.get_sample_value("adstool_log_rows_dropped_total") == sum(rows[:2])
    assert meters.registry.get_sample_value("adstool_log_rows_written_total") == limit


def test_a_slate_that_nobody_saw_is_forgotten(shop: Workspace, settings: Settings) -> None:
    ranker = Ranker(shop, settings)
    ranker.rank({"user_id": "u1"})
    one = ranker.log.pending
    ranker.rank({"user_id": "u2"})
    ranker.log.forget_newest()
    assert ranker.log.pending == one
    assert ranker.log.forget_oldest(one) == 0
    assert ranker.log.forget_oldest(0) == one
    assert ranker.log.pending == 0
