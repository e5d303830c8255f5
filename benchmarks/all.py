"""Every benchmark, one process after the other; one whose result is there for this commit is not run again.

Usage: python -m benchmarks.all [SET …]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.common import RESULTS, ROOT, commit

SEEDS = ("0", "1", "2")
BOXES = ("sasrec", "hstu", "gru")
PEERS = ("rectools-sasrec", "rectools-hstu")
COUNTED = ("popularity", "markov", "itemknn", "ease", "counts")


def jobs() -> list[tuple[str, ...]]:
    """Return module, set, model and options of each benchmark."""
    found: list[tuple[str, ...]] = []
    for name in ("movielens-100k", "amazon-beauty", "amazon-sports", "amazon-toys", "movielens-1m"):
        refit = ("--refit",) if name.startswith("amazon") else ()
        found += [("ranking", name, model, *refit) for model in COUNTED if (name, model) != ("amazon-sports", "ease")]
        found += [("ranking", name, "additive", "--seed", seed, *refit) for seed in SEEDS]
        found += [("ranking", name, model, "--seed", seed) for model in BOXES for seed in SEEDS]
        if name.startswith("movielens"):
            found += [("ranking", name, model) for model in ("additive-query", "additive-moment", *PEERS)]
    found.append(("ranking", "movielens-100k", "recent_popularity"))
    found += [("ranking", "movielens-100k-users", model) for model in ("counts", "additive", "sasrec")]
    found += [("ranking", "movielens-1m-by-time", model) for model in ("popularity", "counts", "additive-ensemble")]
    found += [("ranking", "movielens-1m-by-time", model, "--seed", seed) for model in BOXES for seed in SEEDS]
    found.append(("ranking", "movielens-1m", "additive-text"))
    found += [("ranking", "amazon-musical-instruments", model) for model in ("counts", "additive", "additive-text")]
    found += [("labels", "mind-click", m) for m in ("logistic", "boosting", "additive", "additive-text")]
    found += [("labels", "cdnow-churn", model) for model in ("logistic", "boosting", "additive", "gru")]
    found += [("labels", "cdnow-value", model) for model in ("ridge", "boosting", "additive", "gru")]
    for name in ("stackoverflow-badges", "tpp-taobao", "tpp-taxi"):
        found += [("times", name, model) for model in ("constant", "hawkes", "gru", "additive")]
    return found


def is_done(job: tuple[str, ...]) -> bool:
    """Return whether the result is there for this commit."""
    seed = job[job.index("--seed") + 1] if "--seed" in job else "0"
    names = (f"{job[2]}.json", f"{job[2]}-{seed}.json")
    there = [path for path in (RESULTS / job[1] / name for name in names) if path.exists()]
    return bool(there) and json.loads(there[0].read_text())["commit"] == commit()


def main(sets: list[str]) -> None:
    """Run what is asked for and not done."""
    todo = [job for job in jobs() if not sets or job[1] in sets]
    failed = []
    for place, job in enumerate(todo):
        if is_done(job):
            continue
        print(f"[{place + 1} of {len(todo)}] {' '.join(job)}", flush=True)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{job[0]}", *job[1:]], cwd=ROOT, check=False)
        print(f"  {time.perf_counter() - started:.0f} s, exit {done.returncode}", flush=True)
        failed += [job] if done.returncode else []
    if failed:
        raise SystemExit(f"{len(failed)} failed: {'; '.join(' '.join(job) for job in failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
