"""This machine's figures, each beside a floor measured in the same process run.

A floor is the least that the work could cost: the bare library call without what adstool adds. Times are
medians of alternating runs, so that a drift of the machine's speed meets both alike.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from adstool.bench_figure import Figure, alternate
from adstool.config import Settings
from adstool.errors import UsageError, choose
from adstool.progress import log
from adstool.workspace import Workspace, write_json, write_text

EVENTS = 300_000  # rows of the ingest figure
REQUESTS = 100  # slates of the latency figure


class Bench:
    """What the figures share: a scratch folder and, made when first needed, a finished sample workspace."""

    def __init__(self, folder: Path, made: Workspace | None, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.given = made

    @cached_property
    def workspace(self) -> Workspace:
        """The given workspace if it has an index to rank with, else the sample world, made here."""
        if self.given is not None and self.given.current_run("index") is not None:
            return self.given
        from adstool.ingestion.ingest import IngestOptions, ingest
        from adstool.pipeline import run_stages
        from adstool.stages import STAGES
        from adstool.warehouse import open_warehouse

        log.info("bench: making a sample workspace for the figures of the models")
        made = Workspace(self.folder / "sample")
        made.root.mkdir()
        (made.root / "adstool.toml").touch()
        with (
            as_file(files("adstool.sample_data").joinpath("world")) as world,
            open_warehouse(made, self.settings) as connection,
        ):
            ingest(connection, made, [str(world)], IngestOptions())
        until_index = [stage for stage in STAGES if stage.name not in ("evaluate", "report")]
        for _ in run_stages(made, self.settings, tuple(until_index)):
            pass
        return made

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The engagement model's inputs of 200 candidates of one request, from the examples of the
        workspace."""
        from adstool.serving.scorer import Scorer, as_served
        from adstool.training.data import load_training_data
        from adstool.warehouse import open_warehouse

        with open_warehouse(self.workspace, self.settings) as connection:
            dataset = load_training_data(self.workspace, self.settings, connection)
        start = dataset.splits["test"].start
        needs = Scorer(self.workspace.require_run("engagement", "train engagement")).needs
        return as_served(dataset.batch(slice(start, start + 200), needs))


def startup(_: Bench) -> Figure:
    """`adstool --help` as a process, beside importing what any such tool imports."""

    def process(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], capture_output=True, check=True)

    value, floor = alternate(process("-m", "adstool", "--help"), process("-c", "import typer, rich"), 7)
    return Figure("startup", "s", value, floor, 'python -c "import typer, rich"')


def ingest_jsonl(bench: Bench) -> Figure:
    """A validated, deduplicated load of a jsonl log, beside DuckDB's raw `create table as`."""
    import duckdb

    from adstool.ingestion.ingest import IngestOptions, ingest
    from adstool.warehouse import load_sql, open_warehouse

    path = bench.folder / "events.jsonl"
    duckdb.connect().execute(load_sql("bench_events"), {"rows": EVENTS, "path": str(path)})
    turn = iter(range(100))

    def ours() -> None:
        workspace = Workspace(bench.folder / f"ingest{next(turn)}")
        workspace.root.mkdir()
        with open_warehouse(workspace, bench.settings) as connection:
            ingest(connection, workspace, [str(path)], IngestOptions(table="events"))

    def raw() -> None:
        with duckdb.connect(str(bench.folder / f"raw{next(turn)}.duckdb")) as connection:
            connection.execute("create table events as select * from read_json($path)", {"path": str(path)})

    value, floor = alternate(ours, raw, 3)
    return Figure("ingest_jsonl", "rows/s", EVENTS / value, EVENTS / floor, "raw create table as read_json")


def int8(bench: Bench) -> Figure:
    """The heavy ranker on 200 ads in int8, beside full precision, both through ONNX Runtime, one thread."""
    from adstool.serving.scorer import Scorer, quantized_variant

    run = bench.workspace.require_run("engagement", "train engagement")
    if quantized_variant(run) != ".int8":
        raise UsageError(
            "--only int8: the engagement model in use has no int8 form.",
            "Make one: adstool quantize engagement",
        )
    small, full = (Scorer(run, quantized=quantized) for quantized in (True, False))
    inputs = bench.inputs
    value, floor = alternate(lambda: small.raw(inputs), lambda: full.raw(inputs), 200)
    return Figure("int8", "ms", value * 1e3, floor * 1e3, "the same model in fp32")


def embed(bench: Bench) -> Figure:
    """Decoding, embedding and storing the catalogue, beside the bare forward of as many, in one precision."""
    import numpy as np
    import torch
    from PIL import Image

    from adstool.content.clip import load_clip, resolve_source
    from adstool.content.embedding import EmbedResult, embed_items
    from adstool.warehouse import open_warehouse

    made = bench.workspace

    def anew(name: str) -> EmbedResult:
        """Everything embedded into a workspace of its own, with the same warehouse and no vectors."""
        empty = Workspace(bench.folder / name)
        empty.root.mkdir()
        with open_warehouse(made, bench.settings, read_only=True) as connection:
            return embed_items(empty, bench.settings, connection)

    anew("embed-first")  # libraries start up and kernels are chosen, for the forward below too
    result = anew("embed")
    clip = load_clip(resolve_source(made, bench.settings))
    clip = clip.in_bf16() if result.precision == "bf16" else clip
    batch = bench.settings.content.batch_size
    shape = clip.prepare(Image.new("RGB", (64, 64))).shape
    noise = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    pictures, texts = list(torch.from_numpy(noise)), ["a picture of something"] * batch

    def forward() -> None:
        clip.encode_images(pictures)
        clip.encode_texts(texts)

    seconds, _ = alternate(forward, lambda: None, 5)
    floor_is = f"the bare forward, {result.precision}"
    return Figure("embed", "items/s", result.items_per_second, batch / seconds, floor_is)


def training(bench: Bench) -> Figure:
    """An epoch of the engagement model, data loading included, beside forward and backward alone."""
    import numpy as np
    import torch

    from adstool.models.engagement import EngagementConfig
    from adstool.models.inputs import input_spec
    from adstool.training.data import load_training_data
    from adstool.training.engagement import PRESETS, EngagementTask, EngagementTaskConfig, build_engagement
    from adstool.training.loop import fit
    from adstool.training.options import TrainOptions, make_plan
    from adstool.training.record import training_device
    from adstool.warehouse import open_warehouse

    options = TrainOptions(epochs=1)
    plan = make_plan(bench.settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    with open_warehouse(bench.workspace, bench.settings) as connection:
        examples = load_training_data(bench.workspace, bench.settings, connection)
    model = build_engagement(input_spec(examples), plan, examples)
    task = EngagementTask("engagement", model, examples, EngagementTaskConfig(**plan.task))
    rows = np.arange(min(plan.loop.batch_size, task.rows))
    held = task.load(rows, np.random.default_rng(0))

    def step() -> None:
        model.zero_grad()
        torch.autograd.backward(task.loss(held))

    seconds, _ = alternate(step, lambda: None, 10)
    fitted = fit(task, plan.loop, training_device(), bench.folder, "bench", resume=False)
    floor = len(rows) / seconds
    return Figure("training", "rows/s", fitted.rows_per_second, floor, "forward and backward, data in memory")


def rank(bench: Bench) -> Figure:
    """A whole request, beside the same arithmetic written by hand: two products and the heavy ranker."""
    import numpy as np

    from adstool.funnel.rank import Ranker
    from adstool.serving.scorer import Scorer

    users = _users(bench)
    with Ranker(bench.workspace, bench.settings) as ranker:
        heavy = Scorer(bench.workspace.require_run("engagement", "train engagement"))
        inputs = bench.inputs
        rng = np.random.default_rng(0)
        items = rng.standard_normal((ranker.items, 64), dtype=np.float32)
        query = rng.standard_normal(64, dtype=np.float32)

        def by_hand() -> None:
            found = np.argpartition(-(items @ query), min(2000, len(items) - 1))[:2000]
            np.argpartition(-(items[found] @ query), min(200, len(found) - 1))[:200]
            heavy.predict(inputs)

        turn = iter(users * (REQUESTS // len(users) + 2))
        value, floor = alternate(lambda: ranker.rank({"user_id": next(turn)}), by_hand, REQUESTS)
    return Figure("rank", "ms", value * 1e3, floor * 1e3, "ANN by product, dot products, heavy ranker")


def _among(ads: int, name: str) -> Callable[[Bench], list[Figure]]:
    """A whole request, its share of the funnel log included, among so many ads."""

    def measured(bench: Bench) -> list[Figure]:
        import numpy as np

        from adstool.bench_rank import bare_request, grow, time_requests
        from adstool.funnel.rank import Ranker

        inputs, users = bench.inputs, _users(bench)
        grown = grow(bench.workspace, bench.settings, bench.folder / name, ads)
        with Ranker(grown, bench.settings) as ranker:
            by_hand = bare_request(ranker, inputs, bench.folder / f"{name}-bare")
            taken = time_requests(ranker, users, by_hand, 6 * REQUESTS)
        floor_is = "LanceDB's 2,000 nearest, dot products, the heavy ranker's session"
        return [
            Figure(f"{name}_{label}", "ms", value, floor, floor_is)
            for label, part in (("p50", 0.5), ("p99", 0.99))
            for value, floor in [np.quantile(taken, part, axis=1).tolist()]
        ]

    return measured


def scaling(bench: Bench) -> Figure:
    """The largest ranker's validation loss beside the floor of the power law through five sizes.

    Of the workspace's own log where there is a workspace, whatever was trained on it: reports/scaling.html
    then shows the curve, and later reports have it too.
    """
    from adstool.evaluation.sections_scaling import NAME, scaling_figures
    from adstool.models.inputs import input_spec
    from adstool.training.data import load_training_data
    from adstool.training.scaling import measure_scaling
    from adstool.warehouse import open_warehouse

    workspace = bench.given or bench.workspace
    with open_warehouse(workspace, bench.settings) as connection:
        examples = load_training_data(workspace, bench.settings, connection)
    found = measure_scaling(bench.settings, examples, input_spec(examples))
    if bench.given is not None:
        write_json(bench.given.reports / NAME, found.to_json())
        _page(bench.given, "scaling", "loss against compute", scaling_figures(found.to_json()))
    last = found.points[-1]
    return Figure("scaling", "loss", last.loss, found.law.floor, "the fitted loss at unbounded compute")


def _page(workspace: Workspace, name: str, title: str, html: str) -> None:
    """reports/<name>.html: one section of the report by itself."""
    from adstool.evaluation.page import document

    path = workspace.reports / f"{name}.html"
    write_text(path, document(f"{workspace.root.name} – {title}", "", [(name, name.capitalize(), html)], ""))
    log.info("%s shows it.", path)


def growth(bench: Bench) -> list[Figure]:
    """Every verb on worlds of 10,000, 100,000 and 1,000,000 events, beside what linear growth would be.

    In a workspace, reports/growth.html shows the curves, later reports have them too, and a measurement that
    was cut off goes on with the next size.
    """
    from adstool.evaluation.sections_growth import NAME, growth_figures, growth_json
    from adstool.growth import figures, measure_growth

    made = bench.given
    measured = measure_growth(bench.folder, made.reports / f".{NAME}" if made is not None else None)
    if made is not None:
        write_json(made.reports / NAME, growth_json(measured))
        _page(made, "growth", "time and memory by size", growth_figures(measured))
    return figures(measured)


def verbs(bench: Bench) -> list[Figure]:
    """Every verb as a process on the sample world, with its peak memory, beside `adstool --help`."""
    from adstool.bench_verbs import figures

    return figures(bench.folder)


def _users(bench: Bench) -> list[str]:
    from adstool.warehouse import open_warehouse

    with open_warehouse(bench.workspace, bench.settings, read_only=True) as connection:
        return [row[0] for row in connection.execute("select user_id from users limit 50").fetchall()]


# A new figure is a function and a line here.
FIGURES: dict[str, Callable[[Bench], Figure]] = {
    "startup": startup,
    "ingest_jsonl": ingest_jsonl,
    "embed": embed,
    "training": training,
    "int8": int8,
    "rank": rank,
}
# Those that train several models or grow a large catalogue: measured when asked for by name.
LONG: dict[str, Callable[[Bench], Figure | list[Figure]]] = {
    "scaling": scaling,
    "growth": growth,
    "verbs": verbs,
    "rank_200k": _among(200_000, "rank_200k"),
    "rank_1m": _among(1_000_000, "rank_1m"),
}


def measure(made: Workspace | None, settings: Settings, only: str | None = None) -> Iterator[Figure]:
    """Measure every figure that does not take long, or `only` one, yielding each as it is known.

    Raises UsageError for a name that is no figure.
    """
    known = {**FIGURES, **LONG}
    if only is not None and only not in known:
        raise UsageError(f"There is no figure '{only}'.", choose(only, known))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adstool-bench-")))
        bench = Bench(folder, made, settings)
        for name in [only] if only is not None else FIGURES:
            measured = known[name](bench)
            yield from measured if isinstance(measured, list) else [measured]
