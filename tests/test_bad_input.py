"""Everything a person can hand in wrongly, and the one message that comes back."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import influent
from influent.run import Run
from influent.steps import clean_log, evaluate_run, explain_run, fit_run, recommend_run

GOOD = "user_id,item_id\nann,tea\nbob,cup\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refuse(message: str, source: object, error: type[Exception] = influent.DataError, **arguments: object) -> None:
    """Check that reading and cleaning fails with this message, and with nothing of DuckDB's own in it."""
    with pytest.raises(error, match=message) as caught:
        influent.build_sequences(influent.clean(influent.read_events(source, **arguments)))
    assert "LINE 1" not in str(caught.value)
    assert "strict_mode" not in str(caught.value)


# Files that cannot be read


def test_a_file_that_is_not_there_is_named_with_its_neighbours(tmp_path):
    write(tmp_path / "log.csv", GOOD)
    write(tmp_path / ".hidden.csv", GOOD)
    refuse(r"no file at .*/lgo.csv. Check the path; .* holds log.csv", tmp_path / "lgo.csv")
    refuse(r"no file at .*/2024-\*.csv", tmp_path / "2024-*.csv")
    refuse(r"there is no folder .*/nowhere either", tmp_path / "nowhere" / "log.csv")


def test_a_text_that_is_no_path_is_refused():
    refuse("is no path .*Name a file, or read the text into a frame", GOOD * 100)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet", "log.csv.gz"])
def test_an_empty_file_is_refused(tmp_path, name):
    refuse(r"is empty \(0 bytes\). It should hold a header and rows", write(tmp_path / name, b""))


def test_a_gzip_of_nothing_is_refused(tmp_path):
    refuse("begins with an empty line. It should hold a header", write(tmp_path / "log.csv.gz", gzip.compress(b"")))
    refuse("no rows. Nothing can be learned from it", write(tmp_path / "log.jsonl.gz", gzip.compress(b"")))


@pytest.mark.parametrize("name", ["log.csv", "log.tsv"])
def test_a_header_without_rows_is_refused(tmp_path, name):
    header = GOOD.splitlines()[0].replace(",", "\t" if name == "log.tsv" else ",")
    refuse(r"has columns \(user_id, item_id\) and no rows", write(tmp_path / name, header + "\n"))


@pytest.mark.parametrize(
    "frame",
    [
        pa.table({"user_id": pa.array([], pa.int64()), "item_id": pa.array([], pa.int64())}),
        pd.DataFrame({"user_id": [], "item_id": []}),
        pl.DataFrame({"user_id": [], "item_id": []}),
        pl.LazyFrame({"user_id": [], "item_id": []}),
    ],
    ids=["arrow", "pandas", "polars", "polars lazy"],
)
def test_a_frame_without_rows_is_refused(frame):
    refuse(r"has columns \(user_id, item_id\) and no rows", frame)


@pytest.mark.parametrize("source", [[1, 2], {"user_id": [1]}, None, np.zeros((2, 2)), pd.Series([1]), pl.Series([1])])
def test_what_is_neither_a_path_nor_a_frame_is_refused(source):
    refuse(f"cannot be read from {type(source).__name__}. Give a path, or a pandas, Polars or Arrow table", source)


def test_a_file_of_another_kind_is_refused(tmp_path):
    refuse("files ending in '.xlsx' cannot be read. Readable: .csv, .tsv, .jsonl", write(tmp_path / "log.xlsx", b"PK"))
    (tmp_path / "folder.parquet").mkdir()
    refuse("holds no .parquet file. Name a file, a glob, or a folder of Parquet", tmp_path)
    refuse("no file at ", tmp_path / "*.parquet")


def test_files_of_two_kinds_are_refused(tmp_path):
    write(tmp_path / "a.csv", GOOD)
    write(tmp_path / "b.jsonl", "{}")
    refuse("mixes .csv with .jsonl files. Read one kind at a time", tmp_path / "*")


def test_text_that_is_not_utf8_is_refused_with_the_way_to_convert_it(tmp_path):
    advice = "is not UTF-8 text. Convert it first, for example: iconv -f LATIN1 -t UTF-8 .*/log"
    in_header = "user_id,item_id,größe\n1,2,3\n".encode("latin-1")
    in_row_5000 = ("user_id,item_id\n" + "1,tea\n" * 4999 + "1,café\n").encode("latin-1")
    refuse(advice, write(tmp_path / "log.csv", in_header))
    refuse(advice, write(tmp_path / "log.csv", in_row_5000))
    refuse(advice, write(tmp_path / "log.csv", GOOD.encode("utf-16")))
    refuse(advice, write(tmp_path / "log.jsonl", '{"user_id": 1, "item_id": "café"}\n'.encode("latin-1")))


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_a_gzip_that_is_cut_short_is_refused(tmp_path, name):
    line = "{}\n" if "json" in name else "1,2\n"
    whole = gzip.compress(
        ("user_id,item_id\n" * ("csv" in name) + line * 100_000).encode() + os.urandom(5_000).hex().encode()
    )
    refuse("is damaged or cut short: .*Make or fetch it again", write(tmp_path / name, whole[: len(whole) // 2]))


def test_a_gzip_that_is_none_is_refused(tmp_path):
    refuse("is damaged or cut short: Not a gzipped file", write(tmp_path / "log.csv.gz", GOOD))
    refuse("is damaged or cut short", write(tmp_path / "log.csv.gz", gzip.compress(GOOD.encode())[:12] + b"x" * 30))


def parquet(path: Path) -> bytes:
    n = 20_000
    table = pa.table({"user_id": np.arange(n) % 100, "item_id": [f"item {row % 977}" for row in range(n)]})
    pq.write_table(table, path, row_group_size=5_000)
    return path.read_bytes()


def test_a_parquet_file_that_is_cut_short_is_refused(tmp_path):
    whole = parquet(tmp_path / "log.parquet")
    refuse("is damaged or cut short", write(tmp_path / "log.parquet", whole[: len(whole) // 2]))
    refuse("is damaged or cut short", write(tmp_path / "log.parquet", b"PAR1"))
    refuse("is damaged or cut short", write(tmp_path / "log.parquet", GOOD))


def test_a_parquet_file_that_is_damaged_inside_is_refused_when_its_rows_are_read(tmp_path):
    whole = parquet(tmp_path / "log.parquet")
    damaged = write(tmp_path / "log.parquet", whole[:2_000] + bytes(28_000) + whole[30_000:])
    refuse("log.parquet is damaged or cut short", damaged)


def test_a_log_that_does_not_fit_into_memory_is_refused(tmp_path):
    parquet(tmp_path / "log.parquet")
    engine = influent.Engine(memory_limit_bytes=2_000_000)
    refuse("log.parquet does not fit: .*more memory_limit_bytes", tmp_path / "log.parquet", engine=engine)


# Rows that cannot be read


def test_a_csv_row_with_too_many_or_too_few_fields_is_named_and_shown(tmp_path):
    refuse(
        "Line: 4; Original Line: a,b,c; Expected Number of Columns: 2 Found: 3",
        write(tmp_path / "log.csv", GOOD + "a,b,c\n"),
    )
    refuse(
        "Line: 4; Original Line: a; Expected Number of Columns: 2 Found: 1", write(tmp_path / "log.csv", GOOD + "a\n")
    )


def test_a_word_in_a_bad_row_does_not_change_what_is_said_of_it(tmp_path):
    bad = write(tmp_path / "utf8-gzip.csv", GOOD + "ann,Parquet GZIP utf-8,3\n")
    refuse("utf8-gzip.csv cannot be read: .*Expected Number of Columns: 2 Found: 3", bad)


def test_a_quote_that_is_not_closed_is_named(tmp_path):
    refuse("Line: 4; .*unterminated quote", write(tmp_path / "log.csv", GOOD + 'ann,"tea\nbob,cup\n'))


def test_a_csv_whose_lines_end_in_two_ways_is_refused(tmp_path):
    refuse(
        "is no regular CSV. Its lines must all end alike",
        write(tmp_path / "log.csv", "user_id,item_id\r\n1,2\n3,4\r\n"),
    )


def test_a_csv_that_begins_with_an_empty_line_or_has_old_line_ends_is_refused(tmp_path):
    refuse("begins with an empty line", write(tmp_path / "log.csv", "\n" + GOOD))
    refuse("the first line of .*log.csv is no header", write(tmp_path / "log.csv", GOOD.replace("\n", "\r")))


def test_a_very_long_bad_row_is_not_shown_whole(tmp_path):
    with pytest.raises(influent.DataError) as caught:
        influent.read_events(write(tmp_path / "log.csv", GOOD + "x" * 3_000_000 + ",1\n"))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("bad", ['{"user_id": 1, "item_id":', "[1, 2]", '{"user_id": 1} and more', "tea"])
def test_a_line_that_is_no_json_object_is_named_and_shown(tmp_path, bad):
    text = '{"user_id": 1, "item_id": 1}\n' * 6 + bad + '\n{"user_id": 1, "item_id": 1}\n'
    log = write(tmp_path / "log.jsonl", text)
    with pytest.raises(influent.DataError, match="line 7 of .*log.jsonl is no JSON object: ") as caught:
        influent.read_events(log)
    assert repr(bad) in str(caught.value)


def test_json_that_is_not_one_object_on_each_line_is_refused(tmp_path):
    refuse(
        r"line 1 of .* is no JSON object: '\['", write(tmp_path / "log.json", '[\n{"user_id": 1},\n{"user_id": 2}\n]')
    )
    refuse("line 1 of .* is no JSON object", write(tmp_path / "log.json", '[{"user_id": 1, "item_id": 1}]'))


# Columns


def test_a_missing_column_is_said_with_those_there_and_the_nearest(tmp_path):
    log = write(tmp_path / "log.csv", "uid,item,when\n1,2,3\n")
    refuse(
        r"has no column 'user_id'. It has: 'uid', 'item', 'when'.* Name yours with the option 'user'",
        log,
        influent.SchemaError,
    )
    refuse("has no column 'item_id'.* Did you mean 'item'.*the option 'item'", log, influent.SchemaError, user="uid")
    refuse(
        "has no column 'wen'.* Did you mean 'when'.*with the option 'time'",
        log,
        influent.SchemaError,
        user="uid",
        item="item",
        time="wen",
    )


def test_a_column_that_stands_there_twice_is_refused(tmp_path):
    refuse("has the column 'item_id' more than once", write(tmp_path / "log.csv", "user_id,item_id,item_id\n1,2,3\n"))
    refuse("has the column 'a' more than once", pa.table([[1], [2], [3], [4]], names=["user_id", "item_id", "a", "A"]))
    refuse(
        "has the column 'item_id' more than once", pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"])
    )


def test_a_column_without_a_name_is_refused(tmp_path):
    refuse(r"a column without a name \(number 1\)", write(tmp_path / "log.csv", ",user_id,item_id\n0,1,2\n"))


def test_a_column_with_a_name_that_reading_needs_is_refused(tmp_path):
    log = pa.table({"user_id": [1, 2], "item_id": [3, 4], "__row": [9, 8]})
    refuse("a column '__row', a name that reading needs for itself. Rename it", log, influent.SchemaError)
    pq.write_table(log.rename_columns(["user_id", "item_id", "file_row_number"]), tmp_path / "log.parquet")
    refuse("a column 'file_row_number', a name that reading", tmp_path / "log.parquet", influent.SchemaError)


def test_csv_files_with_different_columns_are_refused(tmp_path):
    write(tmp_path / "a.csv", GOOD)
    write(tmp_path / "b.csv", "item_id,user_id\ntea,ann\n")
    refuse(r"b.csv has the columns \['item_id', 'user_id'\], .*a.csv has .*They must agree", tmp_path / "*.csv")


@pytest.mark.parametrize("delimiter", ["\\t", "::", ""])
def test_a_delimiter_of_more_or_less_than_one_character_is_refused(tmp_path, delimiter):
    with pytest.raises(influent.ConfigError, match="'delimiter' must be one character"):
        influent.read_events(write(tmp_path / "log.csv", GOOD), delimiter=delimiter)


# Ids, times and values


def test_ids_of_mixed_types_are_refused(tmp_path):
    text = '{"user_id": 1, "item_id": 1}\n{"user_id": "1", "item_id": 2}\n'
    log = write(tmp_path / "log.jsonl", text)
    refuse(
        r"'user_id' of .* mixes types \(strings and numbers\), so 1 and '1' could be the same",
        log,
        influent.SchemaError,
    )
    frame = pd.DataFrame({"user_id": [1, "1"], "item_id": [1, 2]})
    refuse(r"mixes types in one column: {'user_id': \['int', 'str'\]}.*frame\['user_id'\].astype\(str\)", frame)


def test_ids_that_are_text_in_one_parquet_file_and_numbers_in_another_are_refused(tmp_path):
    pq.write_table(pa.table({"user_id": [1], "item_id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": ["1"], "item_id": [2]}), tmp_path / "b.parquet")
    refuse("'user_id' of .* mixes types", tmp_path, influent.SchemaError)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.5, 2.0], r"holds floats, and 1 of them are not whole numbers up to 2\^53, for example 1.5"),
        ([float("inf"), 2.0], "for example inf"),
        ([2.0**53 + 2, 1.0], "for example 9007199254740994.0"),
        ([True, False], "holds BOOLEAN; ids must be integers or strings"),
        ([b"a", b"b"], "holds BLOB; ids must be integers or strings"),
        ([[1], [2]], r"holds BIGINT\[\]; ids must be"),
    ],
)
def test_what_is_neither_an_integer_nor_a_string_is_no_id(ids, message):
    refuse(f"the column 'user_id' of the Arrow table .*{message}", pa.table({"user_id": ids, "item_id": [1, 2]}))


def test_objects_in_json_are_no_ids(tmp_path):
    log = write(tmp_path / "log.jsonl", '{"user_id": {"name": "ann"}, "item_id": 1}\n')
    refuse("'user_id' of .* holds objects; ids must be integers or strings", log, influent.SchemaError)


def test_frames_with_what_no_table_can_hold_are_refused():
    ids = {"user_id": [1, 2], "item_id": [1, 2]}
    refuse("the pandas table holds what no table on disk can", pd.DataFrame(ids | {"x": [1j, 2j]}))
    refuse("the pandas table holds what no table on disk can", pd.DataFrame(ids | {"x": [object(), object()]}))
    refuse("the pandas table cannot be read", pd.DataFrame(ids | {"x": np.array([1, 2], np.float16)}))


def log_of(**columns: list) -> pa.Table:
    n = len(next(iter(columns.values())))
    return pa.table({"user_id": [1] * n, "item_id": list("abcdef"[:n])} | columns)


def test_times_none_of_which_can_be_read_are_counted_and_the_first_is_shown():
    message = (
        r"no time in the column 'time' of the Arrow table can be read: 2 cannot be read, the first is 'soon' \(row 1\)"
    )
    refuse(message, log_of(time=["soon", "later"]), influent.SchemaError)
    refuse("holds BOOLEAN; times or numbers are needed", log_of(time=[True, False]), influent.SchemaError)


def test_a_wrong_unit_of_time_is_refused():
    refuse("in the years 1 to 9999", log_of(time=[1_700_000_000_000] * 2), influent.SchemaError, time_unit="s")
    refuse(
        "'time_unit' parameter must be one of s, ms, us, ns. Got 'sec'",
        log_of(time=[1]),
        influent.ConfigError,
        time_unit="sec",
    )


def test_times_some_of_which_can_be_read_are_dropped_and_counted():
    events = influent.clean(influent.read_events(log_of(time=["soon", "2024-01-01"])))
    assert [(rule.name, rule.n_dropped) for rule in events.cleaning.rules if rule.n_dropped] == [("unreadable_time", 1)]
    assert "time: 1 cannot be read, the first is 'soon' (row 1); cleaning drops them." in events.cleaning.notes


def test_values_that_are_not_finite_are_dropped_and_counted():
    events = influent.clean(influent.read_events(log_of(value=[float("nan"), float("inf"), 1.0, None])))
    assert [(rule.name, rule.n_dropped) for rule in events.cleaning.rules if rule.n_dropped] == [
        ("non_finite_value", 2)
    ]


def test_a_value_that_is_no_number_at_all_is_refused():
    refuse(r"the column 'value' of the Arrow table holds BIGINT\[\]; numbers are needed", log_of(value=[[1], [2]]))


# Logs that are small or odd, and not wrong


@pytest.mark.parametrize(
    "log",
    [
        log_of(time=[1, 2, 3]),
        log_of(item_id=["a", "a", "a"], time=[1, 2, 3]),
        log_of(user_id=[1, 2, 3], time=[1, 2, 3]),
        log_of(time=[5, 5, 5]),
        log_of(time=[3, 1, 2]),
        log_of(item_id=["a", "b", "a"]),
    ],
    ids=["one user", "one item", "one event each", "all at one time", "out of order", "no times"],
)
def test_a_small_or_odd_log_goes_the_whole_way_to_moments(log):
    sequences = influent.build_sequences(influent.clean(influent.read_events(log)))
    assert len(sequences) == 3
    assert sequences.time_us is None or all(
        (np.diff(sequences.time_us[start:end]) >= 0).all()
        for start, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    )
    assert influent.find_artefacts(sequences).n_pairs == 0
    assert len(influent.latest_moments(sequences)) == sequences.n_users


# Run folders


@pytest.fixture
def run(tmp_path, tiny_log) -> Path:
    clean_log(tiny_log, tmp_path / "run")
    return tmp_path / "run"


def test_what_is_only_shown_needs_no_place_to_write(run, monkeypatch):
    fit_run(run, kind="popularity")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert len(explain_run(run, users=["ann"])) == 1
    assert recommend_run(run, users=["ann"], seen="keep").table.num_rows > 0
    for step in (explain_run, recommend_run):
        with pytest.raises(influent.RunFolderError, match="cannot be written"):
            step(run)


def test_a_folder_that_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(
        influent.RunFolderError, match=r"there is no run folder .*/run. Make one: influent clean LOG --run"
    ):
        Run.open(tmp_path / "run")
    with pytest.raises(influent.RunFolderError, match=r"is not a run folder \(no run.json\)"):
        Run.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"run"', "{}", '{"format_version": 1}', "\x00"])
def test_a_damaged_manifest_is_refused(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(
        influent.RunFolderError,
        match=r"run.json is damaged .* Remove .*, or choose another --run, and run influent clean",
    ):
        fit_run(run, kind="popularity")


def test_a_run_folder_of_a_newer_version_is_refused(run):
    (run / "run.json").write_text('{"format_version": 99, "steps": {}}')
    with pytest.raises(
        influent.RunFolderError, match=r"written by a newer version \(format 99, .* Upgrade: pip install"
    ):
        fit_run(run, kind="popularity")


def test_a_step_before_the_one_it_stands_on_is_refused(run):
    with pytest.raises(influent.RunFolderError, match="has no fit step yet. Run: influent fit"):
        evaluate_run(run)


@pytest.mark.parametrize("keep", [0, 7, 0.5], ids=["empty", "seven bytes", "half"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.parquet"])
def test_a_damaged_model_is_refused(tmp_path, tiny_log, name, keep):
    train = influent.build_sequences(influent.clean(influent.read_events(tiny_log)))
    influent.Popularity().fit(train).save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: keep if keep != 0.5 else len(whole) // 2])
    with pytest.raises(influent.RunFolderError, match="damaged"):
        influent.load_model(tmp_path)


def test_a_damaged_additive_model_is_refused(tmp_path, tiny_log):
    train = influent.build_sequences(influent.clean(influent.read_events(tiny_log)))
    model = influent.ModelConfig(embedding_dim=4, n_heads=1, max_len=4)
    influent.Predictor(model=model, train=influent.TrainConfig(epochs=1)).fit(train).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(influent.RunFolderError, match=r"the model in .* is damaged .* Fit it again: influent fit"):
        influent.load_model(tmp_path)


def test_a_model_that_was_never_fitted_is_not_there(tmp_path):
    with pytest.raises(
        influent.RunFolderError, match=r"holds no model \(no config.json\). Make one first: influent fit"
    ):
        influent.load_model(tmp_path)


# Nothing is left behind


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("log", "arguments"),
    [
        ("user_id,item_id\n", {}),
        ("user_id,item_id\n1,2,3\n", {}),
        ("user_id,item_id\n,\n", {}),
        (GOOD, {"columns": {"time": "when"}}),
        (GOOD, {"rules": {"min_user_events": 5}}),
        (GOOD, {"numbers": ("price",)}),
        (GOOD, {"items": "nowhere.csv"}),
    ],
)
def test_a_log_that_is_refused_leaves_no_trace_and_the_old_run_as_it_was(run, log, arguments):
    source = write(run.parent / "log.csv", log)
    before = listing(run.parent)
    with pytest.raises(influent.DataError):
        clean_log(source, run, **arguments)
    with pytest.raises(influent.DataError):
        clean_log(source, run.parent / "new", **arguments)
    assert listing(run.parent) == before


def test_a_folder_with_something_else_in_it_is_left_as_it_is(tmp_path, tiny_log):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "thesis.txt", "draft")
    with pytest.raises(influent.RunFolderError, match="exists and is not a run folder. Choose another place: --run"):
        clean_log(tiny_log, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


# At the command line


def influent_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from influent.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("log.csv", None, [], "no file at "),
        ("log.csv", GOOD + "1,2,3\n", [], "Expected Number of Columns: 2 Found: 3"),
        ("log.csv", "uid,item_id\n1,2\n", [], "has no column 'user_id'"),
        ("log.jsonl", '{"user_id": 1, "item_id": 1}\n{"user_id": "1", "item_id": 1}\n', [], "mixes types"),
        ("log.csv", GOOD, ["--delimiter", "\\t"], "'delimiter' must be one character"),
        ("log.csv", GOOD, ["--min-user-events", "9"], "cleaning left none of 2 events"),
    ],
)
def test_the_command_line_says_one_thing_and_ends_with_2(tmp_path, name, content, options, message):
    if content is not None:
        write(tmp_path / name, content)
    before = listing(tmp_path)
    done = influent_command("clean", tmp_path / name, "--run", tmp_path / "run", *options)
    said = [line for line in done.stderr.splitlines() if not line.startswith("clean: ")]  # progress
    assert done.returncode == 2
    assert len(said) == 1
    assert said[0].startswith("influent: ")
    assert message in said[0]
    assert listing(tmp_path) == before


def test_the_command_line_shows_the_traceback_when_asked(tmp_path):
    done = influent_command("--debug", "clean", tmp_path / "log.csv", "--run", tmp_path / "run")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "DataError: no file at" in done.stderr


# Arguments of another type


def test_an_argument_of_another_type_is_refused_and_where_to_get_one_is_said():
    log = pa.table({"user_id": ["ann", "bob"], "item_id": ["tea", "tea"], "time": [1, 2]})
    sequences = influent.build_sequences(influent.read_events(log))
    edges = influent.read_edges(pa.table({"source_user_id": ["ann"], "target_user_id": ["bob"]}))
    with pytest.raises(
        influent.ConfigError, match=r"'edges' parameter must be of the type Table, as from read_edges\(\.\.\.\)"
    ):
        influent.build_ties("edges.csv", sequences)
    with pytest.raises(influent.ConfigError, match=r"'sequences' .* as from build_sequences\(events\). Got Table"):
        influent.build_ties(edges, log)
    with pytest.raises(influent.ConfigError, match="'ledger' parameter must be of the type Ledger, as from explain"):
        influent.leaders(log, influent.build_ties(edges, sequences))
    with pytest.raises(influent.ConfigError, match="'ties' parameter must be of the type Ties, as from build_ties"):
        influent.leaders(log, edges)
    with pytest.raises(influent.ConfigError, match="'model' parameter must be of the type Social"):
        influent.check_likeness(influent.Popularity(), sequences)
    with pytest.raises(
        influent.ConfigError, match="'events' parameter must be of the type Events, as from read_events"
    ):
        influent.exposure_units(log, exposed="shown", outcome="buy", horizon="7d")
    with pytest.raises(influent.ConfigError, match="'models' parameter must be a list"):
        influent.evaluate(influent.Popularity(), sequences)
