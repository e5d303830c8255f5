"""A module that has not learned becomes one that has: steps, early stopping, and checkpoints to resume from."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from influent.errors import DataError
from influent.models.batch import Batch
from influent.models.config import TrainConfig
from influent.models.device import repeatable
from influent.models.module import SequenceModule
from influent.models.tracking import Tracker
from influent.progress import Advance, Progress


@dataclass
class TrainingLog:
    """What happened, epoch by epoch."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = -math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, for JSON."""
        return asdict(self)


def train_module(
    module: SequenceModule,
    batches: Callable[[np.random.Generator], Iterator[Batch]],
    judge: Callable[[], dict[str, float]] | None,
    config: TrainConfig,
    *,
    n_batches: int,
    n_epochs: int | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    trackers: Sequence[Tracker] = (),
    progress: Progress | None = None,
) -> TrainingLog:
    """Minimise the cross-entropy over the full catalogue and leave in the module the weights of its best epoch.

    All randomness of an epoch comes from the seed and the epoch's number, so training that was stopped and resumed
    ends with the same weights as training that was not.

    Args:
        batches: returns an epoch's batches, shuffled by the generator.
        n_batches: how many batches an epoch has, to say how far the work is.
        n_epochs: where to end, by default after `config.epochs`, by which the schedule of the rate goes in any case.
        judge: returns the validation scores of the module as it is, by name; of the first, higher is better. Without
            one, training goes on for all epochs and the last is kept.
        checkpoint: a file to write after every epoch, and to resume from if it is there and has this identity.
        identity: what data and settings this training belongs to.
        trackers: hear of every epoch at its end, when the checkpoint is written, and of those before a resume first.
            What one of them raises ends the training.

    Raises:
        DataError: the loss is not finite, so the learning rate is too high or the data has wild numbers; or what
            decides when to stop is no number, because validation says nothing of it.
    """
    progress = progress or Progress()
    device = next(module.parameters()).device
    optimizer = torch.optim.AdamW(_parameter_groups(module, config.weight_decay), lr=config.learning_rate)
    rate = partial(_learning_rate, config, n_batches=n_batches)
    average = Average(module, n_steps=config.average_epochs * n_batches)
    log, best = TrainingLog(), _weights(module)
    if checkpoint is not None and checkpoint.exists():
        resumed = _resume(checkpoint, identity, module, optimizer, average, progress)
        log, best = resumed or (log, best)
    for metrics in log.epochs:
        _track(trackers, metrics)
    n_epochs = config.epochs if n_epochs is None else n_epochs
    steps = progress.track("fit", n_epochs * n_batches)
    with steps as advance, torch.random.fork_rng(), repeatable(device):
        advance(len(log.epochs) * n_batches)
        for epoch in range(len(log.epochs), n_epochs):
            if log.epochs and epoch - log.best_epoch > config.patience:
                break
            torch.manual_seed(config.seed * 1_000_003 + epoch)
            shuffled = batches(np.random.default_rng([config.seed, epoch]))
            started = time.perf_counter()
            loss = _epoch(module, optimizer, average, shuffled, partial(rate, epoch), device, advance, config.precision)
            metrics = {"epoch": epoch, "loss": loss, "seconds": round(time.perf_counter() - started, 3)}
            with average.in_place():
                judged = {} if judge is None else judge()
                score = next(iter(judged.values()), 0.0)
                if math.isnan(score):
                    raise DataError(
                        f"the validation {next(iter(judged))} is no number: no validation moment has what it is the "
                        "mean of, such as an event before and one after. Split the log so that some have, or leave "
                        "the validation moments out."
                    )
                if judge is None or score > log.best_score:
                    log.best_epoch, log.best_score, best = epoch, score, _weights(module)
            metrics |= {f"validation_{name}": value for name, value in judged.items() if not math.isnan(value)}
            log.epochs.append(metrics)
            if checkpoint is not None:
                _save_checkpoint(checkpoint, identity, module, optimizer, average, log, best)
            _track(trackers, metrics)
            told = "".join(f", validation {name} {value:.4f}" for name, value in judged.items())
            advance(0, note=f"epoch {epoch + 1}: loss {loss:.3f}{told}")
    module.load_state_dict(best)
    module.eval()
    return log


def _track(trackers: Sequence[Tracker], metrics: dict[str, float]) -> None:
    for tracker in trackers:
        tracker.log(int(metrics["epoch"]), {name: value for name, value in metrics.items() if name != "epoch"})


class Average:
    """The exponential moving average of a module's parameters over about `n_steps` steps; 0 keeps the latest.

    Steps of a constant size circle around an optimum, and their mean lies closer to it: Polyak and Juditsky, 1992.
    The first average is a plain mean, so that where training began is soon forgotten.
    """

    def __init__(self, module: nn.Module, *, n_steps: float) -> None:
        self._parameters = dict(module.named_parameters())
        self._n_steps = n_steps
        self.n_seen = torch.zeros((), dtype=torch.int64)
        self.means = {name: p.detach().clone() for name, p in self._parameters.items()} if n_steps >= 1 else {}

    def update(self) -> None:
        """Take in the parameters after a step."""
        if not self.means:
            return
        self.n_seen += 1
        weight = max(1 / self._n_steps, 1 / int(self.n_seen))
        with torch.no_grad():
            for name, mean in self.means.items():
                mean.lerp_(self._parameters[name], weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in place of the parameters, and afterwards the parameters back."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, mean in self.means.items():
            parameter = self._parameters[name]
            parameter.data, self.means[name] = mean, parameter.data


def _epoch(
    module: SequenceModule,
    optimizer: torch.optim.Optimizer,
    average: Average,
    batches: Iterator[Batch],
    rate: Callable[[int], float],
    device: torch.device,
    advance: Advance,
    precision: str,
) -> float:
    module.train()
    total, n_targets = 0.0, 0
    for step, batch in enumerate(batches):
        advance()
        on_device = batch.to(device)
        n = module.n_learned(on_device)
        if n == 0:
            continue
        with _autocast(device, precision):
            loss = module.loss(on_device)
        if not torch.isfinite(loss):
            raise DataError(
                "the training loss is not finite. Lower TrainConfig.learning_rate, or look for wild values in the log "
                "(clean(..., value_mads=10) drops them)."
            )
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update()
        total, n_targets = total + loss.item() * n, n_targets + n
    module.eval()
    return total / max(n_targets, 1)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters that decay, which are the weights of vectors and maps, and those that do not.

    A bias or a kernel at zero means something, and drawing it there would be a statement about the data.
    """
    decays: list[nn.Parameter] = []
    for part in module.modules():
        if isinstance(part, nn.Embedding | nn.Linear | nn.GRU | nn.LSTM):
            decays += [parameter for parameter in part.parameters(recurse=False) if parameter.ndim > 1]
    chosen = {id(parameter) for parameter in decays}
    others = [parameter for parameter in module.parameters() if id(parameter) not in chosen]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _learning_rate(config: TrainConfig, epoch: int, step: int, *, n_batches: int) -> float:
    """Return the rate of a step: a linear rise, then constant or the half of a cosine down to zero."""
    done = epoch + step / max(n_batches, 1)
    if done < config.warmup_epochs:
        return config.learning_rate * (done + 1 / max(n_batches, 1)) / (config.warmup_epochs + 1 / max(n_batches, 1))
    if config.schedule == "constant":
        return config.learning_rate
    share = (done - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return bfloat16 products where asked for, or where the GPU has them; sums and the loss stay float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    is_wanted = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_wanted)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _save_checkpoint(
    path: Path,
    identity: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
    log: TrainingLog,
    best: dict[str, Tensor],
) -> None:
    """Write one file, under another name first, so that a checkpoint is whole or not there."""
    tensors = {f"now.{name}": tensor for name, tensor in _weights(module).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    tensors |= {f"average.{name}": mean for name, mean in average.means.items()} | {"n_averaged": average.n_seen}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{name}": torch.as_tensor(value) for name, value in state.items()}
    about = {"identity": identity, "log": json.dumps(log.to_dict())}
    unfinished = path.with_suffix(".unfinished")
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, unfinished, metadata=about)
    os.replace(unfinished, path)


def _resume(
    path: Path,
    identity: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
    progress: Progress,
) -> tuple[TrainingLog, dict[str, Tensor]] | None:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError:
        progress.say(f"{path} is damaged; training starts over.")
        return None
    if about.get("identity") != identity:
        progress.say(f"{path} belongs to other data or settings; training starts over.")
        return None
    log = TrainingLog(**json.loads(about["log"]))
    module.load_state_dict(_under("now.", tensors))
    average.n_seen = tensors["n_averaged"]
    for name, mean in _under("average.", tensors).items():
        average.means[name].copy_(mean)
    settings = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        place, _, key = name.partition(".")
        state.setdefault(int(place), {})[key] = tensor
    optimizer.load_state_dict({**settings, "state": state})
    progress.say(f"resuming after epoch {len(log.epochs)} from {path}")
    return log, _under("best.", tensors)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
