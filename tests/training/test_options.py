"""Which value wins, and what is said about keys and values that cannot be."""

from __future__ import annotations

import pytest

from adstool.config import load_settings
from adstool.errors import UsageError
from adstool.models.engagement import EngagementConfig
from adstool.training.engagement import PRESETS, EngagementTaskConfig
from adstool.training.options import Plan, TrainOptions, make_plan


def plan(options: TrainOptions, environment: dict[str, str] | None = None) -> Plan:
    presets = {**PRESETS, "special": {"learning_rate": 0.5, "hidden": (7,), "epochs": 3}}
    settings = load_settings(None, environment=environment or {})
    return make_plan(settings, options, presets, EngagementConfig, EngagementTaskConfig)


def test_presets_beat_defaults_and_what_the_user_set_beats_presets() -> None:
    assert plan(TrainOptions()).loop.learning_rate == 1e-3
    assert plan(TrainOptions(preset="special")).loop.learning_rate == 0.5
    environment = {"ADSTOOL_TRAINING_LEARNING_RATE": "0.25"}
    assert plan(TrainOptions(preset="special"), environment).loop.learning_rate == 0.25
    given = TrainOptions(preset="special", overrides={"learning_rate": "0.1", "epochs": "9"}, epochs=4)
    chosen = plan(given, environment)
    assert (chosen.loop.learning_rate, chosen.loop.epochs) == (0.1, 4)
    assert chosen.model["hidden"] == (7,)


def test_set_reaches_model_loop_and_task() -> None:
    chosen = plan(TrainOptions(overrides={"hidden": "64, 32", "gamma": "2", "clip": "1", "patience": "5"}))
    assert chosen.model["hidden"] == (64, 32)
    assert chosen.task == {"gamma": 2.0}
    assert (chosen.loop.clip, chosen.loop.patience) == (1.0, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(preset="smal"), "Did you mean 'small'"),
        (TrainOptions(overrides={"droput": "0.1"}), "Did you mean 'dropout'"),
        (TrainOptions(overrides={"dropout": "much"}), "lists as"),
        (TrainOptions(overrides={"zzz": "x"}), "learning_rate"),
        (TrainOptions(overrides={"schedule": "steps"}), "Use one of"),
        (TrainOptions(overrides={"learning_rate": "-1"}), "0.001"),
        (TrainOptions(overrides={"patience": "0"}), "1 or more"),
    ],
)
def test_what_cannot_be_is_named(options: TrainOptions, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(options)
    assert message in caught.value.hint
