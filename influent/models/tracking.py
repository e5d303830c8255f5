"""Each epoch's metrics to whoever follows a fit: a file of JSON lines, TensorBoard, MLflow.

None of them needs a server or a network. `metrics.jsonl` is written with the model in any case.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from influent.errors import ConfigError, MissingExtraError, nearest
from influent.run import metrics_of

TrackerName = Literal["tensorboard", "mlflow"]


@runtime_checkable
class Tracker(Protocol):
    """Hears of every epoch at its end. A fit that goes on from a checkpoint first tells of the epochs before."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of an epoch, counted from 0: `loss`, `seconds`, and `validation_…` for each score."""
        ...

    def close(self) -> None:
        """Be done. Who made a tracker closes it; `fit` does not."""
        ...


class JsonLines:
    """A file with one JSON object a line, begun anew with the first; the same lines as in a model's `metrics.jsonl`.

    Each line is on disk when `log` returns: `tail -f` follows it. A fit that is refused leaves no file.
    """

    def __init__(self, path: str | Path) -> None:
        self._path, self._is_begun = Path(path), False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the epoch's line."""
        with self._path.open("a" if self._is_begun else "w") as file:
            file.write(json.dumps({"epoch": step, **metrics}) + "\n")
        self._is_begun = True

    def close(self) -> None:
        """Do nothing: no file is left open between two epochs."""


class OfMember:
    """Tells a tracker of one of several trainings: `loss` is then `member_0_loss`, and so on.

    Args:
        tracker: is told; whoever made it closes it.
        place: which of the trainings it is, counted from 0.
    """

    def __init__(self, tracker: Tracker, place: int) -> None:
        self._tracker, self._place = tracker, place

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the epoch on, each metric under the member's name."""
        self._tracker.log(step, {f"member_{self._place}_{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        """Leave the tracker open: other members use it too."""


class TensorBoard:
    """Event files for `tensorboard --logdir FOLDER`, one curve a metric.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard", "tensorboard") from error
        self._writer: Any = SummaryWriter(log_dir=str(folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a point of each curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        # A fit that is killed leaves what it had told.
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Mlflow:
    """A run in an SQLite file of its own, for `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db`.

    MLflow no longer keeps its runs in plain files. A character that it does not allow in a name becomes `_`:
    `validation_ndcg@10` is `validation_ndcg_10`.

    Args:
        folder: where `mlflow.db` lies, or is begun.
        name: how the run is called.
        settings: what MLflow is to show as the run's parameters.

    Raises:
        MissingExtraError: MLflow is not installed.
    """

    def __init__(self, folder: str | Path, *, name: str = "fit", settings: Mapping[str, Any] | None = None) -> None:
        # Read when MLflow is imported. It would tell its makers of each run over the network.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("MLflow", "mlflow") from error
        folder = Path(folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        known = self._client.get_experiment_by_name("influent")
        experiment = known.experiment_id if known else self._client.create_experiment("influent", folder.as_uri())
        self._run_id = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in (settings or {}).items():
            self._client.log_param(self._run_id, key, value)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a value of each metric."""
        for name, value in metrics.items():
            self._client.log_metric(self._run_id, re.sub(r"[^\w./: -]", "_", name), value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run_id)


@contextmanager
def following(
    track: Sequence[str], folder: str | Path, *, name: str, settings: Mapping[str, Any]
) -> Iterator[list[Tracker]]:
    """Give what is told of each epoch of a run's fit: its file of lines, then these trackers; close them in the end.

    Raises:
        ConfigError, MissingExtraError: as `open_tracker`.
    """
    with ExitStack() as open_ones:
        trackers: list[Tracker] = [JsonLines(metrics_of(folder))]
        for asked in track:
            trackers.append(open_tracker(asked, folder, name=name, settings=settings))
            open_ones.callback(trackers[-1].close)
        yield trackers


def open_tracker(asked: str, folder: str | Path, *, name: str, settings: Mapping[str, Any] | None = None) -> Tracker:
    """Return a tracker that writes beside a run folder, into `RUN.tensorboard` or `RUN.mlflow`.

    Raises:
        ConfigError: there is no tracker of this name.
        MissingExtraError: what it needs is not installed.
    """
    folder, known = Path(folder).resolve(), get_args(TrackerName)
    if asked not in known:
        raise ConfigError(f"there is no tracker {asked!r}. There are: {', '.join(known)}.{nearest(asked, known)}")
    place = folder.with_name(f"{folder.name}.{asked}")
    if asked == "mlflow":
        return Mlflow(place, name=name, settings=settings)
    # TensorBoard takes each folder for a run.
    return TensorBoard(place / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def _missing(tool: str, extra: str) -> MissingExtraError:
    return MissingExtraError(f"tracking with {tool} needs {extra}: pip install 'influent[{extra}]'")
