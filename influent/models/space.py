"""What tuning searches: for each setting a range or some choices, all declared here or read from TOML."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from influent.errors import ConfigError, nearest
from influent.models.config import ModelConfig, TrainConfig

Plain: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; whole ones where the setting is an int."""

    low: float
    high: float
    log: bool = False
    """Whether 0.001 to 0.01 is as wide as 0.01 to 0.1"""


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[Plain, ...]


Space: TypeAlias = Mapping[str, Range | Choices]
"""Name of a setting to where its value may lie"""

_ALL: dict[str, Range | Choices] = {
    "dropout": Range(0.1, 0.7),
    "weight_decay": Range(1e-4, 1e-1, log=True),
    "embedding_dim": Choices((32, 64, 128)),
    "max_len": Choices((20, 50, 100)),
}
_SUMS: dict[str, Range | Choices] = {
    "learning_rate": Range(1e-3, 3e-2, log=True),
    **_ALL,
    "tied": Choices((False, True)),
    "count_popularity_power": Range(0.0, 0.6),
    "count_reverse": Range(0.0, 1.0),
}
_BOXES: dict[str, Range | Choices] = {
    "learning_rate": Range(2e-4, 1e-2, log=True),
    **_ALL,
    "n_layers": Range(1, 3),
}
_LOG = ("learning_rate", "weight_decay")
"""Settings of which `[low, high]` in TOML is a range in their logarithm."""

_FIXED = {
    "backbone": "tune each backbone for itself, and compare",
    "size": "search embedding_dim, n_layers and n_heads",
    "context": "a list is no single value",
    "target_actions": "it is part of the question",
    "knows_moment": "it is a privilege, and part of the question",
    "seen": "it decides how validation judges",
    "seed": "a lucky seed is no better setting",
    "device": "it does not change what is learned",
}
"""Settings that are not searched, and why."""


def default_space(model: ModelConfig, *, fixed: Collection[str] = ()) -> dict[str, Range | Choices]:
    """Return the space that is searched where none is given, without the settings that are `fixed`."""
    space = _SUMS if model.is_sum else _BOXES
    return {name: where for name, where in space.items() if name not in fixed}


def read_space(plain: Mapping[str, Any]) -> dict[str, Range | Choices]:
    """Return the space that a section of TOML describes.

    `dropout = [0.1, 0.7]` is a range, `{low = 1e-4, high = 1e-2, log = true}` one in the logarithm, which
    learning_rate and weight_decay take in either form unless `log = false` is said. `{choices = [32, 64]}` are choices.

    Raises:
        ConfigError: a description is none of these.

    Example:
        >>> read_space({"dropout": [0.1, 0.7], "embedding_dim": {"choices": [32, 64]}})
        {'dropout': Range(low=0.1, high=0.7, log=False), 'embedding_dim': Choices(values=(32, 64))}
    """
    return {name: _read(name, described) for name, described in plain.items()}


def _read(name: str, described: Any) -> Range | Choices:
    if isinstance(described, list) and len(described) == 2:
        return Range(described[0], described[1], name in _LOG)
    if isinstance(described, dict) and set(described) == {"choices"} and isinstance(described["choices"], list):
        return Choices(tuple(described["choices"]))
    if isinstance(described, dict) and {"low", "high"} <= set(described) <= {"low", "high", "log"}:
        return Range(described["low"], described["high"], described.get("log", name in _LOG))
    raise ConfigError(
        f"the space of {name!r} must be [low, high], {{low = …, high = …, log = true}} or {{choices = […]}}. Got "
        f"{described!r}. A setting with one value belongs into [model] or [train]."
    )


def check_space(space: Space, model: ModelConfig, train: TrainConfig) -> None:
    """Refuse a space that holds nothing, an unknown setting, one that is not searched, or a value out of range.

    Raises:
        ConfigError: it does.
    """
    if not space:
        raise ConfigError("there is nothing to tune. Name settings with a range or choices: space={'dropout': …}.")
    known = [name for name in (*_names(ModelConfig), *_names(TrainConfig)) if name not in _FIXED]
    for name, where in space.items():
        if name in _FIXED:
            raise ConfigError(f"{name!r} is not searched: {_FIXED[name]}.")
        if name not in known:
            raise ConfigError(
                f"there is no setting {name!r} to tune.{nearest(name, known)} There are: {', '.join(known)}."
            )
        _check_where(name, where, model, train)


def _check_where(name: str, where: Range | Choices, model: ModelConfig, train: TrainConfig) -> None:
    now = value_of(name, model, train)
    if isinstance(where, Choices):
        if not where.values or len(set(where.values)) < len(where.values):
            raise ConfigError(f"the choices of {name!r} must be different values, at least one. Got {where.values}.")
        tried: tuple[Plain, ...] = where.values
    else:
        is_range = all(_is_number(value) for value in (where.low, where.high)) and where.low <= where.high
        if not is_range or not _is_number(now):
            raise ConfigError(
                f"the range of {name!r} must have two numbers, low <= high, and {name} must be a number. Got {where}."
            )
        if where.log and where.low <= 0:
            raise ConfigError(f"the range of {name!r} is in the logarithm and must begin above 0. Got {where.low}.")
        if isinstance(now, int) and not all(isinstance(value, int) for value in (where.low, where.high)):
            raise ConfigError(f"the range of {name!r} must have two ints. Got {where.low} and {where.high}.")
        tried = (where.low, where.high)
    for value in tried:
        of_model, of_train = with_values(model, train, {name: value})
        is_open = value_of(name, of_model.resolved(), of_train) != value or (name, value) == ("learning_rate", 0)
        if is_open:
            raise ConfigError(f"{name} = {value} leaves the setting open. Name a value, or leave {name!r} out.")


def value_of(name: str, model: ModelConfig, train: TrainConfig) -> Plain:
    """Return what a setting is, whichever of the two has it."""
    value: Plain = getattr(model if name in _names(ModelConfig) else train, name)
    return value


def with_values(model: ModelConfig, train: TrainConfig, values: Mapping[str, Plain]) -> tuple[ModelConfig, TrainConfig]:
    """Return the settings with these in the place of their own.

    Raises:
        ConfigError: one is out of range.
    """
    of_model = _names(ModelConfig)
    settings = {name: getattr(model, name) for name in of_model}
    settings |= {name: value for name, value in values.items() if name in of_model}
    training = {name: getattr(train, name) for name in _names(TrainConfig)}
    training |= {name: value for name, value in values.items() if name not in of_model}
    return ModelConfig.from_dict(settings), TrainConfig.from_dict(training)


def _names(settings: type[ModelConfig] | type[TrainConfig]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(settings))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
