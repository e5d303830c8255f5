"""Raw numbers to numbers of like size, by a centre and a spread that come from training data only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from influent.data.sequences import Sequences
from influent.errors import ConfigError

Method = Literal["standard", "minmax", "robust"]


_BOUND = 10.0


@dataclass(frozen=True)
class Scaling:
    """`(x − center) / spread` for each numeric column, between −10 and 10; a missing number becomes 0, the centre.

    The bounds keep one wild number from drowning the sum that it is a term of.

    Example:
        >>> Scaling("minmax", ("value",), (1.0,), (4.0,)).apply(np.array([[1.0], [5.0], [np.nan]])).tolist()
        [[0.0], [1.0], [0.0]]
    """

    method: Method
    names: tuple[str, ...]
    center: tuple[float, ...]
    spread: tuple[float, ...]

    def apply(self, numbers: np.ndarray) -> np.ndarray:
        """Return the scaled numbers, float32 (E, F)."""
        scaled = (numbers - np.asarray(self.center)) / np.asarray(self.spread)
        return np.asarray(np.nan_to_num(np.clip(scaled, -_BOUND, _BOUND), nan=0.0), dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, for JSON."""
        return {"method": self.method, "names": self.names, "center": self.center, "spread": self.spread}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Scaling:
        """Return what `to_dict` was given."""
        return cls(plain["method"], tuple(plain["names"]), tuple(plain["center"]), tuple(plain["spread"]))


def fit_scaling(train: Sequences, method: Method = "standard") -> Scaling:
    """Measure centre and spread of each numeric column over the training events.

    Args:
        method: `standard` is mean and standard deviation, `minmax` minimum and range, `robust` median and the
            distance between the quartiles. A column that does not vary has spread 1.

    Raises:
        ConfigError: `method` is none of the three.
    """
    with warnings.catch_warnings():
        # A column without a number in the training part has no centre; it becomes 0 below.
        warnings.simplefilter("ignore", RuntimeWarning)
        numbers = train.numbers.astype(np.float64)
        if method not in get_args(Method):
            raise ConfigError(f"The scaling method must be 'standard', 'minmax' or 'robust'. Got {method!r} instead.")
        if numbers.size == 0:
            center = spread = np.zeros(numbers.shape[1])
        elif method == "standard":
            center, spread = np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0)
        elif method == "minmax":
            center, spread = np.nanmin(numbers, axis=0, initial=np.inf), np.nanmax(numbers, axis=0, initial=-np.inf)
            spread = spread - center
        else:
            low, center, high = np.nanquantile(numbers, [0.25, 0.5, 0.75], axis=0)
            spread = high - low
    center = np.where(np.isfinite(center), center, 0.0)
    # The deviation of equal numbers is a rounding error, seldom 0.
    spread = np.where(np.isfinite(spread) & (spread > 1e-12 * np.abs(center)), spread, 1.0)
    return Scaling(method, train.number_names, tuple(center.tolist()), tuple(spread.tolist()))
