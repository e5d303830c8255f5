"""Settings of the models that learn by gradient, and of how they are trained; every field is checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from influent.data.scaling import Method
from influent.errors import ConfigError, nearest

Device = Literal["auto", "cpu", "cuda"]


class _Checked:
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


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Checked):
    """What the additive model is made of."""

    embedding_dim: int = 64
    """Width of an event's vector and of a candidate's."""
    n_heads: int = 4
    """How many ways an event can count, each with its own kernel, gate and projection."""
    max_len: int = 100
    """How many of the latest events are read."""
    dropout: float = 0.5
    """Share of an event vector's and of a state's entries dropped while training."""
    uses_gaps: bool = True
    """Whether the time between an event and the moment shapes its weight; needs a log with times."""
    knows_moment: bool = False
    """Whether the time of the target is known when it is predicted. This is a privilege: a service that recommends
    to whoever comes has it, a forecast made the day before has not. Without it, and at a
    moment whose time is not given, gaps count from the latest event."""
    context: tuple[str, ...] = ()
    """User features that get a line of their own in every score."""
    count_len: int = 20
    """How many of the latest events the counted part reads; 0 leaves it out."""
    count_entries: int = 256
    """Most entries of a row of the counted part's transitions."""
    count_window: int = 20
    """Largest distance, in events, of a pair that is counted."""
    count_decay: float = 0.9
    """How much less each further step between a pair counts."""
    count_reverse: float = 0.5
    """How much a pair counts against its order."""
    count_popularity_power: float = 0.3
    """Columns of the transitions are divided by popularity to this power."""
    scaling: Method = "standard"
    """How values and numeric context are scaled."""

    def __post_init__(self) -> None:
        for name in ("uses_gaps", "knows_moment"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"ModelConfig.{name} must be true or false. Got {getattr(self, name)!r}.")
        names = self.context
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            raise ConfigError(f"ModelConfig.context must be a list of different names. Got {names!r}.")
        for name in ("embedding_dim", "n_heads", "max_len", "count_entries", "count_window"):
            self._check_int(name, 1)
        self._check_int("count_len", 0)
        for name in ("count_decay", "count_reverse", "count_popularity_power"):
            self._check_real(name, 0.0, 1.0 + 1e-9)
        self._check_real("dropout", 0.0, 1.0)
        self._check_one_of("scaling", get_args(Method))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Checked):
    """How a model is trained."""

    epochs: int = 100
    """Most passes over the training events."""
    patience: int = 8
    """Stop after this many epochs without a better validation NDCG@10."""
    batch_size: int = 64
    """Windows of events per step."""
    learning_rate: float = 1e-2
    """Step size of AdamW."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    seen: Literal["exclude", "keep"] = "exclude"
    """Whether validation lets items of the history come again; as in the lists that the model is for."""
    seed: int = 0
    """Where all randomness comes from."""
    device: Device = "auto"
    """Where to train: the GPU if there is one, or as told."""

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            self._check_int(name, 1)
        self._check_int("seed", 0, 2**31)
        self._check_one_of("seen", ("exclude", "keep"))
        self._check_real("learning_rate", 1e-12)
        self._check_real("weight_decay", 0.0)
        self._check_one_of("device", get_args(Device))
