"""Ways to come to credits, by name, and the settings of those that estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from influent.errors import ConfigError, nearest

MethodName: TypeAlias = Literal[
    "exact", "leave_one_out", "shapley", "integrated_gradients", "gradient", "attention", "similarity"
]

N_SAMPLES, N_STEPS = 20, 50


@dataclass(frozen=True, kw_only=True)
class CreditMethod:
    """How credits are come by; `docs/methods.md` compares the ways.

    Raises:
        ConfigError: there is no such method, a setting is out of range, or belongs to another method.

    Example:
        >>> CreditMethod(name="shapley").n_samples
        20
        >>> CreditMethod(name="gradient", n_steps=9)
        Traceback (most recent call last):
        influent.errors.ConfigError: 'n_steps' goes with integrated_gradients. Leave it out of gradient.
    """

    name: MethodName
    n_samples: int | None = None
    """Of `shapley`, how many orders of the events are drawn: an even number from 4, by default 20"""
    n_steps: int | None = None
    """Of `integrated_gradients`, at how many points of the path gradients are taken, by default 50"""
    seed: int | None = None
    """Of `shapley`, where the draw of orders comes from, by default 0"""

    def __post_init__(self) -> None:
        known = get_args(MethodName)
        if self.name not in known:
            hint = nearest(str(self.name), known)
            raise ConfigError(f"there is no method {self.name!r}. There are: {', '.join(known)}.{hint}")
        for setting, owner, otherwise in (
            ("n_samples", "shapley", N_SAMPLES),
            ("n_steps", "integrated_gradients", N_STEPS),
            ("seed", "shapley", 0),
        ):
            value = getattr(self, setting)
            if value is None and self.name == owner:
                object.__setattr__(self, setting, otherwise)
            elif value is not None and self.name != owner:
                raise ConfigError(f"{setting!r} goes with {owner}. Leave it out of {self.name}.")
        self._check("n_samples", 4, "an even int in the range [4, inf)", step=2)
        self._check("n_steps", 1, "an int in the range [1, inf)")
        self._check("seed", 0, "an int in the range [0, inf)")

    def _check(self, setting: str, least: int, range_: str, *, step: int = 1) -> None:
        value = getattr(self, setting)
        if value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least or value % step:
            raise ConfigError(f"The {setting!r} parameter of {self.name} must be {range_}. Got {value!r} instead.")


def check_fits(method: CreditMethod, methods: Sequence[MethodName], model: str) -> None:
    """Refuse a method that does not fit a model.

    Args:
        methods: those that do.
        model: its name.

    Raises:
        ConfigError: it does not; the message names those that do.
    """
    if method.name not in methods:
        raise ConfigError(f"the method {method.name!r} does not fit a {model} model. These do: {', '.join(methods)}.")
