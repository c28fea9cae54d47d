"""Calibration against scikit-learn, and that it does what it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from adstool.errors import AdstoolError, DataError
from adstool.training.calibration import Calibration, calibrate_run, fit_calibration
from adstool.training.calibration_curves import MIN_BLOCK, Curve, fit_curve, fit_isotonic, fit_platt
from adstool.training.metrics import calibration_ratio, sigmoid
from adstool.workspace import write_json


def draw(rows: int, seed: int, slope: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Model's log odds z, and labels whose true log odds are slope * z + shift."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1.5, 1.2, rows)
    return z, (rng.random(rows) < sigmoid(slope * z + shift)).astype(float)


def test_platt_is_sklearns_logistic_regression() -> None:
    z, y = draw(4000, 0, slope=0.6, shift=-0.5)
    line = fit_platt(z, y, (1e4, 1e4))  # a prior so wide that it says nothing
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z[:, None], y)
    assert line == pytest.approx((reference.coef_[0, 0], reference.intercept_[0]), abs=1e-4)


def test_platt_survives_separable_data() -> None:
    slope, intercept = fit_platt(np.array([-3.0, -2, 2, 3]), np.array([0.0, 0, 1, 1]), (0.5, 2.0))
    assert 0 < slope < 5
    assert abs(intercept) < 2


def test_isotonic_passes_through_sklearns_blocks() -> None:
    z, y = draw(6000, 1, slope=0.5)
    curve = fit_isotonic(z, y)
    reference = IsotonicRegression().fit(z, y).predict(z)
    got = sigmoid(curve(z))
    # Between block centres it is a straight line where scikit-learn has a step, and end blocks are smoothed.
    assert np.abs(got - reference).mean() < 0.01
    assert log_loss(y, got) == pytest.approx(log_loss(y, np.clip(reference, 1e-4, 1 - 1e-4)), rel=0.01)
    for value in np.unique(reference):
        block = reference == value
        if block.sum() > 200:
            centre = z[block].mean()
            assert sigmoid(curve(np.array([centre])))[0] == pytest.approx(value, abs=0.01)


def test_curves_keep_the_ranking() -> None:
    z, y = draw(3000, 2, slope=2.0)
    for curve in (fit_isotonic(z, y), Curve(*fit_platt(z, y, (0.5, 2.0)))):
        grid = curve(np.linspace(-12, 12, 2000))
        assert (np.diff(grid) > 0).all()


def test_isotonic_blocks_are_not_smaller_than_allowed() -> None:
    z, y = draw(400, 3)
    assert len(fit_isotonic(z, y).x) <= 400 // MIN_BLOCK
    assert len(fit_isotonic(np.arange(5.0), np.array([0.0, 1, 0, 1, 1])).x) == 1


def test_the_curve_fits_the_kind_of_error() -> None:
    z, y = draw(30_000, 4, slope=0.5, shift=-1.0)
    assert fit_curve(z, y).kind in ("platt", "isotonic")
    bent = np.where(z > -1, z * 0.2, z * 1.5)
    rng = np.random.default_rng(5)
    labels = (rng.random(len(z)) < sigmoid(bent)).astype(float)
    assert fit_curve(z, labels).kind == "isotonic"
    assert fit_curve(z[:30], np.zeros(30)).kind == "identity"  # no positives: nothing can be said


def test_calibration_mends_ratio_and_loss_on_new_rows() -> None:
    z, y = draw(20_000, 6, slope=0.6, shift=0.4)
    fitted = fit_calibration(("click",), z[:, None], y[:, None], {})
    new_z, new_y = draw(20_000, 7, slope=0.6, shift=0.4)
    before = sigmoid(new_z)[:, None]
    after = fitted.apply(before)
    assert abs(calibration_ratio(new_y, before[:, 0]) - 1) > 0.2
    assert calibration_ratio(new_y, after[:, 0]) == pytest.approx(1.0, abs=0.03)
    assert log_loss(new_y, after[:, 0]) < log_loss(new_y, before[:, 0])


def test_surfaces_shrink_to_the_global_curve() -> None:
    rng = np.random.default_rng(8)
    surface = rng.choice([1, 2, 3], 30_000, p=[0.6, 0.395, 0.005])
    z = rng.normal(-1, 1, 30_000)
    shift = np.select([surface == 1, surface == 2, surface == 3], [0.0, 0.8, 3.0])
    y = (rng.random(30_000) < sigmoid(z + shift)).astype(float)
    fitted = fit_calibration(("click",), z[:, None], y[:, None], {"surface": surface}).heads[0]
    offset = {
        code: slope * fitted.curve(np.array([0.0]))[0] + intercept
        for code, (slope, intercept) in fitted.lines["surface"].items()
    }
    assert offset[1] == pytest.approx(0.0, abs=0.1)
    assert offset[2] == pytest.approx(0.8, abs=0.1)
    assert 0.7 < offset[3] < 2.6  # some 150 rows: pulled from 3 towards the rest
    calibration = Calibration(("click",), (fitted,))
    unseen = calibration.apply(np.array([[0.3]]), {"surface": np.array([9])})
    np.testing.assert_allclose(unseen, calibration.apply(np.array([[0.3]])))


def test_verticals_get_their_lines_on_top_of_surfaces(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    codes = {"surface": rng.integers(1, 3, 40_000), "vertical": rng.integers(4, 7, 40_000)}
    shift = 0.6 * (codes["surface"] == 2) - 0.9 * (codes["vertical"] == 5)
    z = rng.normal(-1, 1, 40_000)
    y = (rng.random(40_000) < sigmoid(z + shift)).astype(float)
    fitted = fit_calibration(("click",), z[:, None], y[:, None], codes)
    assert list(fitted.heads[0].lines) == ["surface", "vertical"]
    fitted.save(tmp_path / "calibration.json")
    after = Calibration.load(tmp_path / "calibration.json").apply(sigmoid(z)[:, None], codes)[:, 0]
    for surface in (1, 2):
        for vertical in (4, 5, 6):
            rows = (codes["surface"] == surface) & (codes["vertical"] == vertical)
            assert calibration_ratio(y[rows], after[rows]) == pytest.approx(1.0, abs=0.05)


def test_winners_of_noisy_scores_look_dearer_than_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    rows, slate = 40_000, 8
    truth = rng.normal(-2.0, 0.5, rows)
    noisy = truth + rng.normal(0.0, 0.7, rows)
    y = (rng.random(rows) < sigmoid(truth)).astype(float)
    split = {"valid": slice(0, rows // 2), "test": slice(rows // 2, rows)}
    arrays: dict[str, np.ndarray] = {}
    for name, part in split.items():
        arrays |= {
            f"{name}_logits": noisy[part, None],
            f"{name}_labels": y[part, None],
            f"{name}_request": np.arange(rows)[part] // slate,
            f"{name}_bid": np.ones(rows // 2),
        }
    np.savez(tmp_path / "predictions.npz", **arrays)  # type: ignore[arg-type]
    write_json(tmp_path / "config.json", {"outputs": ["click"]})
    winners = calibrate_run(tmp_path)["winners"]["click"]
    assert winners["rows"] == rows // 2 // slate
    best = noisy[split["test"]].reshape(-1, slate).argmax(axis=1)
    clicks = y[split["test"]].reshape(-1, slate)[np.arange(len(best)), best]
    assert winners["positives"] == clicks.sum()
    expected = sigmoid(noisy[split["test"]]).reshape(-1, slate).max(axis=1).sum() / clicks.sum()
    assert winners["before"] == pytest.approx(expected)
    assert winners["before"] > 1.3
    assert abs(winners["after"] - 1) < abs(winners["before"] - 1)


def test_one_surface_needs_no_line_of_its_own() -> None:
    z, y = draw(2000, 9)
    fitted = fit_calibration(("a",), z[:, None], y[:, None], {"surface": np.ones(2000, dtype=int)})
    assert fitted.heads[0].lines == {}


def test_saved_and_loaded(tmp_path: Path) -> None:
    z, y = draw(3000, 10)
    labels = np.stack([y, np.where(np.arange(3000) % 3 == 0, np.nan, y)], axis=1)
    surface = np.arange(3000) % 4
    fitted = fit_calibration(("a", "b"), np.stack([z, z * 2], axis=1), labels, {"surface": surface})
    fitted.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    p = np.random.default_rng(0).random((50, 2))
    np.testing.assert_array_equal(
        again.apply(p, {"surface": surface[:50]}), fitted.apply(p, {"surface": surface[:50]})
    )
    assert ((again.apply(p) > 0) & (again.apply(p) < 1)).all()
    (tmp_path / "calibration.json").write_text('{"heads": {"a": {}}}')
    with pytest.raises(AdstoolError, match="damaged"):
        Calibration.load(tmp_path / "calibration.json")


def test_a_run_is_calibrated_from_what_training_left(tmp_path: Path) -> None:
    z, y = draw(8000, 11, slope=0.7, shift=-0.4)
    arrays = {
        "valid_logits": z[:4000, None],
        "valid_labels": y[:4000, None],
        "test_logits": z[4000:, None],
        "test_labels": y[4000:, None],
    }
    np.savez(tmp_path / "predictions.npz", **arrays)
    write_json(tmp_path / "config.json", {"outputs": ["click"]})
    result = calibrate_run(tmp_path)
    assert result["after"]["click"]["log_loss"] < result["before"]["click"]["log_loss"]
    assert result["after"]["click"]["rows"] == 4000
    assert (tmp_path / "calibration.json").is_file()
    (tmp_path / "predictions.npz").write_bytes(b"PK broken")
    with pytest.raises(DataError, match=r"predictions\.npz"):
        calibrate_run(tmp_path)


def test_chance_is_not_fitted() -> None:
    """A calibrated model stays nearly as it is: over many small validation splits, little is lost."""
    lost = []
    for seed in range(20):
        z, y = draw(1500, 100 + seed)
        surface = np.random.default_rng(seed).integers(0, 3, 1500)
        fitted = fit_calibration(("a",), z[:, None], y[:, None], {"surface": surface})
        new_z, _ = draw(4000, 200 + seed)
        p = sigmoid(new_z)
        q = fitted.apply(p[:, None], {"surface": np.zeros(4000, dtype=int)})[:, 0]
        # The divergence from the true probabilities: what the calibration costs, without the labels' noise.
        lost.append(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))
    assert np.mean(lost) < 0.0005
