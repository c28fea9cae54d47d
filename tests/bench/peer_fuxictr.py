"""FuxiCTR's DCN-V2 on a table of codes, as a process of its own, in an environment that has FuxiCTR.

    PYTHON tests/bench/peer_fuxictr.py FOLDER --label y --epochs 8 --batch-size 2048 --seed 0

FOLDER holds <split>_codes.npz and .parquet of train, valid and test, int64 columns by name, and fields.json,
{field: number of codes}. Prints one JSON object. The package ships the layers and the training loop; its
plain DCN-V2 (parallel, 3 crosses, MLP 400 x 3, 16 numbers a field) is put together from them here.
FuxiCTR 2.3 is installed by `pip install fuxictr 'polars<2'`.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from sklearn.metrics import log_loss, roc_auc_score

DIM = 16
HIDDEN = [400, 400, 400]


class DCNv2(BaseModel):  # type: ignore[misc]
    """Crosses beside an MLP over the same embeddings."""

    def __init__(self, feature_map: Any, **kwargs: Any) -> None:
        super().__init__(feature_map, **kwargs)
        width = DIM * feature_map.num_fields
        self.embedding = FeatureEmbedding(feature_map, DIM)
        self.cross = CrossNetV2(width, 3)
        self.deep = MLP_Block(input_dim=width, hidden_units=HIDDEN, hidden_activations="ReLU")
        self.out = torch.nn.Linear(width + HIDDEN[-1], 1)
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()
        self.model_to_device()
        self.judging = 0.0  # seconds spent on the validation split

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Probabilities of a batch."""
        x = self.embedding(self.get_inputs(inputs), flatten_emb=True)
        logit = self.out(torch.cat([self.cross(x), self.deep(x)], dim=1))
        return {"y_pred": self.output_activation(logit)}

    def eval_step(self) -> None:
        """As the library does, with a watch."""
        started = time.perf_counter()
        super().eval_step()
        self.judging += time.perf_counter() - started


def feature_map(folder: Path, label: str) -> Any:
    """The library's description of the columns."""
    fields = json.loads((folder / "fields.json").read_text())
    made = FeatureMap("bench", str(folder))
    made.labels = [label]
    made.features = OrderedDict(
        (name, {"type": "categorical", "source": "", "vocab_size": count, "padding_idx": None})
        for name, count in fields.items()
    )
    made.num_fields = len(fields)
    made.total_features = sum(fields.values())
    made.input_length = len(fields)
    made.set_column_index()
    return made


def main() -> None:
    """Train, judge on the test split, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--label", default="y")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader", choices=["npz", "parquet"], default="npz")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    seed_everything(given.seed)
    columns = feature_map(given.folder, given.label)
    ending = "" if given.loader == "npz" else ".parquet"  # it adds .npz itself
    train, valid, test = RankDataLoader(
        columns,
        **{
            f"{name}_data": str(given.folder / f"{name}_codes{ending}") for name in ("train", "valid", "test")
        },
        batch_size=given.batch_size,
        data_format=given.loader,
    )
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "bench").mkdir()
        model = DCNv2(
            columns,
            model_id="dcnv2",
            model_root=scratch,
            verbose=0,
            metrics=["AUC", "logloss"],
            monitor="AUC",
        )
        steps = 0
        step = model.train_step

        def counted(batch: Any) -> Any:
            nonlocal steps
            steps += 1
            return step(batch)

        model.train_step = counted
        started = time.perf_counter()
        model.fit(train, epochs=given.epochs, validation_data=valid)
        seconds = time.perf_counter() - started
        p = np.clip(model.predict(test).ravel(), 1e-7, 1 - 1e-7)
    y = np.load(given.folder / "test_codes.npz")[given.label]
    epochs = steps / len(train)
    rows = epochs * train.num_samples
    print(
        json.dumps(
            {
                "auc": roc_auc_score(y, p),
                "log_loss": log_loss(y, p),
                "rows_per_second": rows / (seconds - model.judging),
                "seconds": seconds,
                "epochs": epochs,
                "parameters": sum(part.numel() for part in model.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()
