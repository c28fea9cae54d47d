"""The figures of loading, models and verbs, the list of all, and measuring them.

Times are medians of alternating runs, so that a drift of the machine's speed meets both alike.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from adstool.bench.figure import Figure, alternate
from adstool.bench.rank import rank, rank_among
from adstool.bench.workbench import Workbench
from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError, choose
from adstool.progress import log
from adstool.workspace import Workspace, write_json, write_text

EVENTS = 300_000  # rows of the ingest figure


def startup(_: Workbench) -> Figure:
    """`adstool --help` as a process, beside importing what any such tool imports."""

    def process(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], capture_output=True, check=True)

    value, floor = alternate(process("-m", "adstool", "--help"), process("-c", "import typer, rich"), 7)
    return Figure("startup", "s", value, floor, 'python -c "import typer, rich"')


def ingest_jsonl(bench: Workbench) -> Figure:
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


def int8(bench: Workbench) -> Figure:
    """The heavy ranker on 200 ads in int8, beside full precision, both through ONNX Runtime, one thread."""
    from adstool.serving.scorer import Scorer, quantized_variant

    run = bench.workspace.require_run("engagement", "train engagement")
    if quantized_variant(run) != ".int8":
        raise UsageError(
            "There is no int8 form of the engagement model in use.",
            "Make one: adstool quantize engagement",
        )
    small, full = (Scorer(run, quantized=quantized) for quantized in (True, False))
    inputs = bench.inputs
    value, floor = alternate(lambda: small.raw(inputs), lambda: full.raw(inputs), 200)
    return Figure("int8", "ms", value * 1e3, floor * 1e3, "the same model in fp32")


def embed(bench: Workbench) -> Figure:
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
    if result.complaint:  # what cannot be read takes no time, and would pass for speed
        raise AdstoolError(result.complaint, "Mend or remove the pictures: adstool doctor tells which.")
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


def training(bench: Workbench) -> Figure:
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
    with open_warehouse(bench.workspace, bench.settings, read_only=True) as connection:
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


def scaling(bench: Workbench) -> Figure:
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
    with open_warehouse(workspace, bench.settings, read_only=True) as connection:
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


def growth(bench: Workbench) -> list[Figure]:
    """Every verb on worlds of 10,000, 100,000 and 1,000,000 events, beside what linear growth would be.

    In a workspace, reports/growth.html shows the curves, later reports have them too, and a measurement that
    was cut off goes on with the next size.
    """
    from adstool.bench.growth import figures, measure_growth
    from adstool.evaluation.sections_growth import NAME, growth_figures, growth_json

    made = bench.given
    measured = measure_growth(bench.folder, made.reports / f".{NAME}" if made is not None else None)
    if made is not None:
        write_json(made.reports / NAME, growth_json(measured))
        _page(made, "growth", "time and memory by size", growth_figures(measured))
    return figures(measured)


def verbs(bench: Workbench) -> list[Figure]:
    """Every verb as a process on the sample world, with its peak memory, beside `adstool --help`."""
    from adstool.bench.verbs import figures

    return figures(bench.folder)


# A new figure is a function and a line here.
FIGURES: dict[str, Callable[[Workbench], Figure]] = {
    "startup": startup,
    "ingest_jsonl": ingest_jsonl,
    "embed": embed,
    "training": training,
    "int8": int8,
    "rank": rank,
}
# Those that train several models or grow a large catalogue: measured when asked for by name.
LONG: dict[str, Callable[[Workbench], Figure | list[Figure]]] = {
    "scaling": scaling,
    "growth": growth,
    "verbs": verbs,
    "rank_200k": rank_among(200_000, "rank_200k"),
    "rank_1m": rank_among(1_000_000, "rank_1m"),
}


def measure(made: Workspace | None, settings: Settings, only: str | None = None) -> Iterator[Figure]:
    """Measure every figure that does not take long, or `only` one, yielding each as it is known.

    Of all, those that the workspace has no model for are left out with a warning. Raises UsageError for a
    name that is no figure, and AdstoolError for one that cannot be measured.
    """
    known = {**FIGURES, **LONG}
    if only is not None and only not in known:
        raise UsageError(f"There is no figure '{only}'.", choose(only, known))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adstool-bench-")))
        bench = Workbench(folder, made, settings)
        for name in [only] if only is not None else FIGURES:
            try:
                measured = known[name](bench)
            except AdstoolError as error:
                if only is not None:
                    raise
                log.warning("%s is not measured. %s %s", name, error.message, error.hint)
                continue
            yield from measured if isinstance(measured, list) else [measured]
