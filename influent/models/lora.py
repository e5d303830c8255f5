"""A pretrained text encoder learns from a log which items follow each other: low-rank adapters beside its weights.

Shapes: N pairs of a batch, V width of a text vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError, MissingExtraError, RunFolderError
from influent.models.text import PACKAGED, TextEncoder, item_texts
from influent.progress import Progress

if TYPE_CHECKING:
    import torch

_MISSING = "fine-tuning a text encoder needs peft: pip install 'influent[text]'."


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a text encoder is fine-tuned; the adapters are those of LoRA (https://arxiv.org/abs/2106.09685)."""

    rank: int = 8
    """Rank of what is added to a weight matrix."""
    alpha: float = 16.0
    """What is added is scaled by alpha / rank."""
    dropout: float = 0.05
    """Share of an adapter's inputs dropped while training; the encoder's own dropout is off."""
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get adapters; by default those that peft names for the architecture, mostly the
    queries and values of attention."""
    window: int = 3
    """Largest distance, in events, of two items that belong together."""
    temperature: float = 0.05
    """What similarities are divided by; smaller makes the loss look at the closest rivals only."""
    batch_size: int = 16
    """Pairs per step; each is judged against the others of its batch."""
    max_steps: int = 200
    """Steps of the optimiser."""
    max_tokens: int = 32
    """Where texts are cut while training."""
    learning_rate: float = 1e-3
    """Of AdamW, after a rise over the first tenth of the steps and before a straight fall to zero."""
    seed: int = 0
    """Of the adapters' first weights, the pairs and the dropout."""

    def __post_init__(self) -> None:
        for name, least in {
            "rank": 1,
            "window": 1,
            "batch_size": 2,
            "max_steps": 1,
            "max_tokens": 3,
            "seed": 0,
        }.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"FinetuneConfig.{name} must be an int in the range [{least}, inf). Got {value!r}.")
        for name in ("alpha", "temperature", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"FinetuneConfig.{name} must be a number above 0. Got {getattr(self, name)!r}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"FinetuneConfig.dropout must be a number in [0, 1). Got {self.dropout!r}.")
        if isinstance(self.target_modules, str):
            raise ConfigError(f"FinetuneConfig.target_modules must be a tuple of names. Got {self.target_modules!r}.")


class FinetunedEncoder:
    """A text encoder with adapters, which `encode_items` takes as it takes any other.

    Making one reads no weights; the checkpoint is loaded, and the adapters put in, when the first text is encoded.
    """

    def __init__(
        self,
        base: TextEncoder,
        adapter: dict[str, np.ndarray],
        *,
        config: FinetuneConfig,
        fitted_on: str,
        losses: Sequence[float] = (),
    ) -> None:
        self.base_source, self.base_fingerprint = base.source, base.fingerprint
        self.adapter, self.config = adapter, config
        self.fitted_on = fitted_on
        """Fingerprint of the sequences from which it learned: it may judge nothing that they hold."""
        self.losses = tuple(losses)
        """The loss of each step."""
        self.name = f"{base.name} fine-tuned on {fitted_on}"
        self._base = base

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the checkpoint's files and the adapters."""
        digest = hashlib.sha256(repr((self.base_fingerprint, self.config.alpha / self.config.rank)).encode())
        for name, weights in sorted(self.adapter.items()):
            digest.update(repr((name, weights.shape)).encode())
            digest.update(np.ascontiguousarray(weights).tobytes())
        return digest.hexdigest()

    @cached_property
    def _adapted(self) -> TextEncoder:
        import torch

        fresh = TextEncoder(self._base.source, device=self._base.device)
        weights = _add_adapter(fresh.model, self.config)
        # The caller made sure that these are the checkpoint and the settings that the adapters were trained with.
        assert weights.keys() == self.adapter.keys()
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(torch.from_numpy(self.adapter[name]))
        fresh.model.eval()
        return fresh

    def encode(self, texts: Sequence[str], *, batch_size: int = 64, max_tokens: int = 128) -> np.ndarray:
        """Return a vector for each text, float32 (N, V); longer texts are cut at `max_tokens`."""
        return self._adapted.encode(texts, batch_size=batch_size, max_tokens=max_tokens)

    def save(self, folder: Path) -> None:
        """Write `adapter.safetensors` and `adapter.json`; the checkpoint beneath is named there, not copied."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.adapter, folder / "adapter.safetensors")
        about = {
            "encoder": self.base_source,
            "encoder_fingerprint": self.base_fingerprint,
            "fitted_on": self.fitted_on,
            "config": asdict(self.config),
            "losses": self.losses,
        }
        (folder / "adapter.json").write_text(json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, *, encoder: str | Path | None = None, device: str | None = None) -> FinetunedEncoder:
        """Read what `save` wrote.

        Args:
            encoder: where the checkpoint lies, if it has moved.

        Raises:
            RunFolderError: a file is missing or damaged.
            ConfigError: there is no such checkpoint, or it is another than the one that was fine-tuned.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            about = json.loads((folder / "adapter.json").read_text())
            adapter = load_file(folder / "adapter.safetensors")
            settings = dict(about["config"])
            config = FinetuneConfig(**settings | {"target_modules": tuple(settings["target_modules"])})
            expected, fitted_on, losses = about["encoder_fingerprint"], about["fitted_on"], about["losses"]
            source = encoder or about["encoder"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"the adapters in {folder} are missing or damaged ({type(error).__name__}: {error}). Fine-tune again."
            ) from error
        base = TextEncoder(source, device=device)
        if base.fingerprint != expected:
            raise ConfigError(
                f"the adapters in {folder} belong to an encoder {expected[:12]}; {base.source} is "
                f"{base.fingerprint[:12]}. Name the one that was fine-tuned: encoder=."
            )
        return cls(base, adapter, config=config, fitted_on=fitted_on, losses=losses)


def finetune_text(
    train: Sequences,
    *,
    encoder: str | Path = PACKAGED,
    columns: Sequence[str] | None = None,
    config: FinetuneConfig | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> FinetunedEncoder:
    """Fine-tune a text encoder so that items which follow each other in a log come to lie close together.

    A pair is two items of one user's sequence that stand at most `window` events apart and differ in text. Each item
    of a pair has to find the other among those of the whole batch (InfoNCE in both directions,
    https://arxiv.org/abs/1807.03748). Only the adapters learn, in float32. On a CPU, the same sequences, settings and
    number of threads give the same adapters.

    Args:
        train: the training part of a split, with item features. Everything in it is learned from, so nothing that is
            to be predicted may be there.
        encoder: `all-minilm-l6-v2`, or the folder of a checkpoint.
        columns: which to join to a text; give the same to `encode_items`.
        config: how to; by default 200 steps of 16 pairs, about two minutes on one thread.
        device: where to compute; by default the best that torch finds.

    Raises:
        MissingExtraError: the `text` extra is not installed.
        ConfigError: there is no such encoder, it has no layers called `target_modules`, or the learning rate was so
            high that the loss is no number any more.
        DataError: nothing is known about the items, or no two of different text follow each other.
        SchemaError: a column is not there.
    """
    config, progress = config or FinetuneConfig(), progress or Progress()
    _, item_text = item_texts(train.vocab, columns)
    distinct = sorted(set(item_text) - {""})
    place = {text: row for row, text in enumerate(distinct)}
    pairs = _pairs(train, np.array([place.get(text, -1) for text in item_text]), config.window)
    base = TextEncoder(encoder, device=device)
    adapter, losses = _train(base.model, distinct, pairs, config, progress)
    return FinetunedEncoder(base, adapter, config=config, fitted_on=train.fingerprint, losses=losses)


def _pairs(train: Sequences, text_of_item: np.ndarray, window: int) -> np.ndarray:
    """Return the texts of items at most `window` events apart in a sequence, int64 (P, 2), in order of time."""
    # An unknown item has index −1, and finds the −1 that is put at the end.
    text = np.append(text_of_item, -1)[train.item_idx]
    user, pairs = train.user_idx, []
    for lag in range(1, window + 1):
        before, after = text[:-lag], text[lag:]
        belong = (user[:-lag] == user[lag:]) & (before >= 0) & (after >= 0) & (before != after)
        pairs.append(np.stack([before[belong], after[belong]], axis=1))
    found = np.concatenate(pairs)
    if not len(found):
        raise DataError(
            "no two items with different texts follow each other in these sequences, so there is nothing to learn from."
        )
    return found


def _train(
    model: Any, texts: list[str], pairs: np.ndarray, config: FinetuneConfig, progress: Progress
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Return the adapters' weights after training them beside `model`'s, and the loss of each step."""
    import torch

    rng = np.random.default_rng(config.seed)
    losses: list[float] = []
    # The caller's random numbers go on as if nothing had happened.
    with progress.track("fine-tuning", config.max_steps) as advance, torch.random.fork_rng():
        torch.manual_seed(config.seed)
        weights = _add_adapter(model, config)
        learning = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rise_and_fall(step, config.max_steps))
        # The encoder's own dropout would blur the vectors that a few hundred steps are to move.
        model.eval()
        for name, module in model.named_modules():
            module.train("lora_dropout" in name)
        for step in range(config.max_steps):
            batch = pairs[rng.integers(len(pairs), size=config.batch_size)]
            used, row = np.unique(batch, return_inverse=True)
            encoded = _embed(model, [texts[text] for text in used], config.max_tokens)
            before_N, after_N = torch.from_numpy(batch).to(encoded.device).unbind(1)
            before_NV, after_NV = encoded[torch.from_numpy(row).to(encoded.device)].unbind(1)
            similar_NN = before_NV @ after_NV.T / config.temperature
            loss = (_info_nce(similar_NN, before_N, after_N) + _info_nce(similar_NN.T, after_N, before_N)) / 2
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise ConfigError(
                    f"the loss is {losses[-1]} after {step} steps of fine-tuning. Lower FinetuneConfig.learning_rate, "
                    f"which is {config.learning_rate}, or raise the temperature, which is {config.temperature}."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()
            advance(1, f"loss {losses[-1]:.3f}")
        return {name: weight.cpu().numpy().copy() for name, weight in weights.items()}, losses


def _add_adapter(model: Any, config: FinetuneConfig) -> dict[str, torch.Tensor]:
    """Put adapters into a `SentenceTransformer`, let nothing else learn, and return their weights, not copies."""
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtraError(_MISSING) from error
    model.requires_grad_(False)
    inner = model.transformers_model
    if inner is None:
        raise ConfigError("this encoder is no transformer, so it cannot be fine-tuned.")
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules) or None,
    )
    try:
        peft.inject_adapter_in_model(settings, inner)
    except ValueError as error:
        raise ConfigError(
            f"adapters do not fit this encoder ({error}). Name its layers: FinetuneConfig(target_modules=(...))."
        ) from error
    # Looking for resized embeddings, as peft does by default, could ask a hub.
    return dict(peft.get_peft_model_state_dict(inner, save_embedding_layers=False))


def _embed(model: Any, texts: list[str], max_tokens: int) -> torch.Tensor:
    """Return the vectors of texts, of length 1, through which gradients flow."""
    import torch

    limit = min(max_tokens, model.max_seq_length or max_tokens)
    prompt = model.prompts.get(model.default_prompt_name)
    features = model.preprocess(texts, prompt=prompt, processing_kwargs={"text": {"max_length": limit}})
    on_device = {name: x.to(model.device) if isinstance(x, torch.Tensor) else x for name, x in features.items()}
    return torch.nn.functional.normalize(model(on_device)["sentence_embedding"], dim=-1)


def _info_nce(similar_NN: torch.Tensor, asked_N: torch.Tensor, answer_N: torch.Tensor) -> torch.Tensor:
    """Return the mean −log probability of each row's own answer among the batch's.

    A rival with the same text as the answer, or as what was asked, is none. Rivals come as often as their items do;
    this is not corrected for, since closeness is to say what belongs together and not what is popular.
    """
    import torch

    same_NN = (answer_N[None, :] == answer_N[:, None]) | (answer_N[None, :] == asked_N[:, None])
    same_NN.fill_diagonal_(False)
    own_N = torch.arange(len(asked_N), device=similar_NN.device)
    return torch.nn.functional.cross_entropy(similar_NN.masked_fill(same_NN, float("-inf")), own_N)


def _rise_and_fall(step: int, n_steps: int) -> float:
    n_rising = max(1, n_steps // 10)
    return min((step + 1) / n_rising, (n_steps - step) / max(1, n_steps - n_rising))
