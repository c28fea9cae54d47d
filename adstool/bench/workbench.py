"""What figures are measured on: a scratch folder, a finished workspace, its users and a ranker's inputs."""

from __future__ import annotations

from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from adstool.config import Settings
from adstool.progress import log
from adstool.workspace import Workspace


class Workbench:
    """What the figures share: a scratch folder and, made when first needed, a finished sample workspace."""

    def __init__(self, folder: Path, made: Workspace | None, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.given = made

    @cached_property
    def workspace(self) -> Workspace:
        """The given workspace if it has an index to rank with, else the sample world, made here."""
        if self.given is not None and self.given.current_run("index") is not None:
            return self.given
        from adstool.ingestion.ingest import IngestOptions, ingest
        from adstool.pipeline import run_stages
        from adstool.stages import BY_NAME, STAGES
        from adstool.warehouse import open_warehouse

        log.info("bench: making a sample workspace for the figures of the models")
        made = Workspace(self.folder / "sample")
        made.root.mkdir()
        (made.root / "adstool.toml").touch()
        with (
            as_file(files("adstool.sample_data").joinpath("world")) as world,
            open_warehouse(made, self.settings) as connection,
        ):
            ingest(connection, made, [str(world)], IngestOptions())
        until_index = STAGES[: STAGES.index(BY_NAME["index"]) + 1]
        for _ in run_stages(made, self.settings, until_index):
            pass
        return made

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The engagement model's inputs of 200 candidates of one request, from the examples of the
        workspace."""
        from adstool.serving.scorer import Scorer, as_served
        from adstool.training.data import load_training_data
        from adstool.warehouse import open_warehouse

        with open_warehouse(self.workspace, self.settings, read_only=True) as connection:
            dataset = load_training_data(self.workspace, self.settings, connection)
        start = dataset.splits["test"].start
        needs = Scorer(self.workspace.require_run("engagement", "train engagement")).needs
        return as_served(dataset.batch(slice(start, start + 200), needs))

    @cached_property
    def users(self) -> list[str]:
        """Ids of up to 50 users whose requests are timed; somebody unknown where the workspace has none."""
        from adstool.warehouse import open_warehouse

        with open_warehouse(self.workspace, self.settings, read_only=True) as connection:
            rows = connection.execute("select user_id from users limit 50").fetchall()
        return [row[0] for row in rows] or ["nobody"]
