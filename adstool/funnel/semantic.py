"""Items by semantic id: in the order of their ids every prefix is one unbroken range."""

from __future__ import annotations

import numpy as np

from adstool.content.codebooks import BITS, pack

DECAY = 0.95  # weight of each next older item that was engaged with
DEEPER = 2.0  # an agreement on one code more weighs so much more
ENOUGH = 4  # times as many items as are asked for, from which fewer codes in common are not looked at


class SemanticIndex:
    """The semantic ids of the corpus, sorted, at positions 0 .. n - 1."""

    def __init__(self, codes: np.ndarray) -> None:
        """codes: int16 [n, L], NO_CODE for an item without an id; L may be 0."""
        self.levels = codes.shape[1]
        packed = pack(codes)
        self._order = np.argsort(packed, kind="stable")
        self._sorted = packed[self._order]

    def __len__(self) -> int:
        """How many items have an id."""
        return len(self._sorted) - int(np.searchsorted(self._sorted, 0))

    def _range(self, packed: int, depth: int) -> tuple[int, int]:
        shift = BITS * (self.levels - depth)
        first = (packed >> shift) << shift
        low, high = np.searchsorted(self._sorted, [first, first + (1 << shift)])
        return int(low), int(high)

    def score(self, ids: np.ndarray) -> np.ndarray:
        """How far the ids of all positions agree with these, float32 [n].

        sum over i of DECAY^i · (1 + ... + DEEPER^(s - 1)) ÷ (1 + ... + DEEPER^(L - 1)), where s is how many
        leading codes are those of id i. ids: [m, L], newest first; one without codes counts for nothing.
        """
        scores = np.zeros(len(self._order), dtype=np.float32)
        everything = np.arange(len(self._order))
        scores[self._order] = self._scores(pack(ids).tolist(), everything)
        return scores

    def agreeing(self, ids: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Allowed positions that share leading codes with one of these ids, and their scores: see `score`.

        As many codes as leave at least ENOUGH times k positions, so that a request need not look at all that
        are alike in the first code.
        """
        places = np.zeros(0, dtype=np.int64)
        wanted = [one for one in pack(ids).tolist() if one >= 0]
        for depth in range(self.levels, 0, -1) if wanted else ():
            ranges = {self._range(one, depth) for one in wanted}
            if sum(high - low for low, high in ranges) < ENOUGH * k and depth > 1:
                continue
            places = np.sort(np.concatenate([np.arange(low, high) for low, high in ranges]))
            places = places[allowed[self._order[places]]]
            if len(places) >= ENOUGH * k:
                break
        return self._order[places], self._scores(pack(ids).tolist(), places)

    def _scores(self, ids: list[int], places: np.ndarray) -> np.ndarray:
        """The scores of these places of the order, rising, for packed ids, newest first: float32 [places]."""
        total = np.zeros(len(places), dtype=np.float32)
        whole = sum(DEEPER**level for level in range(self.levels))
        for age, packed in enumerate(ids):
            if packed < 0:
                continue
            for depth in range(1, self.levels + 1):
                low, high = np.searchsorted(places, self._range(packed, depth))
                if low == high:
                    break
                total[low:high] += DECAY**age * DEEPER ** (depth - 1) / whole
        return total
