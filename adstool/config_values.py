"""One value of a setting, as the type that it must have."""

from __future__ import annotations

import math
from typing import Any

from adstool.errors import AdstoolError, quoted


def convert(name: str, value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind`; text (from the environment or a flag) is parsed, TOML values must fit.

    Raises AdstoolError, which names `name` and `where`, for a value of another type and for a number that is
    not finite.
    """
    try:
        if kind is bool:
            if isinstance(value, bool):
                return value
            if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no"):
                return value.lower() in ("true", "1", "yes")
            raise ValueError
        if kind is int and not isinstance(value, bool) and not isinstance(value, float):
            return int(value)
        if kind is float and not isinstance(value, bool):
            return _finite(value)
        if kind is str and isinstance(value, str):
            return value
        if kind == tuple[float, ...]:
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(_finite(part) for part in parts)
        if kind == tuple[str, ...]:
            parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
            if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
                return tuple(parts)
        raise ValueError
    except (TypeError, ValueError, OverflowError):
        lists = {tuple[float, ...]: "list of numbers", tuple[str, ...]: "list of texts"}
        wanted = lists[kind] if kind in lists else getattr(kind, "__name__", str(kind))
        raise AdstoolError(
            f"{where}: {name} = {quoted(value)} is not a {wanted}.", f"Give a {wanted}."
        ) from None


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
