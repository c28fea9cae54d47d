"""What doctor says of an optional engine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from adstool import doctor


@pytest.mark.parametrize(
    ("there", "ok", "says"),
    [
        ({"uvicorn": "0.54.0", "starlette": "1.10.0", "prometheus-client": "0.26.0"}, True, "uvicorn 0.54.0"),
        ({}, True, "not installed"),
        ({"uvicorn": "0.54.0"}, False, "starlette is missing; prometheus-client is missing"),
        (
            {"uvicorn": "0.1", "starlette": "1.10.0", "prometheus-client": "0.26.0"},
            False,
            "uvicorn 0.1 is not",
        ),
    ],
)
def test_the_extra_serve(monkeypatch: pytest.MonkeyPatch, there: dict[str, str], ok: bool, says: str) -> None:
    def installed(name: str) -> str:
        if name in ("uvicorn", "starlette", "prometheus-client"):
            if name not in there:
                raise PackageNotFoundError(name)
            return there[name]
        return version(name)

    monkeypatch.setattr(doctor, "version", installed)
    (check,) = [check for check in doctor.examine() if check.name == "serve"]
    assert (check.ok, says in check.found) == (ok, True), check
    assert ok or "adstool[serve]" in check.mend
