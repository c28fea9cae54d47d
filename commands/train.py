"""adstool train: the models of the funnel from the warehouse, or a ranker from a flat table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adstool.commands import _options, _train_options
from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import counted, emit, next_verb, say, table
from adstool.commands._plan import plan_of_warehouse, show_plan
from adstool.commands._train_options import MODELS
from adstool.errors import UsageError, choose

if TYPE_CHECKING:
    from adstool.config import Settings
    from adstool.training.flat_table import FlatRequest
    from adstool.workspace import Workspace

NEXT = {
    "clip": "adstool embed --model clip@current",
    "semantic": "adstool train retrieval",
    "retrieval": "adstool train lightweight",
    "lightweight": "adstool train engagement",
    "engagement": "adstool calibrate engagement",
    "conversion": "adstool evaluate conversion",
    "users": "adstool index",
    "flat": "adstool calibrate flat",
}


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        train,
        "adstool train engagement --epochs 1 --set dropout=0.1",
        "adstool train engagement --train clicks.csv --test later.csv --label click",
    )


def train(
    context: typer.Context,
    model: _train_options.Model,
    train_file: _train_options.TrainFile = None,
    test_file: _train_options.TestFile = None,
    valid_file: _train_options.ValidFile = None,
    label: _train_options.Label = None,
    categorical: _train_options.Categorical = "",
    numeric: _train_options.Numeric = "",
    preset: _train_options.Preset = "",
    settings_given: _train_options.Set = None,
    delay: _train_options.Delay = None,
    loss: _train_options.Loss = None,
    align: _train_options.Align = False,
    epochs: _train_options.Epochs = None,
    batch_size: _train_options.BatchSize = None,
    warm_start: _train_options.WarmStart = False,
    seed: _train_options.Seed = None,
    resume: _train_options.Resume = None,
    engine: _options.Engine = "local",
    workers: _options.Workers = None,
    dry_run: _options.DryRun = False,
) -> None:
    """Train a model of the funnel, or a ranker on a flat table.

    clip (presets conv, vit): pictures and titles, from scratch or tuned (--set init=ViT-B-32 --set
    pretrained=FILE --set tune=projection), also by what the same users engaged with (--set neighbours=4).

    semantic (kmeans, rqvae): semantic ids of items from their vectors.

    retrieval (small, base): two towers that find candidates.

    lightweight (cold, inttower, small, interactrank): thins candidates; taught by the engagement ranker with
    --set distill=1.

    engagement (small, base, large, masknet, dhen, wukong, transact, hstu, dcnv2): a head for every action of
    [[actions]]. masknet, dhen and wukong are other trunks; transact and hstu read histories in order,
    with --set long_history=16 the events nearest to each ad; heads by --set multitask=mmoe, --set
    tower_hidden=32, --set surface_towers=true. Also from flat tables of anyone's features, which need
    --test and --label; criteo and avazu need neither.

    conversion (small, base, large): conversions by kind with their money, credited by [conversion] of
    adstool.toml.

    users (small, base, actions): a vector of everybody from what he engaged with, in order, of the next
    engagement or, by actions, of any of the next ten; `index` then has the source sequence.
    """
    if model not in MODELS:
        raise UsageError(f"There is no model '{model}' to train.", choose(model, MODELS))
    overrides = _pairs(settings_given or []) | _of("conversion", model, delay=delay, loss=loss)
    overrides |= _of("lightweight", model, align="true" if align else None)
    flat = _Flat(train_file, test_file, valid_file, label, _names(categorical), _names(numeric))
    flat.check(model)
    runner = _runner(model, engine, workers)
    workspace, settings = open_workspace(context)
    from adstool.training.options import TrainOptions

    options = TrainOptions(preset, overrides, epochs, batch_size, seed, resume, runner, warm_start)
    if warm_start and (model != "engagement" or flat.given):
        raise UsageError(
            "--warm-start is of `train engagement` from the warehouse.", "Leave out --warm-start."
        )
    if dry_run:
        _plan(context, workspace, settings, model, flat, resume is not False)
        return
    if flat.given:
        payload = _train_flat(workspace, settings, options, flat)
    elif model == "clip":
        payload = _train_clip(workspace, settings, options)
    elif model == "semantic":
        payload = _train_semantic(workspace, settings, options)
    else:
        payload = _train_model(workspace, settings, model, options)
    if not emit(context, payload):
        _show(context, payload)


@dataclass(frozen=True)
class _Flat:
    """The options of a flat table."""

    train: Path | None
    test: Path | None
    valid: Path | None
    label: str | None
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]

    @property
    def given(self) -> bool:
        """Whether any of them was written."""
        return any(vars(self).values())

    def check(self, model: str) -> None:
        """Raise UsageError unless they are all absent, or enough for `train engagement`."""
        needed = {"--train": self.train, "--test": self.test, "--label": self.label}
        train = self.train
        if train is not None and not train.suffix and not train.is_file():
            needed = {"--train": train}  # the name of a flat table, which has a label and can be split
        missing = [name for name, value in needed.items() if not value]
        if self.given and (model != "engagement" or missing):
            raise UsageError(
                f"A flat table needs `train engagement` with {', '.join(missing or needed)}.",
                "adstool train engagement --train FILE --test FILE --label COLUMN",
            )

    def request(self, settings: Settings) -> FlatRequest:
        """What is asked of the flat trainer."""
        from adstool.training.flat_table import FlatRequest

        assert self.train is not None
        return FlatRequest(
            train=self.train,
            test=self.test,
            valid=self.valid,
            label=self.label or "",
            categorical=self.categorical,
            numeric=self.numeric,
            min_count=settings.features.min_count,
            unknown_buckets=settings.features.unknown_buckets,
        )


def _plan(
    context: typer.Context, workspace: Workspace, settings: Settings, model: str, flat: _Flat, resume: bool
) -> None:
    from adstool.planned import plan_flat, plan_train

    if flat.given:
        show_plan(context, plan_flat(workspace, settings, flat.request(settings)))
    else:
        plan = partial(plan_train, workspace, settings, model=model, resume=resume)
        plan_of_warehouse(context, workspace, settings, plan)


def _runner(model: str, engine: str, workers: int | None) -> Any:
    """What trains instead of this process; None: nothing does."""
    if engine not in ("local", "ray"):
        raise UsageError(f"There is no engine '{engine}'.", choose(engine, ("local", "ray")))
    if engine == "local":
        if workers is not None:
            raise UsageError("--workers are those of Ray.", "Add --engine ray.")
        return None
    if model != "engagement":
        raise UsageError(f"--engine ray trains engagement, not {model}.", "Leave out --engine.")
    from adstool.distributed.training import ray_runner

    return ray_runner(workers)


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {word}: write KEY=VALUE.", "For example --set dropout=0.2")
        pairs[key.strip()] = value.strip()
    return pairs


def _of(owner: str, model: str, **given: str | None) -> dict[str, str]:
    """The options of `train OWNER` that were written, as settings; raises UsageError for another model."""
    written = {name: value for name, value in given.items() if value is not None}
    if written and model != owner:
        raise UsageError(
            f"--{next(iter(written))} is of `train {owner}`, not of {model}.",
            f"Leave out --{next(iter(written))}.",
        )
    return written


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _train_model(workspace: Workspace, settings: Settings, model: str, options: Any) -> dict[str, Any]:
    from adstool.funnel.teaching import Teacher
    from adstool.pipeline import record
    from adstool.serving.export import export_run
    from adstool.training.train import train_model
    from adstool.warehouse import open_warehouse

    started = datetime.now(UTC)
    wait = settings.warehouse.lock_wait_seconds
    with workspace.lock(wait):
        with open_warehouse(workspace, settings, read_only=True) as con:
            if model == "lightweight":
                options = replace(options, teach=Teacher(workspace, settings, con))
            result = train_model(workspace, settings, con, model, options, export=export_run).to_json()
        # `run` then knows that this stage is done with the data as they are.
        record(workspace, settings, model, result, started)
    return result


def _train_flat(workspace: Workspace, settings: Settings, options: Any, flat: _Flat) -> dict[str, Any]:
    from adstool.serving.export import export_run
    from adstool.training.train import train_flat_model

    request = flat.request(settings)
    with workspace.lock(settings.warehouse.lock_wait_seconds):
        return train_flat_model(workspace, settings, request, options, export=export_run).to_json()


def _train_clip(workspace: Workspace, settings: Settings, options: Any) -> dict[str, Any]:
    from adstool.content.clip_training import train_clip
    from adstool.warehouse import open_warehouse

    wait = settings.warehouse.lock_wait_seconds
    with workspace.lock(wait), open_warehouse(workspace, settings, read_only=True) as con:
        if options.resume is False:
            workspace.clear_partial("clip")
        with workspace.new_run("clip") as run_dir:
            result = train_clip(
                workspace,
                settings,
                con,
                run_dir,
                preset=options.preset or None,
                epochs=options.epochs,
                batch_size=options.batch_size,
                seed=options.seed,
                overrides=options.overrides,
            )
        run = workspace.require_run("clip", "train clip")
    return {
        "model": "clip",
        "run_id": run.name,
        "metrics": result.metrics,
        "parameters": result.parameters,
        "rows_per_second": result.rows_per_second,
        "seconds": result.seconds,
        "epochs": result.epochs,
    }


def _train_semantic(workspace: Workspace, settings: Settings, options: Any) -> dict[str, Any]:
    from adstool.content.semantic_ids import train_semantic
    from adstool.pipeline import record
    from adstool.warehouse import open_warehouse

    if options.epochs is not None or options.batch_size is not None:
        raise UsageError(
            "--epochs and --batch-size are not of `train semantic`.",
            "It has --preset kmeans or rqvae, --seed, --set levels=4 and --set size=64.",
        )
    given = {"method": options.preset, "seed": "" if options.seed is None else str(options.seed)}
    overrides = {**{key: value for key, value in given.items() if value}, **options.overrides}
    started = datetime.now(UTC)
    wait = settings.warehouse.lock_wait_seconds
    with workspace.lock(wait):
        with open_warehouse(workspace, settings, read_only=True) as con:
            result = train_semantic(workspace, settings, con, overrides).to_json()
        record(workspace, settings, "semantic", result, started)
    return result


def _show_semantic(context: typer.Context, payload: dict[str, Any]) -> None:
    metrics = payload["metrics"]
    sizes = " x ".join(str(size) for size in payload["sizes"])
    say(
        context,
        f"semantic {payload['run_id']}: {payload['method']} {sizes} over {metrics['items']:,} items in "
        f"{payload['seconds']:.1f} s; co-engagement of {metrics['pairs']:,} pairs.",
    )
    names = {
        "relative_mse": "error left",
        "cosine": "cosine",
        "perplexity": "perplexity",
        "dead": "dead",
        "prefixes": "prefixes",
        "collisions": "collisions",
        "purity": "co-engaged",
        "popularity_matched": "by chance",
    }
    rows = [
        (
            level,
            *(figures.get(name) for name in names),
            metrics["test"].get(level, {}).get("relative_mse"),
        )
        for level, figures in metrics["train"].items()
    ]
    table(context, ["codes", *names.values(), "error left, new items"], rows)
    next_verb(context, NEXT["semantic"])


def _figures(valid: dict[str, Any], test: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """A row a figure; one that has an interval, keys ending in _low and _high, shows it beside itself."""

    def shown(figures: dict[str, Any], name: str) -> Any:
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        return figures.get(name) if low is None else f"{figures[name]:.4f} ({low:.4f} to {high:.4f})"

    edges = {f"{name}_{edge}" for name in test for edge in ("low", "high")}
    return [(name, shown(valid, name), shown(test, name)) for name in test if name not in edges]


def _show_heads(context: typer.Context, test: dict[str, Any], before: dict[str, Any]) -> None:
    """A row a head, beside the NE of the run before; and a table of the amounts that are expected."""
    names = [name for name, value in next(iter(test.values())).items() if not isinstance(value, dict)]
    rows = [[head, *(figures.get(name) for name in names)] for head, figures in test.items()]
    columns = ["test", *names]
    if before:
        columns.insert(columns.index("ne") + 1, f"ne of {before['run_id']}")
        for row in rows:
            row.insert(columns.index("ne") + 1, before["ne"].get(row[0]))
    table(context, columns, rows)
    amounts = {head: figures["amount"] for head, figures in test.items() if "amount" in figures}
    if amounts:
        figures = list(next(iter(amounts.values())))
        table(context, ["amount", *figures], [(head, *found.values()) for head, found in amounts.items()])


def _show(context: typer.Context, payload: dict[str, Any]) -> None:
    if payload["model"] == "semantic":
        _show_semantic(context, payload)
        return
    say(
        context,
        f"{payload['model']} {payload['run_id']}: {payload['parameters']:,} parameters, "
        f"{counted(payload['epochs'], 'epoch')} in {payload['seconds']:.1f} s, "
        f"{payload['rows_per_second']:,.0f} rows/s.",
    )
    valid, test = payload["metrics"]["valid"], payload["metrics"]["test"]
    nested = bool(test) and all(isinstance(value, dict) for value in test.values())
    if nested:
        _show_heads(context, test, payload.get("before") or {})
    else:
        table(context, ["", "valid", "test"], _figures(valid, test))
    next_verb(context, NEXT[payload["model"]])
