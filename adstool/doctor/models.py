"""Checks of model runs and vectors: whole, calibrated, quantized, and of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adstool.config import Settings
from adstool.doctor.finding import Check, fault, fit, odd
from adstool.errors import AdstoolError
from adstool.workspace import Workspace, read_json

MADE_BY = {
    "index": "index",
    "quota": "quota",
    "flat": "train engagement --train FILE --test FILE --label COLUMN",
}
MADE_BY["relevance"] = "enrich --with llm --relevance"
# What `run` does to a run after it was trained: file -> (verb, what it is for, models).
AFTERWARDS = {
    "calibration.json": ("calibrate", "its probabilities are as trained", ("engagement",)),
    "quantization.json": ("quantize", "full precision serves", ("engagement",)),
}


def model_checks(ws: Workspace, settings: Settings) -> Iterator[Check]:
    """Every model, then the index against the models, then the vectors against the settings."""
    for folder in sorted(ws.models.iterdir()) if ws.models.is_dir() else []:
        if folder.is_dir():
            yield one_model(ws, folder)
    yield from index(ws)
    yield from vectors(ws, settings)


def one_model(ws: Workspace, folder: Path) -> Check:
    """Whether the run in use is there and whole, and what was done to it."""
    name = f"model {folder.name}"
    again = f"adstool {MADE_BY.get(folder.name, f'train {folder.name}')}"
    run, pointed = ws.current_run(folder.name), (folder / "current").is_file()
    # The first run is pointed to before it is there.
    if run is None and (folder / ".partial").is_dir() and not (pointed and ws.runs(folder.name)):
        return odd(name, "an unfinished run", f"{again} goes on with it")
    if not pointed:
        return fault(name, "no run in use", again)
    if run is None:
        return fault(
            name,
            f"its current run is gone: {(folder / 'current').read_text(encoding='utf-8').strip()}",
            again,
        )
    damage = next(damaged(run), None)
    if damage is not None:
        return fault(name, damage, again)
    for file, (verb, what, models) in AFTERWARDS.items():
        if folder.name in models and not (run / file).is_file():
            return odd(name, f"{run.name} in use, and {what}", f"adstool {verb} {folder.name}")
    return fit(name, f"{run.name} in use")


def damaged(run: Path) -> Iterator[str]:
    """Files of a run that cannot be opened, each with why; every file is looked at by what it is.

    What a killed verb left under a hidden name is no part of the run.
    """
    for path in sorted(run.rglob("*")):
        opened = _OPEN.get(path.suffix)
        hidden = any(part.startswith(".") for part in path.relative_to(run).parts)
        if opened is None or hidden or not path.is_file():
            continue
        try:
            opened(path)
        except AdstoolError as error:
            yield error.message
        except Exception as error:  # each library has its own exceptions for a damaged file
            yield f"{path} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _open_npy(path: Path) -> None:
    import numpy as np

    np.load(path, mmap_mode="r")


def _open_npz(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if (wrong := archive.testzip()) is not None:
            raise ValueError(f"{wrong} does not match its checksum")


def _open_weights(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        file.keys()


def _open_graph(path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _open_parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.ParquetFile(path).close()


_OPEN = {
    ".json": read_json,
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".onnx": _open_graph,
    ".parquet": _open_parquet,
    ".safetensors": _open_weights,
}


def index(ws: Workspace) -> Iterator[Check]:
    """Whether the index was made with the models in use."""
    run = ws.current_run("index")
    if run is None or not (run / "index.json").is_file():
        return
    made_with: dict[str, str] = read_json(run / "index.json").get("runs", {})
    gone = [f"{model} {one}" for model, one in made_with.items() if not (ws.models / model / one).is_dir()]
    if gone:
        yield fault("index", f"{run.name} was made with {gone[0]}, which is gone", "adstool index")
        return
    newer = [
        f"{model} {current.name}"
        for model, one in made_with.items()
        if (current := ws.current_run(model)) is not None and current.name != one
    ]
    if newer:
        yield odd("index", f"{run.name} is older than {' and '.join(newer)}", "adstool index")
    else:
        yield fit("index", f"{run.name} is of the models in use")


def vectors(ws: Workspace, settings: Settings) -> Iterator[Check]:
    """Whether tables of vectors open, and are of the CLIP that is set."""
    from adstool.content.vectors import active_model, table_name

    active = active_model(ws)
    if active is None:
        return
    import lancedb

    rows = []
    for kind in ("ad", "pin"):
        name = table_name(kind, active.slug)
        if not (ws.vectors / f"{name}.lance").is_dir():
            continue
        try:
            table = lancedb.connect(str(ws.vectors)).open_table(name)
            table.search().select(["joint"]).limit(1).to_arrow()
            rows.append(f"{table.count_rows():,} of {kind}s")
        except Exception as error:  # LanceDB raises what its storage raised, of any kind
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            mend = f"rm -r {ws.vectors / name}.lance, then adstool embed"
            yield fault("vectors", f"{ws.vectors / name}.lance is damaged: {reason[:200]}", mend)
            return
    found = f"{', '.join(rows) or 'none'}, by {active.name}"
    wanted = settings.content.model
    if wanted.partition("@")[0] not in (active.name.partition("@")[0], "adstool-small"):
        yield odd("vectors", f"{found}, and content.model is {wanted}", "adstool embed, then adstool run")
    else:
        yield fit("vectors", found)
