from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import influent
from influent import steps
from influent.data.vectors import ItemVectors, read_vectors, reduce_vectors
from influent.data.vocab import Ids, Vocab
from influent.errors import ConfigError, DataError, RunFolderError, SchemaError


def vocab_of(item_ids: list) -> Vocab:
    users, actions = Ids("user_id", pa.array(["ann"])), Ids("action", pa.array(["view"]))
    return Vocab(users=users, items=Ids("item_id", pa.array(item_ids)), actions=actions)


VOCAB = vocab_of(["cup", "jam", "oat", "pot", "tea"])
TABLE = pa.table({"item_id": ["tea", "pot", "cup"], "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]})
ALIGNED = [[5, 6], [0, 0], [0, 0], [3, 4], [1, 2]]
"""The rows of `TABLE` in the order of `VOCAB`."""


def read(ids: list, vectors: object) -> ItemVectors:
    return read_vectors(pa.table({"item_id": ids, "vector": vectors}), name="image", vocab=VOCAB)


def block_of(vectors: object, is_known: list | None = None) -> ItemVectors:
    vectors = np.asarray(vectors, np.float32)
    known = np.ones(len(vectors), bool) if is_known is None else np.array(is_known)
    return ItemVectors(name="image", vectors=vectors, is_known=known, source="a test")


def random_block(n_items: int = 50, dim: int = 6) -> ItemVectors:
    """Correlated vectors around a centre that is not zero; every fifth item is unknown."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n_items, dim)) @ rng.normal(size=(dim, dim)) + 3
    is_known = np.arange(n_items) % 5 != 0
    return block_of(vectors * is_known[:, None], is_known.tolist())


def distances(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)


# Reading


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.to_pandas(),
        pl.from_arrow(TABLE),
        TABLE.cast(pa.schema([("item_id", pa.string()), ("vector", pa.list_(pa.float32(), 2))])),
    ],
    ids=["arrow", "pandas", "polars", "lists of fixed size"],
)
def test_vectors_come_in_the_order_of_the_vocabulary(frame):
    block = read_vectors(frame, name="image", vocab=VOCAB)
    assert block.vectors.tolist() == ALIGNED
    assert block.is_known.tolist() == [True, False, False, True, True]
    assert "knows 3 of 5 items" in block.source


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("columns.csv", "item_id,x,y\ntea,1,2\npot,3,4\ncup,5,6\n"),
        ("list.csv", 'item_id,vector\ntea,"[1, 2]"\npot,"[3, 4]"\ncup,"[5, 6]"\n'),
        (
            "list.jsonl",
            '{"item_id": "tea", "vector": [1, 2]}\n{"item_id": "pot", "vector": [3, 4]}\n'
            '{"item_id": "cup", "vector": [5, 6]}\n',
        ),
    ],
)
def test_files_of_text_hold_vectors_as_lists_or_as_columns(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert read_vectors(path, name="image", vocab=VOCAB).vectors.tolist() == ALIGNED


def test_numeric_columns_are_the_entries_of_a_vector(tmp_path):
    path = tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"x": [1, 3, 5], "sku": ["tea", "pot", "cup"], "y": [2.0, 4.0, 6.0]}), path)
    assert read_vectors(path, name="image", item="sku", vocab=VOCAB).vectors.tolist() == ALIGNED


def test_integer_ids_find_their_items():
    table = pd.DataFrame({"item_id": [7, 9], "vector": [np.ones(3), np.zeros(3)]})
    block = read_vectors(table, name="image", vocab=vocab_of([7, 8, 9]))
    assert block.vectors[:, 0].tolist() == [1, 0, 0]
    assert block.is_known.tolist() == [True, False, True]


def test_columns_beside_a_list_of_numbers_are_passed_over():
    table = TABLE.append_column("title", pa.array(["Tea", "Pot", "Cup"]))
    assert read_vectors(table, name="image", vocab=VOCAB).vectors.tolist() == ALIGNED


def test_items_that_the_log_does_not_hold_are_passed_over_and_null_rows_are_unknown():
    block = read(["tea", "ufo", "jam"], [[1.0], [2.0], None])
    assert block.vectors.ravel().tolist() == [0, 0, 0, 0, 1]
    assert block.is_known.tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("ids", "vectors", "error", "message"),
    [
        (["ufo"], [[1.0]], DataError, "no item of .* among the 5 items .* like 'ufo', the log's like 'cup'"),
        (["tea", "pot"], [[1.0], [1.0, 2.0]], SchemaError, r"unequal lengths: 1 \(1 items, such as 'tea'\), 2"),
        (["tea"], [[1.0, np.nan]], SchemaError, "missing, not finite or too large, of 1 items, for example 'tea'"),
        (["tea"], [[1.0, None]], SchemaError, "missing, not finite"),
        (["tea"], [[1e39]], SchemaError, "too large"),
        (["tea", "tea"], [[1.0], [1.0]], SchemaError, "item 'tea' more than once"),
        (["tea"], [[]], SchemaError, "vector of item 'tea' of the Arrow table is no list of numbers, or empty"),
        (["tea"], ["one, two"], SchemaError, "vector of item 'tea' of the Arrow table is no list of numbers"),
        (["tea"], [1.5], SchemaError, "'vector' of the Arrow table holds DOUBLE; lists of numbers are needed"),
        (["tea"], pa.array([None], pa.list_(pa.float32())), DataError, "every vector of the Arrow table is null"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(ids, vectors, error, message):
    with pytest.raises(error, match=message):
        read(ids, vectors)


def test_a_column_of_words_is_no_entry_of_a_vector():
    with pytest.raises(SchemaError, match="'title' of the Arrow table holds words, not numbers"):
        read_vectors(pa.table({"item_id": ["tea"], "x": [1.0], "title": ["Tea"]}), name="image", vocab=VOCAB)
    with pytest.raises(SchemaError, match="has ids and nothing else"):
        read_vectors(pa.table({"item_id": ["tea"]}), name="image", vocab=VOCAB)


@pytest.mark.parametrize("source", ["faces.npy", Path("faces.npz"), np.zeros((5, 2))])
def test_arrays_without_ids_are_refused_with_what_to_do(source):
    with pytest.raises(DataError, match="which row is of which item. Put the ids beside the rows"):
        read_vectors(source, name="image", vocab=VOCAB)


def test_a_block_needs_a_name_that_can_name_a_file():
    with pytest.raises(ConfigError, match=r"called by a word such as 'text' or 'image'. Got '../etc'"):
        read_vectors(TABLE, name="../etc", vocab=VOCAB)


# Blocks


@pytest.mark.parametrize(
    ("vectors", "is_known", "message"),
    [
        (np.zeros((2, 3)), np.ones(2, bool), r"must be float32 with 2 axes. Got float64 of shape \(2, 3\)"),
        (np.zeros((2, 3), np.float32), np.ones(2), "is_known of 'image' must be bool"),
        (np.zeros((2, 3), np.float32), np.ones(3, bool), "one row and one flag per item"),
        (np.zeros((2, 0), np.float32), np.ones(2, bool), "at least one column"),
        (np.full((2, 3), np.inf, np.float32), np.ones(2, bool), "not finite"),
        (np.ones((2, 3), np.float32), np.zeros(2, bool), "vectors of items that are not known"),
    ],
)
def test_arrays_that_are_no_block_are_refused(vectors, is_known, message):
    with pytest.raises(SchemaError, match=message):
        ItemVectors(name="image", vectors=vectors, is_known=is_known, source="a test")


def test_saving_and_loading_changes_nothing(tmp_path):
    block = random_block()
    block.save(tmp_path)
    loaded = ItemVectors.load(tmp_path, "image")
    assert loaded.vectors.tobytes() == block.vectors.tobytes()
    assert loaded.is_known.tolist() == block.is_known.tolist()
    assert (loaded.name, loaded.source, loaded.fingerprint) == ("image", "a test", block.fingerprint)


def test_the_fingerprint_tells_blocks_apart():
    block = random_block()
    assert random_block().fingerprint == block.fingerprint
    others = (
        replace(block, name="text"),
        replace(block, vectors=-block.vectors),
        replace(block, is_known=block.is_known | True),
    )
    assert len({block.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_missing_or_damaged_file_is_said_to_be_so(tmp_path):
    with pytest.raises(RunFolderError, match=r"vectors_image.parquet is missing or damaged"):
        ItemVectors.load(tmp_path, "image")
    pq.write_table(TABLE, tmp_path / "vectors_image.parquet")
    with pytest.raises(RunFolderError, match=r"vectors_image.parquet is missing or damaged"):
        ItemVectors.load(tmp_path, "image")


# Fewer dimensions


def test_pca_to_the_full_width_keeps_all_distances():
    block = random_block()
    reduced = reduce_vectors(block, dim=6)
    known = block.is_known
    assert np.allclose(distances(reduced.vectors[known]), distances(block.vectors[known]), atol=1e-4)


def test_pca_finds_the_line_on_which_vectors_lie():
    on_a_line = block_of([[1, 1], [2, 2], [4, 4]])
    reduced = reduce_vectors(on_a_line, dim=1)
    # The mean is at 7 / 3 on either axis, and a step of 1 on both is √2 long.
    assert reduced.vectors.ravel() == pytest.approx(np.sqrt(2) * (np.array([1, 2, 4]) - 7 / 3), abs=1e-6)


def test_whitened_vectors_have_the_identity_as_covariance():
    block = random_block()
    whitened = reduce_vectors(block, dim=4, method="whiten").vectors[block.is_known]
    assert np.allclose(whitened.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(np.cov(whitened.T, bias=True), np.eye(4), atol=1e-4)


@pytest.mark.parametrize("method", ["pca", "whiten"])
def test_unknown_items_stay_zero_and_teach_nothing(method):
    block = random_block()
    reduced = reduce_vectors(block, dim=3, method=method)
    assert not reduced.vectors[~block.is_known].any()
    only_known = block_of(block.vectors[block.is_known])
    assert np.allclose(reduced.vectors[block.is_known], reduce_vectors(only_known, dim=3, method=method).vectors)
    assert reduced.source == f"a test; {method} from 6 to 3 dimensions"


def test_directions_come_from_the_items_to_fit_on():
    block = block_of([[0, 0], [2, 0], [0, 9], [0, -9]])
    reduced = reduce_vectors(block, dim=1, fit_on=np.array([True, True, False, False]))
    # Between the first two lies only the first axis, with its centre at 1.
    assert reduced.vectors.ravel().tolist() == pytest.approx([-1, 1, -1, -1], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dim": 7}, ConfigError, r"'dim' parameter must be an int in the range \[1, 6\]. Got 7"),
        ({"dim": 2, "method": "umap"}, ConfigError, "must be one of pca, whiten. Got 'umap'"),
        ({"dim": 2, "fit_on": np.ones(3, bool)}, ConfigError, r"bool of shape \(50,\). Got bool of \(3,\)"),
        ({"dim": 2, "fit_on": np.arange(50) == 1}, DataError, "two known items at least; 'image' has 1"),
        ({"dim": 3, "method": "whiten", "fit_on": np.arange(50) < 4}, DataError, "vary in 2 directions"),
    ],
)
def test_what_cannot_be_reduced_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        reduce_vectors(random_block(), **settings)


def test_a_run_reads_vectors_from_a_file_and_calls_them_by_it(tmp_path):
    rng = np.random.default_rng(3)
    log = pa.table({"user_id": np.repeat(np.arange(20), 6), "item_id": rng.integers(0, 8, 120)})
    pq.write_table(pa.table({"item_id": range(8), "vector": np.eye(8).tolist()}), tmp_path / "image.parquet")
    steps.clean_log(log, tmp_path / "run", rules={"drop_duplicates": False})
    config = influent.ModelConfig(embedding_dim=4, n_heads=1, max_len=5)
    train = influent.TrainConfig(epochs=1, device="cpu", seen="keep")
    settings = {"model": config, "train": train, "vectors": [tmp_path / "image.parquet"]}
    steps.fit_run(tmp_path / "run", **settings)
    ledger = steps.explain_run(tmp_path / "run", by_part=True)
    assert {"item", "image", "counted"} <= set(ledger.table.column("source_name").to_pylist())
    with pytest.raises(influent.ConfigError, match="only counts, and reads no vectors"):
        steps.fit_run(tmp_path / "run", kind="counts", vectors=[tmp_path / "image.parquet"])
    pq.write_table(pa.table({"item_id": [100], "vector": [[1.0]]}), tmp_path / "others.parquet")
    with pytest.raises(influent.DataError, match="no item"):
        steps.fit_run(tmp_path / "run", vectors=[tmp_path / "others.parquet"])
