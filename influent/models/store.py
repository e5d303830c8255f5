"""A folder on disk to a fitted model, whichever kind was saved there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from influent.data.vocab import Vocab
from influent.errors import RunFolderError
from influent.models.item_to_item import DecayedCounts, Ease, ItemKNN, ItemToItem, Markov, Popularity, RecentPopularity
from influent.models.model import Model
from influent.models.social import Social
from influent.models.social_ranker import SocialRanker

COUNTED: dict[str, type[ItemToItem]] = {
    kind.KIND: kind for kind in (Popularity, RecentPopularity, Markov, ItemKNN, Ease, DecayedCounts)
}
"""The models that need no gradient, by the name in `config.json`."""


def load_model(folder: str | Path) -> Model:
    """Read a model that any `save` wrote. Reading never runs code from the folder.

    Raises:
        RunFolderError: the folder holds no model, a damaged one, one of a kind that is not known, or a classical one,
            which answers labels and nothing else (`load_label_model`).
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        if config["model"] == "predictor":
            from influent.models.predictor import Predictor

            return Predictor.restore(config, folder)
        if config["model"] == "ensemble":
            from influent.models.ensemble import Ensemble

            return Ensemble.restore(config, folder)
        if config["model"] == "social":
            own = load_model(folder / "own") if config["has_own"] else None
            return Social.restore(load_file(folder / "model.safetensors"), Vocab.load(folder), config, own)
        if config["model"] == "social ranker":
            return SocialRanker.restore(_social_of(folder), config, folder)
        kind = COUNTED[config["model"]](**config["settings"])
        return kind.restore(load_file(folder / "model.safetensors"), Vocab.load(folder), config)
    except (SafetensorError, KeyError, RuntimeError, FileNotFoundError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"the model in {folder} is damaged ({type(error).__name__}: {error}). Fit it again: influent fit {folder}"
        ) from error


def _social_of(folder: Path) -> Social:
    social = load_model(folder / "social")
    if not isinstance(social, Social):
        raise ValueError("what others move is missing")
    return social


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise RunFolderError(f"{folder} holds no model (no config.json). Make one first: influent fit {folder}")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged: {error}. Fit the model again: influent fit {folder}") from error
    known = ["predictor", "ensemble", "social", "social ranker", *COUNTED]
    kind = config.get("model") if isinstance(config, dict) else None
    if kind not in known:
        raise RunFolderError(
            f"{path} names the model {kind!r}. Of those that score items, this version knows {', '.join(known)}; a "
            f"classical model of labels is read with load_label_model, and a newer version may have written others."
        )
    return dict(config)
