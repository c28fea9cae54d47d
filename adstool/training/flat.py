"""`train engagement --train FILE --test FILE --label COL`: the heavy ranker on a flat table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adstool.config import Action, Settings
from adstool.errors import DataError, UsageError
from adstool.models.engagement import EngagementConfig
from adstool.models.inputs import InputSpec
from adstool.progress import log
from adstool.training.engagement import PRESETS, EngagementTaskConfig, train_examples
from adstool.training.flat_named import resolve
from adstool.training.flat_table import (
    FlatEncoder,
    FlatRequest,
    encode_table,
    fit_encoder,
    guess_columns,
    load_table,
    remove_stale,
    scratch,
)
from adstool.training.options import TrainOptions, TrainResult, make_plan
from adstool.workspace import Workspace, mapped_array, read_json, write_json

VALID_SHARE = 0.1  # of the training rows, when no validation file is given


@dataclass(frozen=True)
class FlatExamples:
    """The memory-mapped rows of a flat table: training, validation and test one after the other."""

    categorical: NDArray[np.int32]  # [N, F]
    numeric: NDArray[np.float32]  # [N, M]
    labels: NDArray[np.float32]  # [N, 1]
    splits: Mapping[str, slice]
    actions: Sequence[Action]
    encoder: FlatEncoder
    fingerprint: str

    # A flat table knows no catalogue, no users and no weights: these are never read, or all ones.
    @property
    def items(self) -> Any:
        """An empty catalogue."""
        return SimpleNamespace(content=np.zeros((0, 0), dtype=np.float32))

    @property
    def item_row(self) -> NDArray[Any]:
        """No row belongs to an item: -1 for all."""
        return np.broadcast_to(np.int32(-1), len(self.labels))

    @property
    def user(self) -> NDArray[Any]:
        """Every row is a user of its own."""
        return np.arange(len(self.labels), dtype=np.int64)

    @property
    def sample_weight(self) -> NDArray[Any]:
        """Every row counts the same."""
        return np.broadcast_to(np.float32(1.0), len(self.labels))

    @property
    def mapped_bytes(self) -> int:
        """Bytes of the columns."""
        return self.categorical.nbytes + self.numeric.nbytes + self.labels.nbytes

    def spec(self) -> InputSpec:
        """What a model of these columns reads."""
        vocabularies = self.encoder.vocabularies
        names = tuple(vocabularies)
        return InputSpec(
            categorical=names,
            categorical_sides=("context",) * len(names),
            cardinalities=tuple(v.cardinality for v in vocabularies.values()),
            numeric=tuple(scale.name for scale in self.encoder.scales),
            numeric_sides=("context",) * len(self.encoder.scales),
            actions=tuple(action.name for action in self.actions),
            unknown_buckets=min((v.buckets for v in vocabularies.values()), default=0),
        )


def prepare(ws: Workspace, settings: Settings, request: FlatRequest) -> FlatExamples:
    """The examples of a request: from the cache when the files are unchanged, else read and encoded.

    Without a validation file a tenth of the training rows, drawn at random, is held out. Raises DataError for
    files, columns and labels that cannot be used.
    """
    folder = ws.cache / "flat"
    request = resolve(ws, settings, request)
    test = request.test
    if test is None:
        raise UsageError("--train FILE needs a file to test on.", "Give --test FILE.")
    for path in (request.train, request.test, request.valid):
        if path is not None and not path.is_file():
            raise DataError(f"There is no file {path}.", "Give a csv or parquet file.")
    fingerprint = request.fingerprint()
    ready = folder / fingerprint
    if not ready.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder, fingerprint)
        partial = folder / f".partial-{os.getpid()}"
        partial.mkdir()
        try:
            with scratch(folder, settings) as con:
                if not request.categorical and not request.numeric:
                    categorical, numeric = guess_columns(con, request.train, request.label)
                    request = replace(request, categorical=categorical, numeric=numeric)
                load_table(con, "train", request.train, request)
                load_table(con, "test", test, request)
                if request.valid is not None:
                    load_table(con, "valid", request.valid, request)
                _write(con, request, partial)
            partial.replace(ready)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return _open(ready, request.label, fingerprint)


def _write(con: Any, request: FlatRequest, folder: Path) -> None:
    encoder = fit_encoder(con, request)
    encoder.save(folder)
    rows = {name: _count(con, name) for name in ("train", "test")}
    held = np.zeros(rows["train"], dtype=bool)
    if request.valid is not None:
        rows["valid"] = _count(con, "valid")
    else:
        held = np.random.default_rng(0).random(rows["train"]) < VALID_SHARE
        rows["valid"] = int(held.sum())
        rows["train"] -= rows["valid"]
        log.info(f"No --valid file: {rows['valid']:,} training rows, drawn at random, are held out for it.")
    total = sum(rows.values())
    shapes = {"categorical": len(encoder.vocabularies), "numeric": len(encoder.scales), "labels": 1}
    kinds = {"categorical": np.int32, "numeric": np.float32, "labels": np.float32}
    arrays = {
        name: mapped_array(folder / f"{name}.npy", kinds[name], (total, width))
        for name, width in shapes.items()
    }
    place = {"train": 0, "valid": rows["train"], "test": rows["train"] + rows["valid"]}
    splits = {name: [start, start + rows[name]] for name, start in place.items()}

    def put(split: str, parts: Sequence[NDArray[Any]], chosen: NDArray[np.bool_]) -> None:
        start, count = place[split], int(chosen.sum())
        for name, part in zip(("categorical", "numeric", "labels"), parts, strict=True):
            arrays[name][start : start + count] = part.reshape(len(chosen), -1)[chosen]
        place[split] += count

    for table in ("train", "valid", "test") if request.valid is not None else ("train", "test"):
        seen = 0
        for parts in encode_table(con, table, encoder):
            count = len(parts[0])
            aside = held[seen : seen + count] if table == "train" else np.zeros(count, dtype=bool)
            put(table, parts, ~aside)
            if aside.any():
                put("valid", parts, aside)
            seen += count
    for array in arrays.values():
        array.flush()
    write_json(folder / "splits.json", splits)


def _count(con: Any, table: str) -> int:
    return int(con.execute(f"select count(*) from {table}").fetchall()[0][0])


def _open(folder: Path, label: str, fingerprint: str) -> FlatExamples:
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("categorical", "numeric", "labels")
    }
    return FlatExamples(
        **arrays,
        splits={name: slice(*bounds) for name, bounds in read_json(folder / "splits.json").items()},
        actions=(Action(label),),
        encoder=FlatEncoder.load(folder),
        fingerprint=fingerprint,
    )


def train_flat(
    ws: Workspace, settings: Settings, request: FlatRequest, run_dir: Path, options: TrainOptions
) -> TrainResult:
    """Train the engagement model on a flat table, into `run_dir`."""
    plan = make_plan(settings, options, PRESETS, EngagementConfig, EngagementTaskConfig)
    examples = prepare(ws, settings, request)
    return train_examples("flat", examples.spec(), plan, examples, examples.encoder, run_dir, options)
