"""A name and plain settings to a model that has learned nothing yet, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from influent.errors import ConfigError, nearest
from influent.models.config import BackboneName, ModelConfig, TrainConfig
from influent.models.item_to_item import ItemToItem
from influent.models.model import Model
from influent.models.store import COUNTED


def check_kind(kind: str) -> None:
    """Refuse a name that is no model's.

    Raises:
        ConfigError: it is not.
    """
    known = (*get_args(BackboneName), *COUNTED)
    if kind not in known:
        raise ConfigError(f"there is no model {kind!r}. There are: {', '.join(known)}.{nearest(kind, known)}")


def model_config(kind: str | None, plain: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of a model that learns by gradient, whichever of the two names its backbone.

    Raises:
        ConfigError: both do, and differ; or a setting is unknown or out of range.
    """
    named = plain.get("backbone")
    if kind is not None and named not in (None, kind):
        raise ConfigError(f"these settings are of the model {named!r}, and {kind!r} is asked for. Leave one out.")
    return ModelConfig.from_dict({**plain, "backbone": kind or named or ModelConfig.backbone})


def new_model(kind: str, *, model: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None) -> Model:
    """Return a model that has learned nothing yet.

    Args:
        kind: what `ModelConfig.backbone` may be, or one of the models that only count: see `COUNTED`.
        model: fields of `ModelConfig`.
        train: fields of `TrainConfig`.

    Raises:
        ConfigError: there is no such model, a setting is unknown or out of range, or a model that only counts was
            given some.
    """
    check_kind(kind)
    if kind in COUNTED:
        if model or train:
            raise ConfigError(f"the model {kind!r} only counts; it takes no settings of models that learn by gradient.")
        return COUNTED[kind]()
    from influent.models.predictor import Predictor

    return Predictor(model=model_config(kind, model or {}), train=TrainConfig.from_dict(dict(train or {})))


def to_plain(model: Model) -> dict[str, Any] | None:
    """Return what `from_plain` makes the same unfitted model of, or None for a model that is not ours."""
    if isinstance(model, ItemToItem):
        is_ours = COUNTED.get(model.KIND) is type(model)
        return {"model": model.KIND, "settings": model.settings()} if is_ours else None
    from influent.models.predictor import Predictor

    return {"model": "predictor", "settings": model.settings()} if type(model) is Predictor else None


def from_plain(plain: Mapping[str, Any]) -> Model:
    """Return the unfitted model that `to_plain` described."""
    settings = plain["settings"]
    if plain["model"] in COUNTED:
        return COUNTED[plain["model"]](**settings)
    from influent.models.predictor import Predictor

    model, train = ModelConfig.from_dict(settings["model"]), TrainConfig.from_dict(settings["train"])
    return Predictor(task=settings["task"], model=model, train=train)
