"""Long work says how far it is: silently, in plain lines, or as Rich bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Advance = Callable[..., None]
"""Call as `advance(n, note)`: `n` more units are done; `note` is a few words about the latest."""


class Progress:
    """Hears of long work and says nothing. The other classes here say something."""

    def say(self, line: str) -> None:
        """Report one line about something that happened."""

    @contextmanager
    def track(self, name: str, total: int) -> Iterator[Advance]:
        """Follow `total` units of the work called `name`."""
        yield lambda n=1, note="": None


class LineProgress(Progress):
    """Plain lines, for pipes and log files: one every `every_s` seconds, and one when the work is done."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s

    def say(self, line: str) -> None:
        """Write the line."""
        self._stream.write(line + "\n")
        self._stream.flush()

    @contextmanager
    def track(self, name: str, total: int) -> Iterator[Advance]:
        """Write a line now and then, and one at the end."""
        began = said_at = time.monotonic()
        done, latest = 0, ""

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done, said_at, latest
            done, latest = done + n, note or latest
            if done < total and time.monotonic() - said_at >= self._every_s:
                said_at = time.monotonic()
                self.say(f"{name}: {done:,} of {total:,}" + (f", {latest}" if latest else ""))

        yield advance
        took = time.monotonic() - began
        self.say(f"{name}: {done:,} of {total:,} in {took:.1f} s" + (f", {latest}" if latest else ""))


class BarProgress(Progress):
    """Rich bars, for terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def say(self, line: str) -> None:
        """Print the line above any bar."""
        self._console.print(line, markup=False, highlight=False)

    @contextmanager
    def track(self, name: str, total: int) -> Iterator[Advance]:
        """Draw a bar that stays when the work is done."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, note="")

            def advance(n: int = 1, note: str = "") -> None:
                bars.advance(task, n)
                if note:
                    bars.update(task, note=note)

            yield advance


def progress_for(stream: TextIO) -> Progress:
    """Return bars where a person is watching, plain lines where a pipe is."""
    return BarProgress() if stream.isatty() else LineProgress(stream)
