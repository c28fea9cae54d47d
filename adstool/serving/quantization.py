"""Post-training quantization of a run: several techniques compared, one put into use behind a gate.

On the sample world (NE and calibration of the worst head), dense layers that compute in int8 cost the
conversion model .083 % and 8.2 % as they are, .125 % and 2.7 % with static ranges, .018 % and .7 % with
their inputs equalized; with weights only stored in int8 it was .022 % and .7 %, but no faster than float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import GateNotPassed, UsageError, choose
from adstool.progress import log
from adstool.serving.gate import Limits, judge
from adstool.serving.quantized_graph import Layers, Recipe, quantize_graph
from adstool.serving.scorer import QUANTIZATION, GraphSession, graph_file
from adstool.serving.trials import TRIALS, Trial
from adstool.workspace import Workspace, write_json

if TYPE_CHECKING:
    import duckdb

# What `--scheme` may name.
SCHEMES = {
    "int8": Recipe("int8", "dynamic", equal=True),
    "int4": Recipe("int4", "dynamic", equal=True),
}
# What the schemes are compared with; see quantized_graph for the words.
TECHNIQUES = {
    "int8 tables alone": Recipe("int8", "float32"),
    "int8 dense alone": Recipe("float32", "dynamic", equal=True),
    "int8, dense stored": Recipe("int8", "stored"),
    "int8, dense not equalized": Recipe("int8", "dynamic"),
    "int8, dense static": Recipe("int8", "static", equal=True),
    "int8": SCHEMES["int8"],
    "int4": SCHEMES["int4"],
}
CANDIDATE = "candidate"  # in the name of what is written, not judged yet
REFUSED = ".refused"


def quantize_run(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    name: str,
    scheme: str = "int8",
    max_ne_loss: float | None = None,
    *,
    compare: bool = False,
) -> dict[str, Any]:
    """Quantize the run of model `name` in use, and put it into use when it passes its gate.

    Returns {model, run_id, scheme, accepted, size_ratio, speedup, delta_ne, delta_calibration, topk_overlap,
    table, ...}; the same is kept in the run's quantization.json. max_ne_loss: instead of the setting.
    compare: every technique in the table, not the scheme alone.
    Raises GateNotPassed, with the same figures, when a limit is broken: the graphs are then kept as
    *.<scheme>.refused.onnx and the full-precision ones serve on. Raises UsageError for an unknown model or
    scheme.
    """
    if name not in TRIALS:
        raise UsageError(f"'{name}' cannot be quantized.", choose(name, TRIALS))
    if scheme not in SCHEMES:
        raise UsageError(f"There is no quantization scheme '{scheme}'.", choose(scheme, SCHEMES))
    trial = TRIALS[name](ws, settings, con, ws.require_run(name, f"train {name}"))
    limits = Limits.of(settings.quantization, max_ne_loss)
    recipes = TECHNIQUES if compare else {scheme: SCHEMES[scheme]}
    chosen = next(label for label, recipe in recipes.items() if recipe == SCHEMES[scheme])
    variants = {label: f".{CANDIDATE}{number}" for number, label in enumerate(recipes)}
    try:
        layers = {label: _quantize(trial, recipes[label], variants[label]) for label in recipes}
        found = judge(trial, list(variants.values()))
        result = _result(trial, scheme, limits, found[""], found[variants[chosen]])
        result["table"] = [
            {"technique": label, **_row(found[variant], limits, trial)}
            for label, variant in {"fp32": "", **variants}.items()
        ]
        result["layers"] = {file: vars(one) for file, one in layers[chosen].items()}
        _publish(trial, variants[chosen], result)
    finally:
        for variant in variants.values():
            for file in trial.files:
                (trial.run / graph_file(file, variant)).unlink(missing_ok=True)
    if not result["accepted"]:
        raise GateNotPassed(
            f"{scheme} {name} {trial.run.name} is refused: {'; '.join(result['reasons'])}.",
            result,
            "The full-precision model stays in use. Allow more with --max-ne-loss or in [quantization].",
        )
    return result


def _result(
    trial: Trial, scheme: str, limits: Limits, full: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, Any]:
    reasons = limits.broken(measured, trial.judged_ne)
    parts = full["latency_ms"]
    return {
        "model": trial.run.parent.name,
        "run_id": trial.run.name,
        "scheme": scheme,
        "accepted": not reasons,
        "reasons": reasons,
        "limits": vars(limits),
        "rows": len(trial.rows),
        **measured,
        "latency_ms": {part: {"fp32": parts[part], scheme: measured["latency_ms"][part]} for part in parts},
        "bytes": {"fp32": full["bytes"], scheme: measured["bytes"]},
    }


def _quantize(trial: Trial, recipe: Recipe, variant: str) -> dict[str, Layers]:
    made = {}
    for file in trial.files:
        samples = _samples(trial, file) if recipe.equal or recipe.dense == "static" else ()
        target = trial.run / graph_file(file, variant)
        made[file] = quantize_graph(trial.run / file, target, recipe, samples)
        for layer, reason in made[file].skipped.items():
            log.debug("%s %s stays in float32: %s", file, layer, reason)
    return made


def _samples(trial: Trial, file: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Rows that were trained on, as the graph reads them."""
    graph, inputs = GraphSession(trial.run / file), trial.samples()
    yield graph.feed(inputs, len(inputs["categorical"]))


def _row(measured: Mapping[str, Any], limits: Limits, trial: Trial) -> dict[str, Any]:
    """A technique's line of the table: the latency is that of all parts together."""
    parts = measured["latency_ms"].values()
    heads = {name: head["ne_quantized"] for name, head in measured["heads"].items()}
    return {
        "bytes": measured["bytes"],
        "size_ratio": measured["size_ratio"],
        **{f"{key}_ms": sum(part[key] for part in parts) for key in ("p50", "p99")},
        "speedup": measured["speedup"],
        "ne": heads,
        **{key: measured[key] for key in ("delta_ne", "delta_calibration", "topk_overlap")},
        "passes": measured["size_ratio"] == 1.0 or not limits.broken(measured, trial.judged_ne),
    }


def _publish(trial: Trial, variant: str, result: dict[str, Any]) -> None:
    """Rename the candidates to what the gate said. At no moment does the run claim graphs it has not."""
    run, accepted = trial.run, result["accepted"]
    document = {**result, "in_use": accepted}
    final = f".{result['scheme']}" + ("" if accepted else REFUSED)
    if not accepted:
        write_json(run / QUANTIZATION, document)
    for file in trial.files:
        os.replace(run / graph_file(file, variant), run / graph_file(file, final))
    if accepted:
        write_json(run / QUANTIZATION, document)
    for scheme in SCHEMES:
        for stale in {f".{scheme}", f".{scheme}{REFUSED}"} - {final}:
            for file in trial.files:
                (run / graph_file(file, stale)).unlink(missing_ok=True)
