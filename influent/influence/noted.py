"""Tables that were saved with a note of what a reader has to know, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from influent.errors import RunFolderError
from influent.run import require_files

NoteT = TypeVar("NoteT")


def read_noted(
    folder: str | Path, tables: Sequence[str], note: str, kind: type[NoteT], *, noun: str, verb: str
) -> tuple[list[pa.Table], NoteT]:
    """Read tables and the note beside them; what the file says beyond the note's fields is passed over.

    Args:
        tables: names of Parquet files.
        note: the name of the JSON file.
        kind: a dataclass, one of whose fields is the tuple `artefacts`.
        noun: what the folder holds, and `verb` the step that writes it, for messages.

    Raises:
        SchemaError: a file is missing.
        RunFolderError: a file is damaged.
    """
    folder = Path(folder)
    require_files(folder, (*tables, note), noun=noun, verb=verb)
    try:
        about: dict[str, Any] = json.loads((folder / note).read_text())
        found: Any = kind(**{field.name: about[field.name] for field in fields(kind)})  # type: ignore[arg-type]
        return [pq.read_table(folder / name) for name in tables], replace(found, artefacts=tuple(found.artefacts))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunFolderError(f"the {noun} in {folder} is damaged ({error}). Run influent {verb} again.") from error
