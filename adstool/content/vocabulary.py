"""A text vocabulary made for a catalogue: the part of CLIP's byte-pair merges that its words use.

CLIP's full vocabulary has 49,408 entries; at width 192 their embeddings alone weigh 19 MB in half precision
and most would never be trained. Kept here are the first, most common merges, for words that a catalogue does
not hold, and every merge that the catalogue's own words need: those words are cut exactly as CLIP's tokenizer
cuts them, because a merge that the full tokenizer applies to a word is kept, in the same order.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MERGES = "merges.txt.gz"  # the vocabulary's file in a model folder; open_clip reads it as bpe_path
HEADER = "#version: 0.2"


def catalogue_merges(texts: Iterable[str], common: int = 4000) -> list[tuple[str, str]]:
    """Merges, in CLIP's order: the first `common` and all that the words of `texts` use."""
    import open_clip

    full = open_clip.SimpleTokenizer()
    parts_of = {"".join(pair): pair for pair in full.bpe_ranks}
    kept = {pair for pair, rank in full.bpe_ranks.items() if rank < common}
    for word in {word for text in set(texts) for word in full.pat.findall(full.clean_fn(text))}:
        spelled = "".join(full.byte_encoder[byte] for byte in word.encode())
        waiting = full.bpe(spelled).split(" ")
        while waiting:
            pair = parts_of.get(waiting.pop())
            if pair is not None and pair not in kept:
                kept.add(pair)
                waiting += pair
    return sorted(kept, key=full.bpe_ranks.__getitem__)


def write_merges(path: Path, merges: Iterable[tuple[str, str]]) -> None:
    """Write merges in the form open_clip reads; the same merges give the same bytes."""
    text = "\n".join([HEADER, *(" ".join(pair) for pair in merges)])
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def load_tokenizer(folder: Path, context_length: int) -> Any:
    """open_clip's tokenizer over the vocabulary of a model folder (CLIP's own if it holds none)."""
    import open_clip

    path = folder / MERGES
    named = {"bpe_path": str(path)} if path.is_file() else {}
    return open_clip.SimpleTokenizer(context_length=context_length, **named)
