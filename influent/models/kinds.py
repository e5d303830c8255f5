"""A name and plain settings to a model that has learned nothing yet, and back."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

from influent.errors import ConfigError, nearest
from influent.models.classical import (
    Classical,
    GradientBoosting,
    LinearSvm,
    LogisticRegression,
    NeuralNetwork,
    RidgeRegression,
)
from influent.models.config import BackboneName, ModelConfig, TrainConfig
from influent.models.item_to_item import ItemToItem
from influent.models.model import Model
from influent.models.store import COUNTED

Settings: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Sections of settings by name: `model` has fields of `ModelConfig`, `train` of `TrainConfig`"""


def read_settings(path: Path | None, sections: Sequence[str] = ("model", "train")) -> Settings:
    """Read a TOML file that has these sections or some of them; no file has none.

    Raises:
        ConfigError: it is not there, no TOML, or has something else.
    """
    if path is None:
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from error
    for name, section in settings.items():
        if name not in sections or not isinstance(section, dict):
            *others, last = (f"[{one}]" for one in sections)
            raise ConfigError(
                f"{path} has {name!r}. It may have the sections {', '.join(others)} and {last}, each once."
            )
    return settings


LABEL_MODELS: dict[str, type[Classical]] = {
    "logistic": LogisticRegression,
    "svm": LinearSvm,
    "ridge": RidgeRegression,
    "mlp": NeuralNetwork,
    "boosting": GradientBoosting,
}
"""The classical models of labels, by the name that asks for one"""


def check_kind(kind: str, tasks: Sequence[str] = ("ranking",)) -> None:
    """Refuse a name that is no model's for these tasks.

    Raises:
        ConfigError: it is not.
    """
    counted = COUNTED if tuple(tasks) == ("ranking",) else ()
    classical = (name for name, model in LABEL_MODELS.items() if set(tasks) <= set(model.KINDS))
    known = (*get_args(BackboneName), *counted, *classical)
    if kind not in known:
        what = " and ".join(tasks)
        raise ConfigError(
            f"there is no model {kind!r} for {what}. There are: {', '.join(known)}.{nearest(kind, known)}"
        )


def check_choice(
    kind: str,
    tasks: Sequence[str],
    *,
    model: ModelConfig | None,
    train: TrainConfig | None,
    track: Sequence[str],
) -> None:
    """Refuse a model that is not for these tasks, or settings that are not that model's.

    Raises:
        ConfigError: so it is.
    """
    check_kind(kind, tasks)
    if (how := _without_gradient(kind)) and (model or train or track):
        raise ConfigError(
            f"the model {kind!r} {how}; it takes no settings of models that learn by gradient, and has no epochs to "
            "track."
        )
    if model is not None and model.backbone != kind:
        raise ConfigError(f"the model settings are of {model.backbone!r}, and {kind!r} is asked for. Leave one out.")


def _without_gradient(kind: str) -> str:
    """Return in words what a model does that does not learn by gradient, and nothing for one that does."""
    return "only counts" if kind in COUNTED else "is a classical one" if kind in LABEL_MODELS else ""


def model_config(kind: str | None, plain: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of a model that learns by gradient, whichever of the two names its backbone.

    Raises:
        ConfigError: both do, and differ; the model only counts; or a setting is unknown or out of range.
    """
    named = plain.get("backbone")
    if kind is not None and named not in (None, kind):
        raise ConfigError(f"these settings are of the model {named!r}, and {kind!r} is asked for. Leave one out.")
    kind = kind or named or ModelConfig.backbone
    if how := _without_gradient(kind):
        raise ConfigError(f"the model {kind!r} {how}; it takes no settings of models that learn by gradient.")
    check_kind(kind)
    return ModelConfig.from_dict({**plain, "backbone": kind})


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
    if kind in COUNTED and not (model or train):
        return COUNTED[kind]()
    from influent.models.predictor import Predictor

    return Predictor(model=model_config(kind, model or {}), train=TrainConfig.from_dict(dict(train or {})))


def new_models(asked: Sequence[str], *, shared: Settings, wins: Settings) -> dict[str, Model]:
    """Return models that have learned nothing yet, by the name that tables call each.

    Args:
        asked: a kind, or `KIND=FILE.toml` for one with settings of its own, which is called `KIND (FILE)`.
        shared: settings of all that learn by gradient, where a file does not say.
        wins: settings of all of them, whatever a file says.

    Raises:
        ConfigError: one is asked for twice, or as for `new_model`.
    """
    models: dict[str, Model] = {}
    for one in asked:
        kind, _, path = one.partition("=")
        name = f"{kind} ({Path(path).stem})" if path else kind
        if name in models:
            raise ConfigError(f"{name!r} is asked for twice. Give files of different names: {kind}=FILE.toml.")
        own = [read_settings(Path(path))] if path else []
        layers = [] if kind in COUNTED and not path else [shared, *own, wins]
        model, train = (
            {key: value for layer in layers for key, value in layer.get(section, {}).items()}
            for section in ("model", "train")
        )
        models[name] = new_model(kind, model=model, train=train)
    return models


def to_plain(model: Model) -> dict[str, Any] | None:
    """Return what `from_plain` makes the same unfitted model of, or None for a model that is not ours."""
    if isinstance(model, ItemToItem):
        is_ours = COUNTED.get(model.KIND) is type(model)
        return {"model": model.KIND, "settings": model.settings()} if is_ours else None
    from influent.models.ensemble import Ensemble
    from influent.models.predictor import Predictor

    if type(model) is Ensemble:
        return {"model": "ensemble", "settings": model.base.settings(), "n_members": len(model.members)}
    return {"model": "predictor", "settings": model.settings()} if type(model) is Predictor else None


def from_plain(plain: Mapping[str, Any]) -> Model:
    """Return the unfitted model that `to_plain` described."""
    settings = plain["settings"]
    if plain["model"] in COUNTED:
        return COUNTED[plain["model"]](**settings)
    from influent.models.ensemble import Ensemble
    from influent.models.predictor import Predictor

    model, train = ModelConfig.from_dict(settings["model"]), TrainConfig.from_dict(settings["train"])
    base = Predictor(task=settings["task"], model=model, train=train)
    return Ensemble(base, n_members=plain["n_members"]) if plain["model"] == "ensemble" else base
