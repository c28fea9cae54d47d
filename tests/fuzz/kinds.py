"""Every kind of bad input there is: one line each."""

from __future__ import annotations

from fuzz import containers, documents, events, parquet, requests
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
        Kind("settings", documents.settings_case, 12),
        Kind("settings of rank", documents.serving_settings_case, 1, shop=True, bare=True),
        Kind("gates", documents.gate_case, 5, bare=True),
        Kind("topics", documents.topics_case, 5, bare=True),
        Kind("vocabularies", documents.vocabulary_case, 4, bare=True),
        Kind("formats", documents.format_case, 4, shop=True, bare=True),
        Kind("request lines", requests.lines_case, 3, shop=True, bare=True),
        Kind("rank options", requests.options_case, 2, shop=True, bare=True),
        Kind("http bodies", requests.body_case, 8, shop=True, bare=True),
    )
}
