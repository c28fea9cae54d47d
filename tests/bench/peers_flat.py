"""The flat ranker beside FuxiCTR's DCN-V2 and LightGBM: the same split, fields and budget, a process each.

    python tests/bench/peers_flat.py ml-100k /path/to/ml-100k --fuxictr /path/to/python [--seeds 3]
    python tests/bench/peers_flat.py wide --fuxictr /path/to/python
    python tests/bench/peers_flat.py criteo ../shared/data/criteo_kaggle/train.tiny.csv

Run by hand on an idle machine. Rows a second are of training passes, judging the validation split left out;
memory is the peak of the whole process. FuxiCTR lives in an environment of its own (see peer_fuxictr.py),
LightGBM in ours; its rows a second are rows times trees.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

LABEL = "y"
PEER = Path(__file__).with_name("peer_fuxictr.py")
METRICS = ("auc", "log_loss", "rows_per_second", "seconds", "megabytes")
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Table:
    """A set to train on: columns by split, the label among them, and the budget."""

    splits: dict[str, Columns]
    epochs: int
    batch_size: int

    @property
    def fields(self) -> list[str]:
        """The categorical columns."""
        return [name for name in self.splits["train"] if name != LABEL]


def ml_100k(folder: Path) -> Table:
    """Ten fields of MovieLens 100k; liked means rated at least 4; rows are split at random, 8 : 1 : 1."""
    con = duckdb.connect()
    read = "read_csv('{}', delim='\t', header=true, quote='', all_varchar=true)"
    names = {part: read.format(folder / f"ml-100k.{part}") for part in ("inter", "user", "item")}
    found = con.sql(f"""
        select
            inter."user_id:token" as user_id, inter."item_id:token" as item_id, "age:token" as age,
            "gender:token" as gender, "occupation:token" as occupation, "zip_code:token" as zip_code,
            "release_year:token" as release_year, "class:token_seq" as genres,
            strftime(to_timestamp(cast("timestamp:float" as double)), '%H') as hour,
            strftime(to_timestamp(cast("timestamp:float" as double)), '%w') as weekday,
            cast(cast("rating:float" as double) >= 4 as bigint) as y
        from {names["inter"]} as inter
        join {names["user"]} as users on users."user_id:token" = inter."user_id:token"
        join {names["item"]} as items on items."item_id:token" = inter."item_id:token"
        order by md5(inter."user_id:token" || '-' || inter."item_id:token")
    """).fetchnumpy()
    columns = {
        name: np.ma.filled(value, "") if value.dtype == object else value for name, value in found.items()
    }
    columns = {n: np.asarray(v) if n == LABEL else np.asarray(v).astype(str) for n, v in columns.items()}
    return Table(_split(columns), epochs=8, batch_size=2048)


def wide(rows: int = 500_000, fields: int = 26, seed: int = 0) -> Table:
    """A made click log: ids in 26 fields, some half a million in all, with effects and pairs of effects."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(10, 150_000, fields).astype(int)
    codes = []
    for size in sizes:
        often = np.minimum(rng.zipf(1.25, rows) - 1, size * 40) % size
        codes.append(np.where(rng.random(rows) < 0.6, often, rng.integers(0, size, rows)))
    vectors = [rng.normal(0.0, 0.28, (size, 4)) for size in sizes]
    seen = np.stack([vector[code] for vector, code in zip(vectors, codes, strict=True)])  # [fields, rows, 4]
    total = seen.sum(axis=0)
    pairs = 0.5 * ((total**2).sum(axis=1) - (seen**2).sum(axis=(0, 2)))  # of a factorization machine
    logit = -1.5 + seen[:, :, 0].sum(axis=0) + 0.5 * pairs
    y = (rng.random(rows) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int64)
    columns: Columns = {f"c{field}": code.astype(np.int64) for field, code in enumerate(codes)}
    return Table(_split({**columns, LABEL: y}), epochs=2, batch_size=4096)


def criteo(path: Path) -> Table:
    """The raw columns of a Criteo file, numbers taken as values: a smoke test on the tiny one."""
    found = duckdb.sql(f"select * exclude (Id) from read_csv('{path}', all_varchar=true)").fetchnumpy()
    columns = {name: np.ma.filled(value.astype(object), "").astype(str) for name, value in found.items()}
    columns[LABEL] = columns.pop("Label").astype(np.int64)
    return Table(_split(columns), epochs=4, batch_size=256)


def _split(columns: Columns) -> dict[str, Columns]:
    rows = len(columns[LABEL])
    first, second = rows * 8 // 10, rows * 9 // 10
    parts = {"train": slice(first), "valid": slice(first, second), "test": slice(second, rows)}
    return {name: {key: value[part] for key, value in columns.items()} for name, part in parts.items()}


def write(table: Table, folder: Path) -> None:
    """Parquet as anyone would bring it, and the codes of training as npz; code 0 is for unseen values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vocabularies = {name: np.unique(table.splits["train"][name]) for name in table.fields}
    for split, columns in table.splits.items():
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
        coded: Columns = {LABEL: columns[LABEL].astype(np.int64)}
        for name, known in vocabularies.items():
            place = np.minimum(np.searchsorted(known, columns[name]), len(known) - 1)
            coded[name] = np.where(known[place] == columns[name], place + 1, 0).astype(np.int64)
        np.savez(folder / f"{split}_codes.npz", **coded)
        pq.write_table(pa.table(coded), folder / f"{split}_codes.parquet")
    (folder / "fields.json").write_text(json.dumps({name: len(v) + 1 for name, v in vocabularies.items()}))


def measured(command: list[str]) -> dict[str, Any]:
    """The last line a process prints, as JSON, with its peak memory and whole time."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate()
    whole = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{err[-2000:]}")
    return {**json.loads(out.strip().splitlines()[-1]), "whole": whole}


def with_memory(command: list[str]) -> dict[str, Any]:
    """`measured` under a parent of its own, whose children's peak is that of the process alone."""
    code = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "sys.stderr.write(done.stderr)\n"
        "if done.returncode: sys.exit(done.returncode)\n"
        "found = json.loads(done.stdout.strip().splitlines()[-1])\n"
        "found['megabytes'] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024\n"
        "print(json.dumps(found))\n"
    )
    return measured([sys.executable, "-c", code, *command])


def ours(table: Table, folder: Path, seed: int, *settings: str) -> dict[str, Any]:
    """`adstool train engagement` on the parquet files."""
    sets = [word for setting in ("patience=2", *settings) for word in ("--set", setting)]
    workspace = folder / f"shop-{seed}-{'-'.join(settings)}"
    adstool = [sys.executable, "-m", "adstool", "--quiet"]
    subprocess.run([*adstool, "init", str(workspace)], check=True)
    command = [*adstool, "--json", "--workspace", str(workspace), "train", "engagement"]
    for name in ("train", "valid", "test"):
        command += [f"--{name}", str(folder / f"{name}.parquet")]
    command += ["--label", LABEL, "--categorical", ",".join(table.fields), "--preset", "dcnv2", *sets]
    command += ["--epochs", str(table.epochs), "--batch-size", str(table.batch_size), "--seed", str(seed)]
    found = with_memory(command)
    return {**found, **next(iter(found["metrics"]["test"].values()))}


def fuxictr(table: Table, folder: Path, seed: int, python: str, loader: str) -> dict[str, Any]:
    """The peer's process on the codes."""
    budget = ["--epochs", str(table.epochs), "--batch-size", str(table.batch_size), "--seed", str(seed)]
    return with_memory([python, str(PEER), str(folder), "--label", LABEL, "--loader", loader, *budget])


def boosted(folder: Path, seed: int) -> dict[str, Any]:
    """LightGBM's process on the codes."""
    return with_memory([sys.executable, __file__, "--lightgbm", str(folder), "--seeds", str(seed)])


def lightgbm_child(folder: Path, seed: int) -> None:
    """Codes as categories, early stopping on the validation split."""
    import lightgbm
    from sklearn.metrics import log_loss, roc_auc_score

    fields = list(json.loads((folder / "fields.json").read_text()))
    parts = {name: np.load(folder / f"{name}_codes.npz") for name in ("train", "valid", "test")}
    x = {name: np.stack([part[field] for field in fields], axis=1) for name, part in parts.items()}
    started = time.perf_counter()
    names = {"feature_name": fields, "categorical_feature": fields}
    train = lightgbm.Dataset(x["train"], parts["train"][LABEL], **names)
    valid = lightgbm.Dataset(x["valid"], parts["valid"][LABEL], **names, reference=train)
    stop = lightgbm.early_stopping(20, verbose=False)
    parameters = {"objective": "binary", "learning_rate": 0.1, "num_leaves": 63, "seed": seed, "verbose": -1}
    parameters |= {"bagging_fraction": 0.9, "bagging_freq": 1, "feature_fraction": 0.9}
    model = lightgbm.train(parameters, train, 300, [valid], callbacks=[stop])
    seconds = time.perf_counter() - started
    p, y = model.predict(x["test"]), parts["test"][LABEL]
    rows = len(x["train"]) * model.current_iteration()
    print(
        json.dumps(
            {"auc": roc_auc_score(y, p), "log_loss": log_loss(y, p), "rows_per_second": rows / seconds}
            | {"seconds": seconds, "epochs": model.current_iteration()}
        )
    )


def main() -> None:
    """Print a line a contender: mean and standard deviation over seeds, and the ratio to FuxiCTR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", choices=["ml-100k", "wide", "criteo"])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--fuxictr", help="a python that has FuxiCTR; without it that line is left out")
    # In memory, and through Ray as its experiments read csv files.
    parser.add_argument("--loaders", default="npz,parquet", help="of FuxiCTR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lightgbm", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.lightgbm:
        lightgbm_child(given.lightgbm, given.seeds)
        return
    makers: dict[str, Callable[[], Table]] = {
        "ml-100k": lambda: ml_100k(given.path),
        "wide": wide,
        "criteo": lambda: criteo(given.path),
    }
    table = makers[given.name]()
    rows = {name: len(part[LABEL]) for name, part in table.splits.items()}
    ids = sum(len(np.unique(table.splits["train"][name])) for name in table.fields)
    print(
        f"{given.name}: {rows}, {len(table.fields)} fields, {ids:,} ids in training, {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(table, folder)
        contenders: dict[str, Callable[[int], dict[str, Any]]] = {
            "adstool fp32": lambda seed: ours(table, folder, seed, "precision=fp32"),
            "adstool bf16": lambda seed: ours(table, folder, seed, "precision=bf16"),
            "LightGBM": lambda seed: boosted(folder, seed),
        }
        if given.fuxictr:
            for loader in given.loaders.split(","):
                contenders[f"FuxiCTR {loader}"] = lambda seed, loader=loader: fuxictr(
                    table, folder, seed, given.fuxictr, loader
                )
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for seed in range(given.seeds):  # in turn, so that a slower hour hits all alike
            for name, run in contenders.items():
                found[name].append(run(seed))
        speed = {name: [run["rows_per_second"] for run in runs] for name, runs in found.items()}
        peers = {name: rates for name, rates in speed.items() if name.startswith("FuxiCTR")}
        for name, runs in found.items():
            shown = []
            for metric in METRICS:
                values = np.array([run[metric] for run in runs], dtype=float)
                digits = 4 if metric in ("auc", "log_loss") else 0
                shown.append(f"{metric} {values.mean():,.{digits}f} ± {values.std():,.{digits}f}")
            for peer, rates in peers.items():
                ratios = [own / other for own, other in zip(speed[name], rates, strict=True)]
                shown.append(f"{np.mean(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) x {peer}")
            print(f"{name:14s}", "  ".join(shown), flush=True)


if __name__ == "__main__":
    main()
