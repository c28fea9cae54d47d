"""Every kind of bad input there is: one line each."""

from __future__ import annotations

from fuzz import (
    answers,
    containers,
    documents,
    events,
    parquet,
    paths,
    pictures,
    requests,
    sources,
    tables,
)
from fuzz.harness import Kind

KINDS = {
    kind.name: kind
    for kind in (
        Kind("jsonl rows", events.jsonl_case, 12),
        Kind("csv rows", events.csv_case, 12),
        Kind("parquet types", parquet.parquet_case, 12),
        Kind("packed files", containers.container_case, 10),
        Kind("encodings", containers.encoding_case, 8),
        Kind("changed bytes", containers.mutation_case, 12),
        Kind("huge", containers.huge_case, 3),
        Kind("places", paths.place_case, 8),
        Kind("maps", paths.map_case, 8),
        Kind("public formats", sources.source_case, 12),
        Kind("image paths", pictures.paths_case, 5),
        Kind("pictures", pictures.decode_case, 12, bare=True),
        Kind("search pictures", pictures.search_case, 1),
        Kind("settings", documents.settings_case, 10),
        Kind("settings of rank", documents.serving_settings_case, 2, shop=True, bare=True),
        Kind("gates", documents.gate_case, 5, bare=True),
        Kind("topics", documents.topics_case, 5, bare=True),
        Kind("vocabularies", documents.vocabulary_case, 4, bare=True),
        Kind("formats", documents.format_case, 4, shop=True, bare=True),
        Kind("request lines", requests.lines_case, 3, shop=True, bare=True),
        Kind("rank options", requests.options_case, 2, shop=True, bare=True),
        Kind("http bodies", requests.body_case, 8, shop=True, bare=True),
        Kind("logs of ope", tables.ope_case, 6, bare=True),
        Kind("recorded auctions", tables.replay_case, 6, bare=True),
        Kind("flat tables", tables.flat_case, 6, bare=True),
        Kind("real catalogues", tables.catalogue_case, 5, bare=True),
        Kind("answers", answers.answer_case, 8, bare=True),
        Kind("endpoint bodies", answers.body_case, 8, bare=True),
        Kind("weights", answers.weights_case, 2, bare=True),
    )
}
