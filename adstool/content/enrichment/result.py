"""What an enrichment run did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adstool.content.enrichment.schema import Attributes

EXAMPLES = 5


@dataclass
class EnrichResult:
    """Counts of items (pairs, for relevance), and what they cost.

    enriched: have a new result. cached: had one, or an equal item had. rejected: the answers did not fit the
    schema; kept with the reason, not asked again. failed: no answer; asked again the next time. left: not
    asked, for a limit. tokens are those the endpoint counted, or characters by four where it does not.
    """

    source: str
    enriched: int = 0
    cached: int = 0
    rejected: int = 0
    failed: int = 0
    left: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    dry_run: bool = False
    stopped: str | None = None  # the limit that ended the run
    seconds: float = 0.0
    problems: list[dict[str, str]] = field(default_factory=list)  # item_id and reason
    examples: list[dict[str, Any]] = field(default_factory=list)
    knowledge: dict[str, int] = field(default_factory=dict)  # vectors of knowledge text, by item type
    agreement: dict[str, Any] = field(default_factory=dict)  # of CLIP with the texts, by attribute
    student: dict[str, Any] | None = None  # agreement of the relevance student, and what it labelled

    def add_enriched(self, item_type: str, ids: Sequence[str], found: Sequence[Attributes]) -> None:
        """Count items that got attributes, and show the first few of them."""
        self.enriched += len(ids)
        for item_id, attributes in zip(ids[: max(EXAMPLES - len(self.examples), 0)], found, strict=False):
            example = {"item_type": item_type, "item_id": item_id, "attributes": attributes.sentence()}
            self.examples.append(example)

    def to_json(self) -> dict[str, Any]:
        """The result as the command prints it."""
        return dict(vars(self))

    @property
    def complaint(self) -> str:
        """What got no answer, in a sentence; empty when all did."""
        if not self.failed:
            return ""
        reason = next((p["reason"] for p in self.problems if p["kind"] == "failed"), "")
        return f"{self.failed:,} got no answer, the first: {reason}. All else is kept."
