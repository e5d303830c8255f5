"""Where a network computes, and how a GPU is made to add up in the same order each time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from influent.errors import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device of a setting: for `auto` the GPU if there is one.

    Raises:
        ConfigError: a GPU was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for and torch sees no GPU. Use device='auto' or 'cpu'.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let the same seed give the same weights, and the same weights the same scores, on a GPU too.

    A GPU adds up what meets in one place in the order in which it arrives, unless told otherwise, and the last digits
    then differ from run to run. Its recurrent layers also round float32 to ten binary digits (TF32) unless told
    otherwise, which moves credits by tenths. A processor needs no telling.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # The library of matrix products reads this once, when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            # Running sums have no such order on a GPU; they are the last digit's matter, and the user's in no way.
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
