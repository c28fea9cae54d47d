"""From raw values to what models read: vocabularies with unknown buckets, and the scale of every number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adstool.errors import AdstoolError
from adstool.features.finish import standardise
from adstool.features.items import ItemTable
from adstool.features.spec import Column, FeatureSpec, prefix_depth
from adstool.features.users import UserTable
from adstool.workspace import read_json, write_json, write_table

MAX_VOCABULARY_BYTES = 4 * 2**30  # a few hundred million ids
HOURS = [str(hour) for hour in range(24)]
WEEKDAYS = [str(day) for day in range(7)]  # Monday is 0


def unknown_bucket(value: str, buckets: int) -> int:
    """The code 1 .. buckets of a value outside the vocabulary; the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little") % buckets + 1


@dataclass(frozen=True)
class Vocabulary:
    """The codes of one column: 0 missing, 1 .. buckets shared by unknown values, then one each of
    `values`."""

    values: pa.Array  # text, most frequent first
    buckets: int

    @classmethod
    def of(cls, counts: Mapping[str, int], min_count: int, buckets: int) -> Vocabulary:
        """Values counted at least `min_count` times, by falling count, then by name."""
        kept = sorted((v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], v))
        return cls(pa.array(kept, type=pa.string()), buckets)

    @property
    def cardinality(self) -> int:
        """How many codes there are."""
        return 1 + self.buckets + len(self.values)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values.to_pylist(), 1 + self.buckets)}

    def code(self, value: str | None) -> int:
        """The code of one value; an empty text is missing."""
        if not value:
            return 0
        known = self._codes.get(value)
        return unknown_bucket(value, self.buckets) if known is None else known

    def encode(self, values: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> np.ndarray:
        """The codes of a column, int32 [n]; only distinct unknown values are hashed."""
        column = (
            values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type=pa.string())
        )
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        missing = pc.or_(pc.is_null(column), pc.fill_null(pc.equal(column, ""), True))
        place = pc.index_in(column, value_set=self.values)
        codes = np.asarray(pc.fill_null(place, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
        codes += 1 + self.buckets
        codes[np.asarray(missing.to_numpy(zero_copy_only=False), dtype=bool)] = 0
        strange = np.flatnonzero(codes == self.buckets)
        if len(strange):
            encoded = column.take(pa.array(strange)).dictionary_encode()
            hashed = [unknown_bucket(value, self.buckets) for value in encoded.dictionary.to_pylist()]
            codes[strange] = np.asarray(hashed, dtype=np.int64)[encoded.indices.to_numpy()]
        return codes.astype(np.int32)


class FeatureEncoder:
    """Vocabularies of the F categorical columns, priors of the counters and the scale of the M numeric ones.

    Saved as features.json and vocabularies/<column>.parquet (value, code), and stored with every model run,
    so that a model reads what it was trained on whatever has been ingested since.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        vocabularies: Mapping[str, Vocabulary],
        priors: Mapping[str, Mapping[str, float]],
        mean: np.ndarray,
        std: np.ndarray,
        content_dim: int,
    ) -> None:
        self.spec = spec
        self.vocabularies = dict(vocabularies)
        self.priors = {name: dict(rates) for name, rates in priors.items()}
        self.mean = np.asarray(mean, dtype=np.float64)
        self.std = np.asarray(std, dtype=np.float64)
        self.content_dim = content_dim
        self.digest = ""  # of the files it was loaded from: encoders of equal digests give equal codes

    @property
    def categorical_columns(self) -> list[Column]:
        """(name, side) of the F categorical columns, in order."""
        return list(self.spec.categoricals)

    @property
    def numeric_columns(self) -> list[Column]:
        """(name, side) of the M numeric columns, in order."""
        return list(self.spec.numeric_columns)

    @property
    def cardinalities(self) -> list[int]:
        """The number of codes of every categorical column, in order."""
        return [self.vocabularies[column.name].cardinality for column in self.spec.categoricals]

    @property
    def unknown_buckets(self) -> int:
        """Codes 1 .. this of every column are shared by values training has not seen often enough."""
        return next(iter(self.vocabularies.values())).buckets

    @property
    def actions(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return self.spec.actions

    def categorical_indices(self, sides: Iterable[str]) -> np.ndarray:
        """The places of the categorical columns of these sides, int64."""
        return _places(self.categorical_columns, sides)

    def item_codes(self, items: ItemTable) -> np.ndarray:
        """The codes of the item-side columns, in their order: int32 [n, columns]."""
        return _stack(
            [self.vocabularies[c.name].encode(item_values(items, c.name)) for c in self._of("item")],
            len(items),
        )

    def user_codes(self, users: UserTable) -> np.ndarray:
        """The codes of the user-side columns but `last_category`, which is 0: int32 [n, columns]."""
        zeros = np.zeros(len(users), dtype=np.int32)
        columns = [
            zeros if c.name == "last_category" else self.vocabularies[c.name].encode(users.column(c.name))
            for c in self._of("user")
        ]
        return _stack(columns, len(users))

    def history_codes(self, items: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By item row, int32 [n]: its codes in the vocabularies `item_id`, `category` and `last_category`."""
        return (
            self.vocabularies["item_id"].encode(items.keys),
            self.vocabularies["category"].encode(items.column("category")),
            self.vocabularies["last_category"].encode(items.column("category")),
        )

    def numeric(self, values: np.ndarray) -> np.ndarray:
        """Finished numbers in the scale of training: float32 [n, M]."""
        return standardise(values, self.mean, self.std)

    def _of(self, side: str) -> list[Column]:
        return [column for column in self.spec.categoricals if column.side == side]

    def save(self, directory: Path) -> None:
        """Write features.json and vocabularies/*.parquet into `directory`."""
        folder = directory / "vocabularies"
        folder.mkdir(parents=True, exist_ok=True)
        for name, vocabulary in self.vocabularies.items():
            codes = pa.array(range(1 + vocabulary.buckets, vocabulary.cardinality), type=pa.int32())
            write_table(folder / f"{name}.parquet", pa.table({"value": vocabulary.values, "code": codes}))
        write_json(
            directory / "features.json",
            {
                "spec": self.spec.to_json(),
                "unknown_buckets": self.unknown_buckets,
                "cardinalities": dict(
                    zip([c.name for c in self.spec.categoricals], self.cardinalities, strict=True)
                ),
                "content_dim": self.content_dim,
                "priors": self.priors,
                "numeric": [
                    {"name": c.name, "side": c.side, "mean": m, "std": s}
                    for c, m, s in zip(
                        self.numeric_columns, self.mean.tolist(), self.std.tolist(), strict=True
                    )
                ],
            },
        )

    @classmethod
    def load(cls, directory: Path) -> FeatureEncoder:
        """What `save` wrote; raises AdstoolError naming the file that is damaged or absent."""
        path = directory / "features.json"
        document = read_json(path)
        try:
            spec = FeatureSpec.from_json(document["spec"])
            numeric = document["numeric"]
            buckets = int(document["unknown_buckets"])
            if buckets < 1:
                raise ValueError("it has no bucket for unknown values")
            vocabularies = {
                c.name: Vocabulary(
                    _values(directory, c.name, document["cardinalities"][c.name] - buckets - 1), buckets
                )
                for c in spec.categoricals
            }
            mean = np.asarray([entry["mean"] for entry in numeric])
            std = np.asarray([entry["std"] for entry in numeric])
            encoder = cls(spec, vocabularies, document["priors"], mean, std, int(document["content_dim"]))
            encoder.digest = feature_digest(directory)
            return encoder
        except (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException) as error:
            raise AdstoolError(f"{path} cannot be used: {error}", "Train the model again.") from None


def feature_digest(directory: Path) -> str:
    """A hash of the files that `FeatureEncoder.save` wrote."""
    digest = hashlib.blake2b(digest_size=16)
    for path in [directory / "features.json", *sorted((directory / "vocabularies").glob("*.parquet"))]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def item_values(items: ItemTable, name: str) -> pa.Array:
    """The raw values behind an item-side column."""
    depth = prefix_depth(name)
    if depth:
        return items.prefixes(depth)
    return items.keys if name == "item_id" else items.column(name)


def _values(directory: Path, name: str, rows: int) -> pa.Array:
    """The values of a vocabulary; raises ValueError when its file is not of so many rows, or swollen."""
    with pq.ParquetFile(directory / "vocabularies" / f"{name}.parquet") as file:
        about = file.metadata  # says what it would unpack to before it is unpacked
        unpacked = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        if about.num_rows != rows or unpacked > MAX_VOCABULARY_BYTES:
            raise ValueError(f"the vocabulary {name} has {about.num_rows:,} rows of {unpacked:,} bytes")
        column = file.read(["value"]).column("value").combine_chunks()
    return pc.cast(column, pa.string())


def _places(columns: Sequence[Column], sides: Iterable[str]) -> np.ndarray:
    wanted = set(sides)
    return np.asarray([i for i, column in enumerate(columns) if column.side in wanted], dtype=np.int64)


def _stack(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype=np.int32)
