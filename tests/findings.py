"""What the tests of doctor ask of its findings."""

from __future__ import annotations

from collections.abc import Iterable

from adstool.doctor.finding import Check


def of(name: str, checks: Iterable[Check]) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


def is_fault(check: Check, found: str, mend: str) -> None:
    assert not check.ok, check
    assert found in check.found, check
    assert mend in check.mend, check


def is_odd(check: Check, found: str, mend: str) -> None:
    assert check.ok, check
    assert found in check.found, check
    assert mend, check
    assert mend in check.mend, check


def is_fit(check: Check) -> None:
    assert check.ok, check
    assert not check.mend, check
