"""Settings of the models that learn by gradient, and of how they are trained; every field is checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from influent.data.scaling import Method
from influent.errors import ConfigError
from influent.settings import Checked

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


BackboneName = Literal["additive", "feedback", "gru", "lstm", "sasrec", "hstu"]
Size = Literal["small", "base", "large"]

_SIZES: dict[str, dict[str, int]] = {
    "small": {"embedding_dim": 64, "n_layers": 2, "n_heads": 4},
    "base": {"embedding_dim": 128, "n_layers": 4, "n_heads": 4},
    "large": {"embedding_dim": 256, "n_layers": 8, "n_heads": 8},
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """What a model is made of."""

    backbone: BackboneName = "additive"
    """What turns a history into a state: a sum of its events (`additive`), carried feedback, or a black box."""
    size: Size = "small"
    """One dial for the three settings below that are not given."""
    embedding_dim: int = 0
    """Width of an event's vector and of a candidate's; 0 means as the size says."""
    n_layers: int = 0
    """Depth of a black box; 0 means as the size says."""
    n_heads: int = 0
    """How many ways an event can count, each with its own kernel, gate and projection; 0 means as the size says."""
    max_len: int = 100
    """How many of the latest events are read."""
    dropout: float = -1.0
    """Share of an event vector's and of a state's entries dropped while training; −1 means 0.5 for models that are
    sums and 0.2 for others."""
    event_dropout: float = 0.0
    """Share of a history's events that say nothing to the learned part while training."""
    tied: bool = False
    """Whether a candidate has the same vector as an event of its item."""
    gate: Literal["event", "query"] = "event"
    """What an event's weight may depend on: the event itself, or with `query` also the latest event. That buys
    accuracy and costs exactness: the latest event's credit is no longer what leaving it out takes away."""
    uses_gaps: bool = True
    """Whether the time between an event and the moment shapes its weight; needs a log with times."""
    knows_moment: bool = False
    """Whether the time of the target, and its categories that are named in `context`, are known when it is predicted.
    This is a privilege: a service that recommends to whoever comes has it, a forecast made the day before has not.
    Without it, and at a moment whose time is not given, gaps count from the latest event. Answers to labels always
    know their moment's time and never anything of the event that comes next."""
    context: tuple[str, ...] = ()
    """What gets a line of its own in every score: user features, `hour_of_day`, `day_of_week`, and categories of
    events such as `scene`: the target's with `knows_moment`, else, or where no target is known, the latest event's.
    What the latest event says there is no part of its credit, so a model with such a line is not `exact`: masking the
    latest event takes the line away too."""
    target_actions: tuple[str, ...] = ()
    """Learn what comes next among these actions only, such as purchases; by default among all."""
    count_len: int = -1
    """How many of the latest events the counted part reads; 0 leaves it out. −1 means 20 for models that are sums
    and 0 for others."""
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
    sampled_above: int = 100_000
    """With more items than this, the softmax is estimated from a sample of them."""
    n_negatives: int = 4096
    """How many items are drawn for each batch of a sampled softmax."""
    scaling: Method = "standard"
    """How values and numeric context are scaled."""

    def __post_init__(self) -> None:
        self._check_one_of("backbone", get_args(BackboneName))
        self._check_one_of("size", get_args(Size))
        for name in ("uses_gaps", "knows_moment", "tied"):
            self._check_bool(name)
        for name in ("context", "target_actions"):
            self._check_names(name)
        for name in ("max_len", "count_entries", "count_window", "n_negatives"):
            self._check_int(name, 1)
        for name in ("embedding_dim", "n_layers", "n_heads", "sampled_above"):
            self._check_int(name, 0)
        self._check_int("count_len", -1)
        for name in ("count_decay", "count_reverse", "count_popularity_power"):
            self._check_real(name, 0.0, 1.0 + 1e-9)
        if self.dropout != -1:
            self._check_real("dropout", 0.0, 1.0)
        self._check_real("event_dropout", 0.0, 1.0)
        self._check_one_of("scaling", get_args(Method))
        self._check_one_of("gate", ("event", "query"))
        if self.gate == "query" and self.backbone != "additive":
            raise ConfigError(f"the query gate is one of the additive model. Leave it out for {self.backbone!r}.")

    def resolved(self) -> ModelConfig:
        """Return the settings in effect: what was left open is filled in as size and backbone say."""
        values: dict[str, Any] = {n: value for n, value in _SIZES[self.size].items() if getattr(self, n) == 0}
        if self.dropout == -1:
            values["dropout"] = 0.5 if self.is_sum else 0.2
        if self.count_len == -1:
            values["count_len"] = 20 if self.is_sum else 0
        return replace(self, **values)

    @property
    def is_sum(self) -> bool:
        """Return whether a score is a sum with one term for each past event."""
        return self.backbone in ("additive", "feedback")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """How a model is trained."""

    epochs: int = 100
    """Most passes over the training events."""
    patience: int = 8
    """Stop after this many epochs without a better validation NDCG@10."""
    batch_size: int = 64
    """Windows of events per step."""
    learning_rate: float = 0.0
    """Step size of AdamW; 0 means 0.01 for models that are sums and 0.003 for black boxes."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    warmup_epochs: float = 0.0
    """The learning rate rises from zero over this many epochs; a fraction of one is allowed."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether the learning rate then stays, or falls along a cosine to zero at the last of `epochs`."""
    average_epochs: float = 0.0
    """Judge and keep the moving average of the weights over about this many epochs; 0 keeps the latest weights."""
    precision: Precision = "auto"
    """Numbers that matrix products are computed in: bfloat16 where a GPU has it, or as told."""
    class_weight: Literal["none", "balanced"] = "none"
    """Whether rare labels of a classification count as much in training as common ones; probabilities stay true."""
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
        self._check_real("learning_rate", 0.0)
        self._check_real("weight_decay", 0.0)
        self._check_real("warmup_epochs", 0.0)
        self._check_real("average_epochs", 0.0)
        self._check_one_of("schedule", ("constant", "cosine"))
        self._check_one_of("class_weight", ("none", "balanced"))
        self._check_one_of("precision", get_args(Precision))
        self._check_one_of("device", get_args(Device))
