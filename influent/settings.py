"""Plain values, as a file or a command line has them, to settings of which every one is checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Self

from influent.errors import ConfigError, nearest


def check_int(name: str, value: object, least: int) -> None:
    """Refuse an argument that is no whole number, or too small.

    Raises:
        ConfigError: so it is.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"The {name!r} parameter must be an int in the range [{least}, inf). Got {value!r}.")


def check_real(
    name: str,
    value: object,
    least: float,
    most: float = float("inf"),
    *,
    is_above: bool = False,
    or_infinite: bool = False,
) -> None:
    """Refuse an argument that is no finite number, or out of range.

    Args:
        is_above: whether it must be above `least`.
        or_infinite: whether it may also be without end.

    Raises:
        ConfigError: so it is.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_number = is_number and (math.isfinite(value) or (or_infinite and value == math.inf))  # type: ignore[arg-type]
    if not is_number or not least <= value <= most or (is_above and value == least):  # type: ignore[operator]
        opens = "(" if is_above else "["
        raise ConfigError(f"The {name!r} parameter must be a number in {opens}{least}, {most}]. Got {value!r}.")


def check_list(name: str, value: object) -> None:
    """Refuse an argument that is no list of things: one text is not the list of its letters.

    Raises:
        ConfigError: so it is.
    """
    if isinstance(value, str | bytes | int | float | set | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"The {name!r} parameter must be a list. Got {value!r}.")


def check_type(name: str, value: object, wanted: type | tuple[type, ...], comes_from: str) -> None:
    """Refuse an argument of another type, and say where one of the right type comes from.

    Raises:
        ConfigError: so it is.
    """
    if not isinstance(value, wanted):
        types = wanted if isinstance(wanted, tuple) else (wanted,)
        wanted_types = " or ".join(one.__name__ for one in types)
        got = type(value).__name__
        raise ConfigError(
            f"The {name!r} parameter must be of the type {wanted_types}, as from {comes_from}. Got {got}."
        )


class Checked:
    """What frozen dataclasses of settings share: they are filled by name, and refuse what is out of range."""

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Fill the settings from plain values, such as a TOML or JSON file holds.

        Raises:
            ConfigError: a key is unknown (the message names the nearest known one), or a value is out of range.
        """
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        for key in plain:
            if key not in known:
                raise ConfigError(
                    f"{cls.__name__} has no setting {key!r}.{nearest(key, known)} It has: {', '.join(known)}."
                )
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
        return cls(**values)

    def _check_int(self, name: str, least: int, below: float = float("inf")) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < below:
            raise ConfigError(
                f"{type(self).__name__}.{name} must be an int in the range [{least}, {below}). Got {value!r}."
            )

    def _check_real(self, name: str, least: float, below: float = float("inf")) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < below:
            raise ConfigError(f"{type(self).__name__}.{name} must be a number in [{least}, {below}). Got {value!r}.")

    def _check_one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise ConfigError(f"{type(self).__name__}.{name} must be one of {allowed}. Got {getattr(self, name)!r}.")

    def _check_bool(self, name: str) -> None:
        if not isinstance(getattr(self, name), bool):
            raise ConfigError(f"{type(self).__name__}.{name} must be true or false. Got {getattr(self, name)!r}.")

    def _check_names(self, name: str) -> None:
        names = getattr(self, name)
        is_list = isinstance(names, tuple) and all(isinstance(one, str) for one in names)
        if not is_list or len(set(names)) < len(names):
            raise ConfigError(f"{type(self).__name__}.{name} must be a list of different names. Got {names!r}.")
