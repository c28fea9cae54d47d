"""The index: what was known at one moment, and the vectors of every item that can be ranked.

A run of "index" holds state/ (the serving state), two_tower.npy and lightweight.npy (vectors by position in
the corpus), conversion.npy where retrieval has that head, sequence/ where users' vectors were trained,
ann.lance/ where the corpus is large, and index.json, which names the runs whose models made the vectors, how
they are searched and what was measured to choose that. All of it is memory-mapped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import AdstoolError, choose
from adstool.features.encoder import FeatureEncoder
from adstool.features.state import ServingState
from adstool.funnel.ann import AnnChoice, ExactIndex, VectorIndex, best, open_ann
from adstool.funnel.asked import Source
from adstool.funnel.installed import installed_sources
from adstool.funnel.semantic import SemanticIndex
from adstool.funnel.sequence import SequenceIndex
from adstool.funnel.sources import SOURCES
from adstool.funnel.targeting import Targeting
from adstool.funnel.tuning import QUERIES, build_chosen, chosen_before, tune
from adstool.progress import log, track
from adstool.serving.light import Tower, open_towers
from adstool.serving.rows import Int8Rows, Rows, load_rows, save_rows
from adstool.serving.scorer import share_encoders
from adstool.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    import duckdb

CHUNK = 8192  # items encoded at once
TOWERS = {"retrieval": "two_tower", "lightweight": "lightweight"}  # model -> its file of vectors
ANN = "ann.lance"
SEQUENCE = "sequence"
CONVERSION = "conversion"  # the retrieval towers' second head
OVERLAP_AT = 100
FORMS = ("float32", "int8")  # of items' vectors
FORMAT = 2  # of what an index holds; raised when an older adstool could not read it


@dataclass(frozen=True)
class Corpus:
    """The items that can be ranked, at positions 0 .. n - 1, and their vectors."""

    first_row: int  # row of the item table at position 0
    two_tower: Rows  # [n, d]
    lightweight: Rows  # [n, V], rows of the lightweight ranker (LightScorer.item)
    content: np.ndarray  # float32 [n, D], zeros for an item without a vector
    codes: np.ndarray  # int16 [n, L], semantic ids; L = 0 without any
    conversion: Rows | None = None  # [n, d], of the retrieval towers' conversion head

    def __len__(self) -> int:
        return len(self.two_tower)


@dataclass(frozen=True)
class Index:
    """A loaded index."""

    directory: Path
    state: ServingState
    corpus: Corpus
    two_tower: VectorIndex
    clip: VectorIndex
    semantic: SemanticIndex
    sequence: SequenceIndex | None  # None: there was no users model
    runs: dict[str, str]  # model -> run whose towers made the vectors
    conversion: VectorIndex | None = None  # None: the retrieval towers have no such head
    installed: Mapping[str, Source] = field(default_factory=dict)  # sources of other packages


def build_index(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    run_dir: Path,
    *,
    tuned: bool = False,
) -> dict[str, Any]:
    """Write an index of the warehouse as it is now into `run_dir`; returns {sources, rows, seconds, ...}.

    With `tuned`, ways of searching are measured and the best is chosen; else an earlier choice is kept as
    long as it holds. Raises AdstoolError when a tower is missing or there is nothing to rank.
    """
    from adstool.content.codebooks import load_semantic_ids
    from adstool.content.enrichment.knowledge import feature_knowledge
    from adstool.content.vectors import feature_vectors
    from adstool.features.items import build_items

    started = time.perf_counter()
    installed = installed_sources(settings.funnel.sources)
    _clear(run_dir)
    runs = {model: ws.require_run(model, f"train {model}") for model in TOWERS}
    towers = open_towers(runs)
    share_encoders(*towers.values())
    spec = towers["retrieval"].encoder.spec
    # New items get their ids from the codebooks that the towers were trained with, whatever is newer.
    ids = load_semantic_ids(ws, spec.semantic)
    items = build_items(con, feature_vectors(ws, settings), ids, feature_knowledge(ws, settings))
    state = ServingState.build(con, ws, settings, spec, items)
    corpus = encode_corpus(state, towers)
    state.save(run_dir / "state")  # after encoding, so that the codes of the items are kept with it
    Targeting.write(con, run_dir)
    kept = _kept(corpus, settings.index.vectors)
    for name, vectors in kept.items():
        if name != "clip":  # whose vectors are among the features of the state
            save_rows(run_dir / f"{name}.npy", vectors)
    tables = {name: vectors for name, vectors in kept.items() if name != "lightweight"}
    users = ws.current_run("users")
    if users is not None:
        tables["sequence"] = SequenceIndex.write(users, run_dir / SEQUENCE, items, corpus_rows(state))
    queries = real_queries(state, corpus, towers)
    tuning = _tunings(settings, run_dir, corpus, queries) if tuned else _earlier_tunings(ws)
    chosen = _build_searches(tables, queries, run_dir, tuning, settings.index.min_recall)
    sources = _sources(state, corpus, tables, chosen)
    sources |= {name: {"rows": len(corpus), "index": "installed"} for name in installed}
    document = {
        "format": FORMAT,
        "sources": sources,
        "search": {name: asdict(choice) for name, choice in chosen.items()},
        "tuning": tuning,
        "vectors": {"form": settings.index.vectors, "kept": _overlap(corpus, kept, queries)},
        "rows": len(corpus),
        "item_type": state.spec.corpus,
        "as_of": state.as_of,
        "runs": {model: run.name for model, run in runs.items()},
        "users": users.name if users is not None else "",
        "semantic": items.semantic,
    }
    write_json(run_dir / "index.json", document)
    if not sources["clip"]["rows"] and settings.features.content:
        log.info(
            "No item has a content vector, so the source 'clip' finds nothing: adstool embed makes them."
        )
    elif sources["clip"]["rows"] and not items.semantic:
        log.info("No item has a semantic id, so the source 'semantic' finds nothing: adstool train semantic.")
    return {**document, "seconds": round(time.perf_counter() - started, 2)}


def _sources(
    state: ServingState, corpus: Corpus, tables: dict[str, Rows], chosen: dict[str, AnnChoice]
) -> dict[str, dict[str, Any]]:
    """By source that there is, how many items it can find and how it searches them."""
    rows = {
        "clip": int((np.abs(corpus.content).max(axis=1) > 0).sum()) if len(corpus) else 0,
        "semantic": len(SemanticIndex(corpus.codes)),
        "retargeting": int(np.isin(_advertisers(state), state.off_site.advertiser).sum()),
    }
    if SEQUENCE in tables:
        rows[SEQUENCE] = int(np.abs(tables[SEQUENCE]).any(axis=1).sum())
    without = {SEQUENCE, CONVERSION} if len(state.off_site) else {SEQUENCE, CONVERSION, "retargeting"}
    return {
        name: {
            "rows": rows.get(name, len(corpus)),
            "index": chosen[name].kind if name in chosen else "scan",
        }
        for name in SOURCES
        if name in tables or name not in without
    }


def _kept(corpus: Corpus, form: str) -> dict[str, Rows]:
    """The vectors of items by name, as the index keeps them; raises AdstoolError for an unknown form."""
    if form not in FORMS:
        raise AdstoolError(f"index.vectors = '{form}' is not known.", choose(form, FORMS))
    vectors: dict[str, Rows] = {"two_tower": corpus.two_tower, "lightweight": corpus.lightweight}
    vectors["clip"] = corpus.content
    if corpus.conversion is not None:
        vectors[CONVERSION] = corpus.conversion
    return vectors if form == "float32" else {n: Int8Rows.of(np.asarray(v)) for n, v in vectors.items()}


def _overlap(corpus: Corpus, kept: dict[str, Rows], queries: dict[str, np.ndarray]) -> dict[str, float]:
    """By source, the share of the 100 nearest in float32 that are so among the vectors as they are kept."""
    whole = {"two_tower": corpus.two_tower, "clip": corpus.content}
    found = {}
    for name, asked in queries.items():
        depth = min(OVERLAP_AT, len(corpus))
        nearest = [[set(best(rows @ query, depth)) for query in asked] for rows in (whole[name], kept[name])]
        shared = [len(one & other) for one, other in zip(*nearest, strict=True)]
        found[name] = float(np.mean(shared)) / depth
    return found


def _advertisers(state: ServingState) -> np.ndarray:
    return np.asarray(state.items.advertisers[0][corpus_rows(state)])


def _build_searches(
    tables: dict[str, Rows],
    queries: dict[str, np.ndarray],
    run_dir: Path,
    tuning: dict[str, Any],
    min_recall: float,
) -> dict[str, AnnChoice]:
    """Build the way of searching of each table of vectors; a choice that no longer holds leaves `tuning`."""
    chosen: dict[str, AnnChoice] = {}
    for name, vectors in tables.items():
        before = chosen_before(tuning.get(name), *vectors.shape)
        if before is None and tuning.pop(name, None):
            log.info("The number of items changed since '%s' was tuned: adstool index --tune", name)
        asked = queries.get(name, np.asarray(vectors[:0]))
        chosen[name] = build_chosen(vectors, run_dir / ANN, name, before, asked, min_recall)
    return chosen


def real_queries(state: ServingState, corpus: Corpus, towers: dict[str, Tower]) -> dict[str, np.ndarray]:
    """Real queries by source, [m, d]: users' vectors look for items, items for their like."""
    rng = np.random.default_rng(0)
    users = state.users.column("user_id").to_pylist()
    asking = [users[row] for row in rng.choice(len(users), min(QUERIES, len(users)), replace=False)]
    tower, first = towers["retrieval"], np.array([corpus.first_row])
    vectors = [tower.user(state.inputs(tower.encoder, state.request(user), first))[0, 0] for user in asking]
    filled = np.flatnonzero(np.abs(corpus.content).max(axis=1) > 0)
    liked = np.sort(rng.choice(filled, min(QUERIES, len(filled)), replace=False))
    found = {"two_tower": np.array(vectors), "clip": corpus.content[liked]}
    return {name: queries for name, queries in found.items() if len(queries)}


def _tunings(
    settings: Settings, run_dir: Path, corpus: Corpus, queries: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What `index --tune` measured, by source."""
    depth, least = settings.funnel.retrieve, settings.index.min_recall
    tables = {
        "two_tower": (corpus.two_tower, depth),
        "clip": (corpus.content, max(depth // len(SOURCES), 1)),
    }
    return {
        name: tune(items, queries[name], deep, run_dir / f".{name}", least).to_json()
        for name, (items, deep) in tables.items()
        if name in queries
    }


def _earlier_tunings(ws: Workspace) -> dict[str, Any]:
    """What was measured for the index in use, by source."""
    run = ws.current_run("index")
    path = run / "index.json" if run else None
    return dict(read_json(path).get("tuning", {})) if path and path.is_file() else {}


def _clear(run_dir: Path) -> None:
    """Take away what a killed attempt left in the folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    for path in run_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def corpus_rows(state: ServingState) -> np.ndarray:
    """Rows of the items that can be ranked: one unbroken range, int64. Raises AdstoolError when empty."""
    rows = np.flatnonzero(state.items.of_type(state.spec.corpus))
    if not len(rows):
        raise AdstoolError(
            f"The catalogue holds no {state.spec.corpus}s, so there is nothing to rank.",
            "Ingest them, or set features.item_type.",
        )
    return rows


def encode_corpus(state: ServingState, towers: dict[str, Tower]) -> Corpus:
    """The vectors of every item that can be ranked, as of the state's moment."""
    rows = corpus_rows(state)
    nobody = state.request("")  # the item side does not depend on who asks
    encoders: dict[FeatureEncoder, list[str]] = {}
    for model, tower in towers.items():
        encoders.setdefault(tower.encoder, []).append(model)
    parts: dict[str, list[np.ndarray]] = {model: [] for model in towers}
    for start in track(range(0, len(rows), CHUNK), "encode items", unit="chunk"):
        chunk = rows[start : start + CHUNK]
        for encoder, models in encoders.items():
            inputs = state.inputs(encoder, nobody, chunk)
            for model in models:
                parts[model].append(towers[model].item(inputs))
    first = int(rows[0])
    heads = np.concatenate(parts["retrieval"])  # [n, H, d]
    return Corpus(
        first_row=first,
        two_tower=np.ascontiguousarray(heads[:, 0]),
        lightweight=np.concatenate(parts["lightweight"]).reshape(len(rows), -1),
        content=np.asarray(state.items.content[first : first + len(rows)]),
        codes=state.items.codes[first : first + len(rows)],
        conversion=np.ascontiguousarray(heads[:, 1]) if heads.shape[1] > 1 else None,
    )


def load_index(run_dir: Path, sources: Collection[str] = ()) -> Index:
    """What `build_index` wrote, memory-mapped, and the installed `sources` of these names.

    Raises AdstoolError for an index damaged or of a newer format, and for a source that is not there.
    """
    installed = installed_sources(sources)
    document = read_json(run_dir / "index.json")
    if isinstance(document, dict) and document.get("format", 0) not in range(FORMAT + 1):
        raise AdstoolError(
            f"{run_dir} has format {document['format']}, and this adstool reads formats up to {FORMAT}.",
            "Update adstool, or make the index again: adstool index",
        )
    state = ServingState.load(run_dir / "state")
    try:
        usual = asdict(AnnChoice.usual(document["rows"]))  # as indexes were made that do not say
        searched = document.get("search", {"two_tower": usual, "clip": usual})
        named = [*TOWERS.values(), *([CONVERSION] if CONVERSION in searched else [])]
        vectors = {name: load_rows(run_dir / f"{name}.npy") for name in named}
        chosen = {name: AnnChoice(**choice) for name, choice in searched.items()}
        runs = dict(document["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdstoolError(f"{run_dir} holds no whole index: {error}", "Run adstool index.") from None
    first = int(corpus_rows(state)[0])
    rows = slice(first, first + len(vectors["two_tower"]))
    content, codes = state.items.content[rows], state.items.codes[rows]
    corpus = Corpus(
        first, vectors["two_tower"], vectors["lightweight"], content, codes, vectors.get(CONVERSION)
    )
    sequence = None
    if SEQUENCE in chosen:
        table = SequenceIndex.load_vectors(run_dir / SEQUENCE)
        search = open_ann(chosen[SEQUENCE], table, run_dir / ANN, SEQUENCE)
        sequence = SequenceIndex(run_dir / SEQUENCE, state.items, first, table, search)
    return Index(
        run_dir,
        state,
        corpus,
        open_ann(chosen["two_tower"], corpus.two_tower, run_dir / ANN, "two_tower"),
        open_ann(chosen["clip"], corpus.content, run_dir / ANN, "clip"),
        SemanticIndex(codes),
        sequence,
        runs,
        None
        if corpus.conversion is None
        else open_ann(chosen[CONVERSION], corpus.conversion, run_dir / ANN, CONVERSION),
        installed,
    )


def index_as_of(index: Index, build: Callable[[], ServingState], towers: dict[str, Tower]) -> Index:
    """The same towers at another moment: vectors are made again, since items had other counters then."""
    state = build()
    corpus = encode_corpus(state, towers)
    return Index(
        index.directory,
        state,
        corpus,
        ExactIndex(corpus.two_tower),
        ExactIndex(corpus.content),
        index.semantic,
        index.sequence.exact() if index.sequence is not None else None,
        index.runs,
        ExactIndex(corpus.conversion) if corpus.conversion is not None else None,
        index.installed,
    )
