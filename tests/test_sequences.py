import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.vocab import UNKNOWN, Ids
from influent.progress import LineProgress

NEW_YEAR_US = 1_704_067_200_000_000


@pytest.fixture
def tiny(tiny_log) -> influent.Sequences:
    return influent.build_sequences(influent.clean(influent.read_events(tiny_log)))


def build(log: dict[str, list], **arguments: object) -> influent.Sequences:
    events = influent.clean(influent.read_events(pa.table(log)), drop_duplicates=False)
    return influent.build_sequences(events, **arguments)


def items_of(sequences: influent.Sequences) -> dict[object, list]:
    """Return each user's items in order."""
    ids = sequences.vocab.items.to_ids(sequences.item_idx).to_pylist()
    ends = zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    return {
        user: ids[start:end] for user, (start, end) in zip(sequences.vocab.users.ids.to_pylist(), ends, strict=True)
    }


def test_events_stand_by_user_and_in_order_of_time(tiny):
    assert items_of(tiny) == {
        "ann": ["tea", "pot", "pot", "jam", "oat"],
        "bob": ["cup", "tea", "cup", "pot"],
        "cat": ["tea", "cup", "tea"],
    }
    assert tiny.offsets.tolist() == [0, 5, 9, 12]
    assert tiny.event_id.tolist() == [0, 2, 3, 8, 10, 1, 5, 7, 11, 4, 6, 9]


def test_every_column_goes_with_its_event(tiny):
    minutes = (tiny.time_us - NEW_YEAR_US) // 60_000_000
    assert minutes.tolist() == tiny.event_id.tolist()  # row n of the tiny log is n minutes after midnight
    actions = tiny.vocab.actions.to_ids(tiny.action_idx).to_pylist()
    assert [actions[place] for place in (2, 7, 11)] == ["purchase"] * 3
    assert actions.count("view") == 9
    assert tiny.number_names == ("value",)
    assert tiny.numbers[[2, 7, 11], 0].tolist() == [20.0, 5.0, 3.0]
    assert np.isnan(tiny.numbers[:, 0]).sum() == 9
    assert tiny.user_idx.tolist() == [0] * 5 + [1] * 4 + [2] * 3


def test_a_log_out_of_order_is_put_in_order_and_ties_keep_the_order_of_rows():
    log = {"user_id": [1] * 5, "item_id": list("edcba"), "time": [9, 5, 5, 5, 1]}
    assert items_of(build(log)) == {1: ["a", "d", "c", "b", "e"]}


def test_an_order_only_log_keeps_the_order_of_rows_and_has_no_times():
    sequences = build({"user_id": ["v", "u", "v"], "item_id": ["b", "a", "a"]})
    assert items_of(sequences) == {"u": ["a"], "v": ["b", "a"]}
    assert sequences.time_us is None


def test_ids_are_numbered_in_sorted_order_however_the_rows_came():
    vocab = build({"user_id": [30, 4, 100], "item_id": ["b", "B", "a"]}).vocab
    assert vocab.users.ids.to_pylist() == [4, 30, 100]
    assert vocab.items.ids.to_pylist() == ["B", "a", "b"]


def test_numbers_are_missing_where_the_log_says_nothing_that_a_float32_can_hold():
    log = {"user_id": [1] * 5, "item_id": list("abcde"), "price": ["1.5", "", "cheap", "inf", "1e300"]}
    sequences = build(log, numbers=("price",))
    assert sequences.numbers[0].tolist() == [1.5]
    assert np.isnan(sequences.numbers[1:]).all()


def test_a_number_column_without_any_number_is_left_out():
    sequences = build({"user_id": [1], "item_id": ["a"], "price": [2.0]}, numbers=("value", "price"))
    assert sequences.number_names == ("price",)
    assert sequences.numbers.tolist() == [[2.0]]


def test_the_log_of_an_earlier_vocabulary_has_all_its_numbers(tiny):
    later = build({"user_id": ["ann"], "item_id": ["tea"]}, vocab=tiny.vocab, numbers=("value",))
    assert later.number_names == ("value",)
    assert np.isnan(later.numbers).all()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (("valeu",), "no column 'valeu' that could be a number. They have: value, price. Did you mean 'value'?"),
        (("time_us",), "no column 'time_us' that could be a number. They have: value, price."),
        (("value", "value"), "a number is named twice: value, value."),
    ],
)
def test_a_number_that_is_no_column_of_the_log_is_refused(numbers, message):
    with pytest.raises(influent.SchemaError, match=message):
        build({"user_id": [1], "item_id": ["a"], "price": [2.0]}, numbers=numbers)


@pytest.mark.parametrize("name", ["user_idx", "Item_idx", "idx", "id", "e", "number_0", "value_0", "category_0"])
def test_the_log_may_have_columns_called_as_ours(name):
    sequences = build(
        {"user_id": [2, 1], "item_id": ["a", "b"], name: [5, 6], "value": [1.0, 2.0], "scene": ["x", "y"]}
    )
    assert sequences.item_idx.tolist() == [1, 0]
    assert sequences.numbers.tolist() == [[2.0], [1.0]]
    assert sequences.categories.tolist() == [[1], [0]]


def test_events_that_were_not_cleaned_are_refused():
    events = influent.read_events(pa.table({"user_id": [1, None], "item_id": ["a", "b"]}))
    with pytest.raises(influent.DataError, match=r"1 events lack a user, an item or a time.*influent.clean\(events\)"):
        influent.build_sequences(events)


# Categories


def values_of(sequences: influent.Sequences) -> dict[str, list]:
    """Return what each event says in each category column."""
    columns = zip(sequences.vocab.categories.values(), sequences.categories.T, strict=True)
    return {ids.kind: ids.to_ids(idx).to_pylist() for ids, idx in columns}


VISITS = {
    "user_id": ["ann", "bob", "ann", "ann"],
    "item_id": ["tea", "tea", "cup", "jam"],
    "scene": ["search", "home", "", None],
    "device": [7, 9, None, 7],
}
"""Ann: tea from a search on device 7, then a cup and a jam without a scene; bob: tea from home on device 9."""


def test_categories_go_with_their_events_and_what_is_null_or_empty_is_unknown():
    visits = build(VISITS, categories=("scene", "device"))
    assert visits.category_names == ("scene", "device")
    assert values_of(visits) == {"scene": ["search", None, None, "home"], "device": [7, None, 7, 9]}
    assert visits.categories.tolist() == [[1, 0], [UNKNOWN, UNKNOWN], [UNKNOWN, 0], [0, 1]]
    assert visits.categories.dtype == np.int32


def test_the_scene_is_kept_by_default_and_left_out_where_the_log_has_none(tiny):
    assert values_of(build(VISITS)) == {"scene": ["search", None, None, "home"]}
    assert tiny.category_names == ()
    assert tiny.categories.shape == (12, 0)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["b", "a", "b"], ["b", "a", "b"]),
        ([10, 9, None], [10, 9, None]),
        ([10.0, 9.0, None], [10, 9, None]),  # what a frame makes of integers with gaps
        ([True, False, True], ["true", "false", "true"]),
        (pa.array([2**63, 1, None], pa.uint64()), ["9223372036854775808", "1", None]),
    ],
)
def test_a_category_is_read_as_strings_or_integers(column, values):
    assert values_of(build({"user_id": [1] * 3, "item_id": ["a"] * 3, "kind": column}, categories=("kind",))) == {
        "kind": values
    }


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (("scen",), "no column 'scen' that could be a category. They have: scene, .* Did you mean 'scene'?"),
        (("value",), "no column 'value' that could be a category. They have: scene, price, item, day."),
        (("scene", "scene"), "a category is named twice: scene, scene."),
        (("item",), "cannot be called 'item': item, action, numbers, counted are parts .* another name in the log"),
        (
            ("price",),
            r"'price' of the events holds floats, .* example 0.5. Categories are strings or .* in numbers=\('price',\)",
        ),
        (("day",), "the column 'day' of the events holds DATE. Categories are strings or integers"),
    ],
)
def test_a_category_that_is_none_is_refused(categories, message):
    log = {"user_id": [1], "item_id": ["a"], "scene": ["x"], "price": [0.5], "item": ["b"]}
    log["day"] = pa.array([0], pa.date32())
    with pytest.raises(influent.SchemaError, match=message):
        build(log, categories=categories)


def test_a_column_is_a_number_or_a_category_and_not_both():
    with pytest.raises(influent.SchemaError, match="'device' is named as a number and as a category"):
        build(VISITS, numbers=("device",), categories=("device",))


def test_an_earlier_vocabulary_says_which_categories_there_are_and_what_it_does_not_hold_is_unknown():
    vocab = build(VISITS, categories=("scene", "device")).vocab
    log = {"user_id": ["ann"] * 2, "item_id": ["tea"] * 2, "device": ["9", "x"], "scene": ["shop", "home"]}
    later = build(log, vocab=vocab)
    assert values_of(later) == {"scene": [None, "home"], "device": [9, None]}
    assert build(log, vocab=vocab, categories=("device", "scene")).fingerprint == later.fingerprint
    assert build(log, vocab=vocab, categories=("device",)).category_names == ("device",)
    with pytest.raises(influent.SchemaError, match="no values of the category 'user'. It has those of: scene, device"):
        build({**log, "user": [1, 2]}, vocab=vocab, categories=("user",))
    with pytest.raises(influent.SchemaError, match="events have no column 'device' that could be a category"):
        build({"user_id": ["ann"], "item_id": ["tea"]}, vocab=vocab)


def test_a_masked_event_has_no_category_and_a_cut_keeps_those_before_it():
    visits = build(VISITS)
    assert values_of(visits.masked(np.array([0]))) == {"scene": [None, None, None, "home"]}
    assert values_of(visits.until(np.array([1, 4]))) == {"scene": ["search", "home"]}


# Another vocabulary


def test_items_and_actions_that_an_earlier_vocabulary_does_not_hold_are_unknown(tiny):
    log = {"user_id": ["ann"] * 3, "item_id": ["tea", "hat", "cup"], "action": ["view", "view", "steal"]}
    later = build(log, vocab=tiny.vocab)
    assert later.item_idx.tolist() == [4, UNKNOWN, 0]
    assert later.action_idx.tolist() == [1, 1, UNKNOWN]
    assert later.vocab.items is tiny.vocab.items
    assert later.item_counts().tolist() == [1, 0, 0, 0, 1]


def test_users_that_an_earlier_vocabulary_does_not_hold_stand_behind_its_own(tiny):
    later = build({"user_id": ["abe", "bob", "zoe"], "item_id": ["tea"] * 3}, vocab=tiny.vocab)
    assert later.vocab.users.ids.to_pylist() == ["ann", "bob", "cat", "abe", "zoe"]
    assert later.offsets.tolist() == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize(("first", "second"), [([5, 6], ["6", "x"]), (["5", "6"], [6, 7])])
def test_ids_of_another_type_are_compared_as_text(first, second):
    vocab = build({"user_id": first, "item_id": first}).vocab
    later = build({"user_id": second, "item_id": second}, vocab=vocab)
    assert later.item_idx.tolist() == [1, UNKNOWN]
    assert later.vocab.users.ids.to_pylist() == ["5", "6", str(second[1])]
    assert later.user_idx.tolist() == [1, 2]


def test_with_users_adds_users_without_events(tiny):
    more = tiny.with_users(["dan", "ann", "dan"])
    assert more.vocab.users.ids.to_pylist() == ["ann", "bob", "cat", "dan"]
    assert more.offsets.tolist() == [0, 5, 9, 12, 12]
    assert tiny.with_users(["ann"]).fingerprint == tiny.fingerprint


def test_a_user_of_another_type_makes_all_user_ids_texts():
    more = build({"user_id": [1, 2], "item_id": [1, 2]}).with_users(["bob", 2])
    assert more.vocab.users.ids.to_pylist() == ["1", "2", "bob"]


# Cutting


def test_until_ends_each_user_before_a_place(tiny):
    cut = tiny.until(np.array([2, 9, 9]))
    assert items_of(cut) == {"ann": ["tea", "pot"], "bob": ["cup", "tea", "cup", "pot"], "cat": []}
    assert cut.offsets.tolist() == [0, 2, 6, 6]
    assert cut.event_id.tolist() == [0, 2, 1, 5, 7, 11]
    assert cut.vocab is tiny.vocab


def test_until_the_end_changes_nothing_and_until_the_start_leaves_nothing(tiny):
    assert tiny.until(tiny.offsets[1:]).fingerprint == tiny.fingerprint
    assert len(tiny.until(tiny.offsets[:-1])) == 0


# Ids


def test_an_id_goes_to_its_index_and_back(tiny):
    for ids in (tiny.vocab.users, tiny.vocab.items, tiny.vocab.actions):
        assert ids.to_ids(ids.to_idx(ids.ids)).equals(ids.ids)
        assert ids.to_idx(ids.ids).tolist() == list(range(len(ids)))


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1) | st.lists(st.text(), unique=True, min_size=1)
)
@settings(max_examples=50, deadline=None)
def test_any_id_goes_to_its_index_and_back(ids):
    known = Ids("item_id", pa.array(ids))
    assert known.to_ids(known.to_idx(ids)).to_pylist() == ids


def test_an_unknown_id_has_no_index_and_an_unknown_index_no_id():
    ids = Ids("item_id", pa.array(["apple", "pear"]))
    assert ids.to_idx(["plum", "pear", None]).tolist() == [UNKNOWN, 1, UNKNOWN]
    assert ids.to_ids(np.array([UNKNOWN, 0])).to_pylist() == [None, "apple"]
    assert ids.to_idx([]).tolist() == []


def test_a_number_from_a_command_line_finds_the_integer_and_only_as_it_prints():
    ids = Ids("item_id", pa.array([7, 42]))
    assert ids.to_idx(["42", "042", "x"]).tolist() == [1, UNKNOWN, UNKNOWN]


def test_an_id_that_must_be_there_and_is_not_is_named_with_the_nearest():
    with pytest.raises(influent.UnknownIdError, match="item_id 'aple' is not among the 2 known. Did you mean 'apple'?"):
        Ids("item_id", pa.array(["apple", "pear"])).require_idx(["pear", "aple"])


def test_a_title_is_the_known_one_or_the_id(tiny_log):
    items = influent.read_items(pa.table({"item_id": ["tea", "cup"], "title": ["Green tea", None]}))
    vocab = influent.build_sequences(influent.clean(influent.read_events(tiny_log)), items=items).vocab
    assert [vocab.title(idx) for idx in range(5)] == ["cup", "jam", "oat", "pot", "Green tea"]


def test_what_is_known_of_none_of_the_items_is_refused_and_of_some_is_said(tiny_log):
    events, said = influent.clean(influent.read_events(tiny_log)), io.StringIO()
    none = influent.read_items(pa.table({"item_id": ["Tea", "Cup"], "title": ["Green tea", "A cup"]}))
    with pytest.raises(influent.SchemaError, match="none of the log's 5 items .* is 'Tea' where the log's is 'cup'"):
        influent.build_sequences(events, items=none)
    two = influent.read_items(pa.table({"item_id": ["tea", "cup", "mug"], "title": ["Green tea", "A cup", "A mug"]}))
    influent.build_sequences(events, items=two, progress=LineProgress(said))
    assert said.getvalue().startswith("items: 2 of the log's 5 are in the table of items.\n")


# On disk


def same(one: influent.Sequences, other: influent.Sequences) -> bool:
    columns = ("offsets", "event_id", "item_idx", "action_idx", "time_us", "numbers", "categories")
    pairs = [(getattr(one, name), getattr(other, name)) for name in columns]
    names = (one.number_names, one.category_names) == (other.number_names, other.category_names)
    return names and all(
        (a is b is None) or (a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
        for a, b in pairs
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9), st.sampled_from([None, 0.0, 1.5])), min_size=1
)


@given(
    ROWS,
    st.booleans(),
    st.sampled_from([int, "item {}".format]),
    st.sampled_from([(), ("value",), ("value", "price")]),
    st.sampled_from([(), ("scene",), ("device", "scene")]),
)
@settings(max_examples=15, deadline=None)
def test_saving_and_loading_is_the_identity(rows, is_timed, item_id, numbers, categories):
    user, item, time, value = (list(column) for column in zip(*rows, strict=True))
    log = {"user_id": user, "item_id": [item_id(one) for one in item], "value": value, "price": value}
    log |= {"scene": [None if one is None else f"scene {one}" for one in value], "device": time}
    sequences = build(log | ({"time_us": time} if is_timed else {}), numbers=numbers, categories=categories)
    with tempfile.TemporaryDirectory() as folder:
        sequences.save(Path(folder))
        loaded = influent.Sequences.load(Path(folder))
    assert same(loaded, sequences)
    assert loaded.fingerprint == sequences.fingerprint
    for kind in ("users", "items", "actions"):
        assert getattr(loaded.vocab, kind).ids.equals(getattr(sequences.vocab, kind).ids)
    for name, ids in sequences.vocab.categories.items():
        assert loaded.vocab.categories[name].ids.equals(ids.ids)


def test_features_are_saved_and_loaded(tmp_path, tiny_log):
    items = influent.read_items(pa.table({"item_id": ["tea"], "title": ["Green tea"]}))
    users = influent.read_users(pa.table({"user_id": ["bob", "dan"], "age": [30, 40]}))
    events = influent.clean(influent.read_events(tiny_log))
    influent.build_sequences(events, items=items, users=users).save(tmp_path)
    vocab = influent.Sequences.load(tmp_path).vocab
    assert vocab.item_features.column("title").to_pylist() == [None, None, None, None, "Green tea"]
    assert vocab.user_features.to_pydict() == {"user_id": ["ann", "bob", "cat"], "age": [None, 30, None]}


@pytest.mark.parametrize("name", ["sequences.parquet", "vocab.parquet"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:99])])
def test_a_missing_or_damaged_file_is_named(tmp_path, tiny, name, damage):
    tiny.save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(influent.RunFolderError, match=f"{name} is missing or damaged.*Run again: influent clean"):
        influent.Sequences.load(tmp_path)


# The fingerprint


def test_the_fingerprint_changes_with_the_categories_and_what_they_are_called():
    visits = build(VISITS, categories=("scene", "device"))
    scene, device = visits.vocab.categories.values()
    changed = [
        replace(visits, categories=visits.categories[::-1]),
        *(
            replace(visits, vocab=replace(visits.vocab, categories=categories))
            for categories in (
                {"place": scene, "device": device},
                {"scene": replace(scene, ids=pa.array(["home", "shop"])), "device": device},
            )
        ),
        build(VISITS),
        build(VISITS, categories=()),
    ]
    assert len({visits.fingerprint, *(one.fingerprint for one in changed)}) == 1 + len(changed)


def test_the_fingerprint_is_the_same_for_the_same_log(tiny, tiny_log):
    again = influent.build_sequences(influent.clean(influent.read_events(tiny_log)))
    assert again.fingerprint == tiny.fingerprint
    assert len(tiny.fingerprint) == 12


def test_the_fingerprint_changes_with_every_part_of_the_content(tiny):
    swap = np.array([1, 0, *range(2, 12)])
    changed = [
        replace(tiny, item_idx=tiny.item_idx[swap]),
        replace(tiny, time_us=tiny.time_us + 1),
        replace(tiny, time_us=None),
        replace(tiny, action_idx=1 - tiny.action_idx),
        replace(tiny, numbers=tiny.numbers * 2),
        replace(tiny, number_names=("price",)),
        replace(tiny, offsets=np.array([0, 4, 9, 12])),
        tiny.with_users(["dan"]),
        tiny.until(tiny.offsets[1:] - 1),
    ]
    assert len({tiny.fingerprint, *(one.fingerprint for one in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((["a", "b"], ["c"]), (["a"], ["b", "c"])),
        ((["ab", "c"], ["d"]), (["a", "bc"], ["d"])),
        ((["a", "b"], ["c"]), (["a", "c"], ["b"])),
        (([1, 2], ["c"]), (["1", "2"], ["c"])),
    ],
)
def test_the_fingerprint_tells_vocabularies_apart(tiny, one, other):
    def with_ids(items: list, actions: list) -> str:
        vocab = replace(tiny.vocab, items=Ids("item_id", pa.array(items)), actions=Ids("action", pa.array(actions)))
        return replace(tiny, vocab=vocab).fingerprint

    assert with_ids(*one) != with_ids(*other)


def test_the_fingerprint_does_not_depend_on_where_in_the_log_the_rows_stood():
    clean = {"user_id": [1, 2], "item_id": ["a", "b"], "time": [5, 6]}
    dirty = {"user_id": [None, 2, 1], "item_id": ["a", "b", "a"], "time": [4, 6, 5]}
    assert build(clean).fingerprint == build(dirty).fingerprint
