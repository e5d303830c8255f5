"""What every benchmark needs: the data's place, the machine in words, and results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from influent.data.moments import Moments
from influent.evaluation.measure import peak_memory_bytes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def data_set(name: str) -> Path:
    """Return the folder of a data set: below `INFLUENT_DATA`, by default `../shared/data`."""
    folder = Path(os.environ.get("INFLUENT_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        raise SystemExit(f"no data set at {folder}. Set INFLUENT_DATA to the folder that holds {name}.")
    return folder


def some_of(moments: Moments, n: int) -> Moments:
    """Return `n` of the moments, drawn at random and always the same, in their order; all where there are no more."""
    return moments.take(np.sort(np.random.default_rng(0).permutation(len(moments))[:n]))


def measured_on() -> dict[str, Any]:
    """Return commit, machine and versions; to be asked before the work, since the files may change meanwhile."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "influent", "benchmarks/*.py")),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "accelerator": _accelerator(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("influent", "torch", "numpy", "scipy", "duckdb", "pyarrow")},
        },
    }


def commit() -> str:
    """Return the commit whose code is here."""
    return _git("rev-parse", "HEAD")


def peak_memory_mib() -> int:
    """Return the most memory this process has held, with interpreter, libraries and data."""
    return round((peak_memory_bytes() or 0) / 2**20)


def set_and_model(doc: str | None, sets: Iterable[str]) -> argparse.ArgumentParser:
    """Return what reads the command line of a benchmark of one model on one set."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sets)
    parser.add_argument("model")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def write_result(name: str, content: dict[str, Any]) -> None:
    """Write a result as JSON, and print where."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written: {path.relative_to(ROOT)}", flush=True)


def _accelerator() -> str | None:
    # What has not imported torch computes nothing on a GPU, and its memory is not to be torch's.
    torch = sys.modules.get("torch")
    return None if torch is None or not torch.cuda.is_available() else torch.cuda.get_device_name()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
