"""The options of `adstool train`, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adstool.commands import _options
from adstool.commands._options import Group, argument, option

MODELS = ("clip", "semantic", "retrieval", "lightweight", "engagement", "conversion", "users")

Model = Annotated[str, argument(f"What to train: {', '.join(MODELS[:-1])} or {MODELS[-1]}.", "MODEL")]
TrainFile = Annotated[
    Path | None,
    option(
        Group.DATA,
        "engagement: a flat table to train on, a csv or parquet file, or criteo or avazu once ingested.",
        "--train",
        metavar="FILE|NAME",
        default="the log of the warehouse",
    ),
]
TestFile = Annotated[
    Path | None,
    option(
        Group.DATA,
        "engagement: the held-out rows of --train.",
        "--test",
        metavar="FILE",
        default="of criteo and avazu the last tenth",
    ),
]
ValidFile = Annotated[
    Path | None,
    option(
        Group.DATA,
        "engagement: rows for early stopping.",
        "--valid",
        metavar="FILE",
        default="a tenth of --train",
    ),
]
Label = Annotated[
    str | None,
    option(
        Group.COLUMNS,
        "engagement: the column of --train to predict, 0 or 1; a FILE needs it.",
        "--label",
        metavar="COLUMN",
        default="none",
    ),
]
Categorical = Annotated[
    str,
    option(
        Group.COLUMNS,
        "engagement: columns of --train that are categories, comma-separated.",
        "--categorical",
        metavar="A,B",
        default="told by their values",
    ),
]
Numeric = Annotated[
    str,
    option(
        Group.COLUMNS,
        "engagement: columns of --train that are numbers, comma-separated.",
        "--numeric",
        metavar="C,D",
        default="told by their values",
    ),
]
Preset = Annotated[
    str,
    option(
        Group.MODEL,
        "A named set of sizes, as listed above for the model.",
        "--preset",
        metavar="NAME",
        default="the first of them",
    ),
]
Set = Annotated[
    list[str] | None,
    option(
        Group.MODEL,
        "Change one setting of the model, such as dropout=0.2.",
        "--set",
        metavar="KEY=VALUE",
        default="none",
    ),
]
Delay = Annotated[
    str | None,
    option(
        Group.MODEL,
        "conversion: how conversions yet to be reported are reckoned with.",
        "--delay",
        metavar="elapsed|es-dfm|fnw|dfm|none",
        default="elapsed",
    ),
]
Loss = Annotated[
    str | None,
    option(
        Group.MODEL,
        "conversion: what is learned from impressions without a click; clicks: nothing.",
        "--loss",
        metavar="escm2-ips|escm2-dr|esmm|clicks",
        default="escm2-ips",
    ),
]
Align = Annotated[
    bool,
    option(Group.MODEL, "lightweight: keep what the engagement ranker would put first.", "--align"),
]
WarmStart = Annotated[
    bool,
    option(Group.TRAINING, "engagement: begin with the weights of the run in use.", "--warm-start"),
]
Epochs = Annotated[
    int | None,
    option(
        Group.TRAINING,
        "Passes over the data, at most; early stopping may end sooner.",
        "--epochs",
        min=1,
        metavar="N",
        default="of the preset, else 10, setting training.epochs, ADSTOOL_TRAINING_EPOCHS",
    ),
]
BatchSize = Annotated[
    int | None,
    _options.batch_size(
        default="of the preset, else 2048, setting training.batch_size, ADSTOOL_TRAINING_BATCH_SIZE"
    ),
]
Seed = Annotated[int | None, _options.seed(setting="training.seed")]
Resume = Annotated[
    bool | None,
    option(
        Group.RUNNING,
        "Go on with a run that was cut off, or begin anew.",
        "--resume/--restart",
        default="go on where data and settings are the same",
    ),
]
