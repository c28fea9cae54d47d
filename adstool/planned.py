"""What a verb would do: what it would write, from what and why, found by reading alone (--dry-run)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.config import Settings, load_settings
from adstool.workspace import Workspace, read_json

if TYPE_CHECKING:
    import duckdb

    from adstool.training.flat_table import FlatRequest

# What a model learns from: a count of the warehouse by its name.
_RANKED = {"impressions": "events where action = 'impression'", "users": "users"}
LEARNS_FROM: dict[str, dict[str, str]] = {
    "clip": {"items": "catalog where title is not null and image is not null"},
    "semantic": {"items": "catalog"},
    "retrieval": _RANKED,
    "lightweight": _RANKED,
    "engagement": _RANKED,
    "conversion": {"clicks": "events where action = 'click'", "conversions": "conversions"},
    "users": {"events": "events where action != 'impression'", "users": "users"},
}


@dataclass(frozen=True)
class Planned:
    """What a verb would do: `writes` files and folders, from `counts` rows of what it names and `parts`.

    reason: why the stage of `run` that the verb does is stale; "" when it is not, None when it is no stage.
    """

    writes: Sequence[Path]
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: Sequence[str] = ()
    reason: str | None = None

    def to_json(self, verb: str) -> dict[str, Any]:
        """The plan as --dry-run prints it."""
        return {
            "dry_run": True,
            "verb": verb,
            "stale": None if self.reason is None else bool(self.reason),
            "reason": self.reason or None,
            "writes": [str(path) for path in self.writes],
            "counts": dict(self.counts),
            "parts": list(self.parts),
        }


def stage_reason(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, stage: str) -> str | None:
    """Why a stage of the pipeline must be done, "" when it need not be, None for what is no stage."""
    from adstool.pipeline import stale_stages
    from adstool.stages import BY_NAME, Job

    if stage not in BY_NAME:
        return None
    stale = {verdict.stage.name: verdict.reason for verdict in stale_stages(Job(ws, settings, con))}
    return stale.get(stage, "")


def plan_embed(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    kinds: Sequence[str],
    images: Path | None,
) -> Planned:
    """Which items are new or changed, after the words and picture of every item were looked at."""
    from adstool.content.clip import resolve_source
    from adstool.content.embedding import EmbedResult, plan_items

    source = resolve_source(ws, settings)
    result = EmbedResult(source.name)
    plans = [plan_items(ws, con, source, kind, images, result) for kind in kinds]
    counts = {
        "new": sum(len(plan.pending) - len(plan.replaced) for plan in plans),
        "changed": sum(len(plan.replaced) for plan in plans),
        "unchanged": result.skipped,
        "failed": result.failed,
        "removed": sum(len(plan.gone) for plan in plans),
    }
    changed = counts["new"] + counts["changed"] + counts["removed"]
    reason = stage_reason(ws, settings, con, "embed")
    return Planned([ws.vectors] if changed else [], counts, [f"model {source.name}"], reason)


def plan_interests(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> Planned:
    """How many users did something since their interests were added up."""
    from adstool.content.interests import changed_users, stale

    reason = stale(con, settings) or stage_reason(ws, settings, con, "interests")
    return Planned([ws.warehouse], {"users": changed_users(con, settings)}, reason=reason)


def plan_train(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, model: str, *, resume: bool
) -> Planned:
    """What the model would learn from, and whether an unfinished run goes on."""
    counts = {name: count(con, rows) for name, rows in LEARNS_FROM[model].items()}
    partial = ws.models / model / ".partial"
    unfinished = resume and any(partial.glob("checkpoint*"))
    parts = [f"the unfinished run {partial}"] if unfinished else []
    return Planned([ws.next_run(model)], counts, parts, stage_reason(ws, settings, con, model))


def plan_flat(ws: Workspace, settings: Settings, request: FlatRequest) -> Planned:
    """The rows of the files, and of the tables of the warehouse that stand for one."""
    import duckdb

    from adstool.training.flat_named import is_name, unknown
    from adstool.training.flat_table import columns_of, source_of
    from adstool.warehouse import open_warehouse
    from adstool.warehouse.flat import flat_rows

    counts: dict[str, int] = {}
    sides = {"train": request.train, "valid": request.valid, "test": request.test}
    for side, path in sides.items():
        if path is None:
            continue
        if is_name(path):
            with open_warehouse(ws, settings, read_only=True) as con:
                held = flat_rows(con)
            if path.name not in held:
                raise unknown(path.name, list(held))
            counts[side] = held[path.name]
            continue
        with duckdb.connect() as con:
            columns_of(con, path)  # raises DataError when it cannot be read
            found = con.execute(f"select count(*) from {source_of(path)}", {"path": str(path)}).fetchall()
            counts[side] = int(found[0][0])
    return Planned([ws.next_run("flat")], counts)


def plan_after_training(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, model: str, run: Path, verb: str
) -> Planned:
    """`calibrate` or `quantize`: they add to the run in use; a stage of `run` only for engagement."""
    reason = stage_reason(ws, settings, con, verb) if model == "engagement" else None
    return Planned([run], parts=[f"{model}@{run.name}"], reason=reason)


def plan_index(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> Planned:
    """The towers and sources whose vectors the index would hold. Raises AdstoolError for a missing tower."""
    from adstool.funnel.index import TOWERS
    from adstool.funnel.installed import installed_sources

    runs = {model: ws.require_run(model, f"train {model}") for model in TOWERS}
    if (users := ws.current_run("users")) is not None:
        runs["users"] = users
    parts = [f"{model}@{run.name}" for model, run in runs.items()]
    parts += installed_sources(settings.funnel.sources)
    counts = {"ads": count(con, "ads"), "pins": count(con, "pins")}
    return Planned([ws.next_run("index")], counts, parts, stage_reason(ws, settings, con, "index"))


def plan_quota(ws: Workspace, con: duckdb.DuckDBPyConnection, requests: int) -> Planned:
    """The sources of the index in use, and how many logged requests there are to ask again."""
    from adstool.warehouse import load_sql

    about = read_json(ws.require_run("index", "index") / "index.json")
    given = {"seed": 0, "limit": 1, "item_type": about["item_type"]}
    logged = con.execute(load_sql("simulation_requests"), given).fetchall()
    counts = {"requests": min(requests, int(logged[0][4]) if logged else 0)}
    return Planned([ws.next_run("quota")], counts, list(about["sources"]))


def plan_evaluate(ws: Workspace, stage: str, write: bool) -> Planned:
    """The stages that would be measured; with `write` the settings change where a better one is found."""
    from adstool.evaluation.evaluate import select
    from adstool.evaluation.results import results_path

    return Planned([results_path(ws), *([ws.config] if write else [])], parts=select([stage]))


def plan_simulate(
    ws: Workspace, arms: Sequence[str], days: int, requests: int, con: duckdb.DuckDBPyConnection
) -> Planned:
    """The arms and the traffic. requests: 0 for as many a day as the log has."""
    from adstool.simulation.run import NAME
    from adstool.warehouse import load_sql

    about = read_json(ws.require_run("index", "index") / "index.json")
    given = {"seed": 0, "limit": 1, "item_type": about["item_type"]}
    logged = con.execute(load_sql("simulation_requests"), given).fetchall()
    most = round(logged[0][4] / logged[0][5] * days) if logged else 0
    return Planned([ws.reports / NAME], {"days": days, "requests": requests or most}, arms)


def plan_report(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, output: Path | None
) -> Planned:
    """Where the report would be written, and the evaluated stages that it would show."""
    from adstool.evaluation.report import report_path
    from adstool.evaluation.results import read_results

    results = read_results(ws).items()
    stages = {name: found for name, found in results if name != "about" and isinstance(found, dict)}
    shown = [name for name, found in stages.items() if "made_at" in found]
    path = report_path(ws, output)
    return Planned([path], parts=shown, reason=stage_reason(ws, settings, con, "report"))


def plan_demo(root: Path, config: Path | None) -> Planned:
    """The stages that the demo in `root` would do: all of them unless its warehouse is there."""
    from adstool.pipeline import stale_stages
    from adstool.stages import STAGES, Job
    from adstool.warehouse import open_warehouse

    ws = Workspace(root)
    if not ws.warehouse.is_file():
        return Planned([root], parts=[stage.verb for stage in STAGES])
    settings = load_settings(config or ws.config)
    with open_warehouse(ws, settings, read_only=True) as con:
        stages = [verdict.stage.verb for verdict in stale_stages(Job(ws, settings, con))]
    return Planned([root] if stages else [], parts=stages)


def count(con: duckdb.DuckDBPyConnection, rows: str) -> int:
    """How many rows there are in `rows`, ours and never a user's: a table, perhaps with a condition."""
    return int(con.execute(f"select count(*) from {rows}").fetchall()[0][0])
