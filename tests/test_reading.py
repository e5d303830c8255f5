import gzip
import json
import uuid
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import influent
from influent.schema import EVENT_COLUMNS

DAY = 1_704_067_200  # 2024-01-01T00:00:00Z in seconds since 1970
US = 1_000_000
ROWS = [("ann", 7, "a, b", DAY, 1.5), ("bob", 8, 'say "hi"', DAY + 60, None), ("ann", 9, "two\nlines 😀", DAY + 1, 2.0)]
NAMES = ("user_id", "item_id", "note", "time", "value")
LOG = pa.table({name: list(column) for name, column in zip(NAMES, zip(*ROWS, strict=True), strict=True)})


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_log(path: Path) -> Path:
    if ".parquet" in path.suffixes:
        pq.write_table(LOG, path)
        return path
    if ".jsonl" in path.suffixes:
        return write(path, "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS))
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    cells = [["" if cell is None else f'"{str(cell).replace(chr(34), 2 * chr(34))}"' for cell in row] for row in ROWS]
    return write(path, "".join(delimiter.join(row) + "\n" for row in [NAMES, *cells]))


def column(events: influent.Events, name: str) -> list:
    return events.to_arrow().column(name).to_pylist()


def read_ids(ids: object) -> influent.Events:
    return influent.read_events(pa.table({"user_id": ids, "item_id": ["a"] * len(ids)}))


def read_times(times: object, **settings: str) -> influent.Events:
    return influent.read_events(
        pa.table({"user_id": [1] * len(times), "item_id": [1] * len(times), "time": times}), **settings
    )


def csv_events(folder: Path, text: str, **settings: str) -> influent.Events:
    return influent.read_events(write(folder / "log.csv", text), **settings)


# Files and frames


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_the_same_rows_are_the_same_events_from_every_kind_of_file(tmp_path, suffix):
    events = influent.read_events(write_log(tmp_path / f"log.{suffix}"))
    assert column(events, "user_id") == ["ann", "bob", "ann"]
    assert column(events, "item_id") == [7, 8, 9]
    assert column(events, "note") == ["a, b", 'say "hi"', "two\nlines 😀"]
    assert column(events, "time_us") == [DAY * US, (DAY + 60) * US, (DAY + 1) * US]
    assert column(events, "value") == [1.5, None, 2.0]


@pytest.mark.parametrize(
    "frame",
    [LOG, LOG.to_pandas(), pl.from_arrow(LOG), pl.from_arrow(LOG).lazy()],
    ids=["arrow", "pandas", "polars", "polars lazy"],
)
def test_the_same_rows_are_the_same_events_from_every_kind_of_frame(frame):
    events = influent.read_events(frame)
    assert column(events, "user_id") == ["ann", "bob", "ann"]
    assert column(events, "note") == ["a, b", 'say "hi"', "two\nlines 😀"]
    assert column(events, "time_us") == [DAY * US, (DAY + 60) * US, (DAY + 1) * US]
    assert column(events, "value") == [1.5, None, 2.0]


def test_an_event_table_has_our_columns_first_and_null_where_the_log_says_nothing():
    events = influent.read_events(pa.table({"user_id": [1], "item_id": ["a"], "colour": ["red"]}))
    table = events.to_arrow()
    assert tuple(table.column_names) == (*EVENT_COLUMNS, "colour")
    assert table.to_pylist()[0] == dict.fromkeys(EVENT_COLUMNS) | {
        "event_id": 0, "user_id": 1, "item_id": "a", "action": "event", "colour": "red"
    }  # fmt: skip
    assert events.context == ("colour",)


@pytest.mark.parametrize("where", ["", "*.parquet"], ids=["folder", "glob"])
def test_parquet_files_follow_each_other_by_name_and_rows_keep_their_place(tmp_path, where):
    for name, items in (("b", [3, 4]), ("a", [1, 2]), ("c", [5])):
        pq.write_table(pa.table({"user_id": ["u"] * len(items), "item_id": items}), tmp_path / f"{name}.parquet")
    events = influent.read_events(str(tmp_path / where))
    assert column(events, "event_id") == [0, 1, 2, 3, 4]
    assert column(events, "item_id") == [1, 2, 3, 4, 5]


def test_csv_files_of_a_glob_follow_each_other_by_name(tmp_path):
    for name, item in (("2.csv", "b"), ("1.csv", "a")):
        write(tmp_path / name, f"user_id,item_id\nu,{item}\n")
    assert column(influent.read_events(tmp_path / "*.csv"), "item_id") == ["a", "b"]


def test_a_column_that_only_some_parquet_files_have_is_null_in_the_others(tmp_path):
    pq.write_table(pa.table({"user_id": [1], "item_id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"item_id": [2], "user_id": [1], "colour": ["red"]}), tmp_path / "b.parquet")
    events = influent.read_events(tmp_path)
    assert column(events, "item_id") == [1, 2]
    assert column(events, "colour") == [None, "red"]


@pytest.mark.parametrize("name", ["it's.csv", "sq[1].csv", "star*.csv", "br{a,b}.csv", 'say "hi".csv', "é 100%.csv"])
def test_a_file_may_have_any_name(tmp_path, name):
    write(tmp_path / "sq1.csv", "user_id,item_id\nwrong,wrong\n")
    assert column(influent.read_events(write(tmp_path / name, "user_id,item_id\nann,tea\n")), "user_id") == ["ann"]


def test_a_large_csv_keeps_the_order_of_its_rows(tmp_path):
    n = 200_000
    text = "user_id,item_id\n" + "".join(f"{row},x\n" for row in range(n))
    log = influent.read_events(write(tmp_path / "log.csv", text), engine=influent.Engine(threads=4))
    table = log.to_arrow()
    assert np.array_equal(table["event_id"].to_numpy(), np.arange(n))
    assert np.array_equal(table["user_id"].to_numpy(), np.arange(n))


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_a_csv_may_be_separated_by_something_else(tmp_path, delimiter):
    text = "user_id;item_id;price\nann;tea;3,5\n".replace(";", delimiter)
    assert column(csv_events(tmp_path, text), "price") == ["3,5"]


def test_a_delimiter_that_the_header_does_not_show_can_be_named(tmp_path):
    events = csv_events(tmp_path, "user_id:item_id:a,b,c\nann:tea:x\n", delimiter=":")
    assert column(events, "a,b,c") == ["x"]


@pytest.mark.parametrize(
    "text", ["\ufeffuser_id,item_id\nann,tea\n", "user_id,item_id\r\nann,tea\r\n", "user_id,item_id\nann,tea"]
)
def test_byte_order_marks_windows_line_ends_and_a_missing_last_one_are_no_part_of_the_values(tmp_path, text):
    events = csv_events(tmp_path, text)
    assert column(events, "user_id") == ["ann"]
    assert column(events, "item_id") == ["tea"]


def test_columns_may_have_any_name_and_be_called_anything(tmp_path):
    text = 'Kunde,"the ""item""",größe,f,s,filename,place,d\nann,tea,1,2,3,4,5,6\n'
    events = csv_events(tmp_path, text, user="Kunde", item='the "item"')
    assert column(events, "item_id") == ["tea"]
    assert events.context == ("größe", "f", "s", "filename", "place", "d")


def test_a_length_of_time_is_kept_as_text():
    log = pa.table({"user_id": [1], "item_id": ["a"], "watched": pa.array([90], pa.duration("s"))})
    assert column(influent.read_events(log), "watched") == ["00:01:30"]
    assert influent.read_items(log).table.column("watched").to_pylist() == ["00:01:30"]


def test_a_column_called_filename_in_parquet_is_kept(tmp_path):
    for name in ("a", "b"):
        table = pa.table({"user_id": [1], "item_id": [1], "filename": [f"was {name}"], "s": [2], "f": [3]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert column(influent.read_events(tmp_path), "filename") == ["was a", "was b"]


# Ids


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["7", "42", "-3"], [7, 42, -3]),
        (["007", "42"], ["007", "42"]),
        (["+7"], ["+7"]),
        (["1e3"], ["1e3"]),
        ([" 7", "8 "], [" 7", "8 "]),
        (["18446744073709551615", "1"], ["18446744073709551615", "1"]),
        (["7", ""], [7, None]),
    ],
)
def test_ids_in_a_csv_are_integers_only_if_every_one_is_written_as_an_integer_prints(tmp_path, written, read):
    events = csv_events(tmp_path, "user_id,item_id\n" + "".join(f"{one},x\n" for one in written))
    assert column(events, "user_id") == read


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_id_may_hold_commas_quotes_line_breaks_and_emoji(tmp_path, suffix):
    strange = ["a,b", 'say "hi"', "two\nlines", "😀", " spaced "]
    quoted = [f'"{one.replace(chr(34), 2 * chr(34))}",1\n' for one in strange]
    objects = [json.dumps({"user_id": one, "item_id": 1}) + "\n" for one in strange]
    text = "".join(["user_id,item_id\n", *quoted] if suffix == "csv" else objects)
    assert column(influent.read_events(write(tmp_path / f"log.{suffix}", text)), "user_id") == strange


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint32(), pa.int64(), pa.uint64(), pa.decimal128(38, 0)],
    ids=str,
)
def test_integer_columns_of_every_width_are_integers(kind):
    events = read_ids(pa.array([7, None, 8], pa.int64()).cast(kind))
    assert events.to_arrow().schema.field("user_id").type == pa.int64()
    assert column(events, "user_id") == [7, None, 8]


def test_integers_beyond_64_bits_are_kept_as_text():
    events = read_ids(pa.array([2**64 - 1, 1], pa.uint64()))
    assert column(events, "user_id") == ["18446744073709551615", "1"]
    assert "user_id: integers beyond 64 bits were read as strings." in events.notes


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_kind_of_text_column_holds_text_and_an_empty_text_is_no_id(kind):
    assert column(read_ids(pa.array(["007", "", "é"]).cast(kind)), "user_id") == ["007", None, "é"]


def test_a_uuid_is_kept_as_it_prints():
    one = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")
    assert column(read_ids(pa.array([one.bytes], pa.uuid())), "user_id") == [str(one)]


def test_a_uuid_in_json_keeps_its_capitals(tmp_path):
    log = write(
        tmp_path / "log.jsonl", '{"user_id": "550E8400-E29B-41D4-A716-446655440000", "item_id": "2024-01-05"}\n'
    )
    assert column(influent.read_events(log), "user_id") == ["550E8400-E29B-41D4-A716-446655440000"]
    assert column(influent.read_events(log), "item_id") == ["2024-01-05"]


def test_integers_that_pandas_made_floats_are_integers_again():
    events = influent.read_events(pd.DataFrame({"user_id": [7, np.nan, 8], "item_id": [1, 2, 3]}))
    assert column(events, "user_id") == [7, None, 8]
    assert "user_id: whole numbers stored as floats were read as integers." in events.notes


def test_polars_categories_and_enums_are_text():
    frame = pl.DataFrame({"user_id": ["b", "a"], "item_id": ["y", "x"]})
    events = influent.read_events(frame.cast({"user_id": pl.Categorical, "item_id": pl.Enum(["x", "y"])}))
    assert column(events, "user_id") == ["b", "a"]
    assert column(events, "item_id") == ["y", "x"]


def test_pandas_categories_of_integers_are_integers():
    frame = pd.DataFrame({"user_id": pd.Categorical([5, 3]), "item_id": pd.Categorical(["y", "x"])})
    assert column(influent.read_events(frame), "user_id") == [5, 3]
    assert column(influent.read_events(frame), "item_id") == ["y", "x"]


# Context


def test_a_context_column_with_one_of_our_names_gets_a_name_of_its_own():
    log = pa.table({"uid": [1], "item_id": [2], "user_id": ["x"], "EVENT_ID": [9], "event_id_in_log": [8]})
    events = influent.read_events(log, user="uid")
    assert events.context == ("user_id_in_log", "EVENT_ID_in_log_in_log", "event_id_in_log")
    assert column(events, "user_id") == [1]
    assert column(events, "user_id_in_log") == ["x"]
    assert "user_id: kept under the name user_id_in_log." in events.notes


def test_our_own_event_table_reads_back_as_it_was(tmp_path, tiny_log):
    once = influent.read_events(tiny_log)
    pq.write_table(once.to_arrow(), tmp_path / "events.parquet")
    again = influent.read_events(tmp_path / "events.parquet")
    assert again.to_arrow().select(EVENT_COLUMNS) == once.to_arrow().select(EVENT_COLUMNS)


def test_columns_can_be_named_crosswise():
    events = influent.read_events(pa.table({"user_id": ["tea"], "item_id": ["ann"]}), user="item_id", item="user_id")
    assert column(events, "user_id") == ["ann"]
    assert column(events, "item_id") == ["tea"]


def test_one_column_can_have_two_meanings():
    events = influent.read_events(pa.table({"user_id": ["u"], "sku": ["tea"]}), item="sku", scene="sku")
    assert column(events, "item_id") == column(events, "scene") == ["tea"]


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-01T00:00:00Z", DAY),
        ("2024-01-01T02:00:00+02:00", DAY),
        ("2023-12-31 19:00:00-0500", DAY),
        ("2024-01-01T00:00:00", DAY),
        ("2024-01-01 00:00:00", DAY),
        ("2024-01-01", DAY),
        ("2024-01-01T00:00:00.250Z", DAY + 0.25),
        ("1969-12-31T23:59:59Z", -1),
    ],
)
def test_a_text_is_a_time_in_utc_unless_it_says_otherwise(text, seconds):
    assert column(read_times([text]), "time_us") == [int(seconds * US)]


def test_a_note_says_how_many_times_carry_no_zone():
    events = read_times(["2024-01-01T00:00:00Z", "2024-01-01", "2024-01-01T00:00:00+01:00", "2024-01-01 00:00:00"])
    assert column(events, "time_us") == [DAY * US, DAY * US, (DAY - 3600) * US, DAY * US]
    assert events.notes == ("time: 2 times carry no zone; read as UTC.",)
    named = read_times(["2024-01-01 00:00:00 UTC", "2024-01-01 01:00:00 Europe/Berlin", "2024-01-01 00:00:00"])
    assert column(named, "time_us") == [DAY * US] * 3
    assert named.notes == ("time: 1 times carry no zone; read as UTC.",)


@pytest.mark.parametrize(
    ("number", "unit"),
    [(DAY, "seconds"), (DAY * 1_000, "milliseconds"), (DAY * 1_000_000, "microseconds"), (DAY * 10**9, "nanoseconds")],
)
@pytest.mark.parametrize("write_as", [int, float, str])
def test_the_size_of_a_number_decides_what_it_counts(number, unit, write_as):
    events = read_times([write_as(number)] * 3)
    assert column(events, "time_us") == [DAY * US] * 3
    assert events.notes == (f"time: numbers read as {unit} since 1970 (decided by their size).",)


def test_one_decision_about_the_unit_holds_for_the_whole_column():
    assert column(read_times([5, DAY, DAY + 1]), "time_us") == [5 * US, DAY * US, (DAY + 1) * US]


def test_numbers_whose_size_is_another_units_are_counted():
    events = read_times([DAY, DAY + 1, DAY * 1_000])
    assert "time: numbers read as seconds since 1970 (decided by their size)." in events.notes
    assert "time: 1 of them would by their size be in another unit; do some rows differ in it?" in events.notes


def test_a_unit_named_for_times_that_are_written_out_is_said_to_be_unused():
    unused = "time: times are written out, so the unit of numbers (ms) is not used."
    for times in (["2024-01-01T00:00:00Z"], [datetime(2024, 1, 1)], [datetime(2024, 1, 1, tzinfo=UTC)]):
        events = read_times(times, time_unit="ms")
        assert column(events, "time_us") == [DAY * US]
        assert unused in events.notes


def test_the_unit_of_numbers_can_be_named():
    events = read_times([5, 6], time_unit="ms")
    assert column(events, "time_us") == [5_000, 6_000]
    assert "time: numbers read as milliseconds since 1970 (as told)." in events.notes


def test_a_column_called_time_us_counts_microseconds_whatever_its_size():
    events = influent.read_events(pa.table({"user_id": [1, 1], "item_id": [1, 2], "time_us": [5, 6]}))
    assert column(events, "time_us") == [5, 6]


def test_numbers_that_all_fall_into_1970_are_pointed_out():
    note = "time: every time falls into 1970 or before; dates written as numbers look like this."
    assert note in read_times([20_240_105, 20_240_106]).notes


@pytest.mark.parametrize("times", [[DAY + 0.5, DAY + 0.25], [f"{DAY}.5", f"{DAY}.25"]], ids=["float", "text"])
def test_fractions_of_a_second_are_kept(times):
    assert column(read_times(times), "time_us") == [DAY * US + 500_000, DAY * US + 250_000]


@pytest.mark.parametrize(
    "times",
    [
        [DAY * 10**9 + 123_456_999, DAY * 10**9 + 123_457_000],
        [str(DAY * 10**9 + 123_456_999), str(DAY * 10**9 + 123_457_000)],
        pa.array([DAY * 10**9 + 123_456_999, DAY * 10**9 + 123_457_000], pa.timestamp("ns")),
        pa.array([DAY * 10**9 + 123_456_999, DAY * 10**9 + 123_457_000], pa.timestamp("ns", "Europe/Berlin")),
        ["2024-01-01T00:00:00.123456999Z", "2024-01-01T00:00:00.123457000Z"],
    ],
    ids=["integers", "text", "timestamps", "with a zone", "ISO"],
)
def test_nanoseconds_are_cut_to_microseconds_exactly_and_alike_in_every_form(times):
    assert column(read_times(times), "time_us") == [DAY * US + 123_456, DAY * US + 123_457]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit_are_read(unit):
    stamp = pa.array([datetime(2024, 1, 1)]).cast(pa.timestamp(unit))
    assert column(read_times(stamp), "time_us") == [DAY * US]
    assert column(read_times(stamp.cast(pa.timestamp(unit, "Asia/Tokyo"))), "time_us") == [DAY * US]


def test_timestamps_with_a_zone_need_no_note_and_those_without_have_one():
    assert read_times([datetime(2024, 1, 1, tzinfo=UTC)]).notes == ()
    assert read_times([datetime(2024, 1, 1)]).notes == ("time: times carry no zone; read as UTC.",)
    assert column(read_times([date(2024, 1, 1)]), "time_us") == [DAY * US]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_pandas_and_polars_times_with_a_zone_are_the_same_moment(unit):
    berlin = datetime(2024, 1, 1, 1)  # midnight in UTC
    ids = {"user_id": [1], "item_id": [1]}
    of_pandas = pd.DataFrame(ids | {"time": pd.DatetimeIndex([berlin]).tz_localize("Europe/Berlin").as_unit(unit)})
    of_polars = pl.DataFrame(ids | {"time": [berlin]}, schema_overrides={"time": pl.Datetime(unit)})
    of_polars = of_polars.with_columns(pl.col("time").dt.replace_time_zone("Europe/Berlin"))
    assert column(influent.read_events(of_pandas), "time_us") == [DAY * US]
    assert column(influent.read_events(of_polars), "time_us") == [DAY * US]


def test_nat_in_pandas_is_a_missing_time():
    frame = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "time": pd.to_datetime(["2024-01-01", None])})
    assert column(influent.read_events(frame), "time_us") == [DAY * US, None]


def test_a_log_without_times_is_order_only():
    events = influent.read_events(pa.table({"user_id": [1], "item_id": [1]}))
    assert not events.is_timed
    assert events.notes == ("order-only log: no time was named; events follow each other in the order of the rows.",)


@pytest.mark.parametrize("times", [pa.nulls(2), pa.nulls(2, pa.int64()), pa.nulls(2, pa.string())], ids=str)
def test_a_time_column_without_any_time_makes_the_log_order_only(times):
    events = read_times(times)
    assert not events.is_timed
    assert column(events, "time_us") == [None, None]
    assert events.notes[0].startswith("order-only log: time is empty in every row")


def test_an_empty_time_column_in_a_csv_makes_the_log_order_only(tmp_path):
    assert not csv_events(tmp_path, "user_id,item_id,time\n1,2,\n1,3,\n").is_timed


def test_a_time_that_cannot_be_read_is_null_counted_and_shown():
    events = read_times(["2024-01-01", "yesterday", "tomorrow", None])
    assert column(events, "time_us") == [DAY * US, None, None, None]
    assert "time: 2 cannot be read, the first is 'yesterday' (row 2); cleaning drops them." in events.notes


def test_a_time_outside_the_years_1_to_9999_cannot_be_read():
    events = read_times(["0001-01-01", "9999-12-31", "12024-01-01", "infinity"])
    assert column(events, "time_us") == [-62_135_596_800 * US, 253_402_214_400 * US, None, None]
    assert any("2 cannot be read, the first is '12024-01-01' (row 3)" in note for note in events.notes)


# Numbers and labels


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["1.5", "-2", "1e3"], [1.5, -2.0, 1000.0]),
        ([1, None], [1.0, None]),
        ([True, False], [1.0, 0.0]),
        (pa.array(["1.5", "2.25"]).cast(pa.decimal128(9, 2)), [1.5, 2.25]),
        (["", "3"], [None, 3.0]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_numbers_may_be_written_in_many_ways(written, read):
    log = pa.table({"user_id": [1] * len(written), "item_id": [1] * len(written), "value": written})
    assert column(influent.read_events(log), "value") == read


def test_a_text_that_is_no_number_is_nan_and_a_note_says_so(tmp_path):
    events = csv_events(tmp_path, "user_id,item_id,value\n1,1,3\n1,2,many\n")
    assert np.isnan(column(events, "value")[1])
    assert "value: 1 cannot be read, the first is 'many' (row 2); cleaning drops them as non-finite." in events.notes


@pytest.mark.parametrize(
    ("actions", "read"), [(["view", None, ""], ["view", "event", "event"]), ([1, 2, None], ["1", "2", "event"])]
)
def test_an_action_is_a_text_and_where_there_is_none_an_event(actions, read):
    log = pa.table({"user_id": [1] * 3, "item_id": [1] * 3, "action": actions})
    assert column(influent.read_events(log), "action") == read


def test_labels_of_mixed_types_in_json_are_read_without_quotes(tmp_path):
    text = '{"user_id": 1, "item_id": 1, "action": "view"}\n{"user_id": 1, "item_id": 1, "action": 3}\n'
    assert column(influent.read_events(write(tmp_path / "log.jsonl", text)), "action") == ["view", "3"]


# Items, users, edges


def test_items_keep_their_features_and_their_ids(tmp_path):
    items = influent.read_items(write(tmp_path / "items.csv", 'item_id,title\n007,"Tea, green"\n,lost\n8,\n'))
    assert items.table.to_pylist() == [{"item_id": "007", "title": "Tea, green"}, {"item_id": "8", "title": None}]


def test_items_find_the_ids_of_a_log_that_wrote_them_as_another_type(tiny_log):
    log = influent.clean(influent.read_events(pa.table({"user_id": [1, 1], "item_id": [5, 6]})))
    items = influent.read_items(pa.table({"sku": ["6", "5", "4"], "title": ["six", "five", "four"]}), item="sku")
    vocab = influent.build_sequences(log, items=items).vocab
    assert vocab.item_features.to_pydict() == {"item_id": [5, 6], "title": ["five", "six"]}
    assert [vocab.title(0), vocab.title(1)] == ["five", "six"]


def test_an_item_table_keeps_a_column_that_is_called_as_the_id_is():
    items = influent.read_items(pa.table({"sku": ["a"], "item_id": [9]}), item="sku")
    assert items.table.to_pylist() == [{"item_id": "a", "item_id_in_log": 9}]
    assert items.notes == ("item_id: kept under the name item_id_in_log.",)


def test_users_keep_their_features(tmp_path):
    users = influent.read_users(write(tmp_path / "users.jsonl", '{"uid": 1, "city": "Ulm"}\n{"uid": 2}\n'), user="uid")
    assert users.table.to_pylist() == [{"user_id": 1, "city": "Ulm"}, {"user_id": 2, "city": None}]


def test_an_id_that_stands_twice_in_a_table_of_items_is_refused():
    with pytest.raises(influent.SchemaError, match="has item_id 'tea' more than once. One row per id is needed"):
        influent.read_items(pa.table({"item_id": ["tea", "cup", "tea"]}))


def test_edges_have_two_ends_a_kind_and_a_time(tmp_path):
    text = "from,to,kind,time\nann,bob,follows,2024-01-01\nbob,cat,,\n"
    edges = influent.read_edges(write(tmp_path / "edges.csv", text), source_user="from", target_user="to")
    assert edges.to_pylist() == [
        {"source_user_id": "ann", "target_user_id": "bob", "kind": "follows", "time_us": DAY * US},
        {"source_user_id": "bob", "target_user_id": "cat", "kind": None, "time_us": None},
    ]
