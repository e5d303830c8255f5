"""The verbs, from a log to recommendations, as a person at a terminal meets them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

import influent
from influent.demo import write_dirty_log
from influent.run import checkpoint_of

SETTINGS = """
[model]
embedding_dim = 8
n_heads = 2
max_len = 10
dropout = 0.1

[train]
epochs = 3
"""
COLUMNS = ("--user", "who", "--item", "what", "--time", "when", "--action", "did")


def influent_command(*arguments, **options):
    command = [sys.executable, "-c", "from influent.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    world = influent.simulate_world(influent.WorldConfig(n_users=40, n_items=12, n_topics=2, horizon_days=30))
    write_dirty_log(world, folder / "log.csv")
    (folder / "settings.toml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def run(log):
    folder = log / "run"
    assert influent_command("clean", log / "log.csv", "--run", folder, *COLUMNS).returncode == 0
    fitted = influent_command("fit", folder, "--config", log / "settings.toml")
    assert fitted.returncode == 0, fitted.stderr
    assert "fitted: additive on" in fitted.stdout
    return folder


def test_help_names_every_verb_and_does_not_import_torch():
    check = "import sys; from influent.cli import app; print('torch' in sys.modules, 'duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "False False\n"
    shown = influent_command("--help").stdout
    assert all(
        verb in shown
        for verb in (
            "clean",
            "fit",
            "tune",
            "compare",
            "evaluate",
            "explain",
            "factors",
            "drift",
            "attribute",
            "recommend",
            "demo",
        )
    )


def test_clean_says_what_was_dropped_and_why(log, tmp_path):
    done = influent_command("clean", log / "log.csv", "--run", tmp_path / "run", *COLUMNS)
    assert "it was done to nothing" in done.stdout
    report = json.loads((tmp_path / "run" / "cleaning.json").read_text())
    assert report["n_read"] == report["n_kept"] + sum(rule["n_dropped"] for rule in report["rules"])
    assert report["n_kept"] == pq.read_metadata(tmp_path / "run" / "events.parquet").num_rows
    assert done.stderr.startswith("clean: 6 of 6 in")  # a pipe gets plain lines


def test_evaluate_stands_the_model_beside_popularity_and_counts(run):
    done = influent_command("evaluate", run, "--seen", "keep", "--k", "5", "--k", "10")
    assert done.returncode == 0, done.stderr
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    assert list(rows) == ["additive", "popularity", "counts"]
    assert "HR@5" in done.stdout


def test_evaluate_judges_credits_when_asked(run):
    done = influent_command("evaluate", run, "--faithfulness", "--method", "exact", "--moments", "5")
    assert done.returncode == 0, done.stderr
    found = json.loads((run / "faithfulness.json").read_text())
    assert list(found["checks"]) == ["exact"]
    assert found["checks"]["exact"]["pearson"] >= 1 - 1e-6
    assert "events masked:" in done.stdout
    assert "they are not effects" in " ".join(done.stdout.split())
    wrong = influent_command("evaluate", run, "--faithfulness", "--method", "guess")
    assert wrong.returncode == 2
    assert "there is no method 'guess'" in wrong.stderr


@pytest.mark.parametrize("options", [("--moments", "5"), ("--method", "exact"), ("--faithfulness", "--k", "5")])
def test_evaluate_refuses_options_that_would_say_nothing(run, options):
    wrong = influent_command("evaluate", run, *options)
    assert wrong.returncode == 2
    assert "--method and --moments go with --faithfulness, and --k" in wrong.stderr


def test_explain_writes_a_ledger_that_closes(run):
    done = influent_command("explain", run)
    assert done.returncode == 0, done.stderr
    assert influent.Ledger.load(run).largest_gap() <= 1e-4
    assert "sum (the model said" in done.stdout
    assert "They are not effects." in done.stdout
    assert json.loads((run / "ledger.json").read_text())["removal_agreement"] >= 1 - 1e-6


def test_explain_shows_one_users_moment_against_rivals(run):
    user = pq.read_table(run / "events.parquet").column("user_id")[0].as_py()
    done = influent_command("explain", run, "--user", user, "--item", "i003", "--contrast", "3", "--top", "2")
    assert done.returncode == 0, done.stderr
    assert "i003 against its 3 best rivals" in done.stdout
    assert "all other events" in done.stdout


def test_explain_says_why_now_and_why_not_the_other(run):
    events = pq.read_table(run / "events.parquet").sort_by("time_us").to_pylist()
    last = {event["user_id"]: event["time_us"] for event in events}
    user = next(event["user_id"] for event in events if last[event["user_id"]] - event["time_us"] > 9 * 86_400_000_000)
    done = influent_command("explain", run, "--user", user, "--before", "7d")
    assert done.returncode == 0, done.stderr
    assert ", now and not earlier" in done.stdout
    assert "sum (the score has changed by " in done.stdout
    assert "half of all credit lies with " in done.stdout
    both = influent_command("explain", run, "--user", user, "--before", "7d", "--item", "i003", "--against", "i001")
    assert "i003 against i001, now and not earlier" in both.stdout, both.stderr
    other = influent_command("explain", run, "--user", user, "--item", "i003", "--against", "i001")
    assert "i003 against i001\n" in other.stdout, other.stderr
    assert "the item itself" in other.stdout
    assert "sum (ahead of i001 by " in other.stdout


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--before", "7d"), "Name them: --user ID"),
        (("--user", "u0001", "--before", "7"), "'7' has no unit"),
        (("--user", "u0001", "--before", "90d"), "user 'u0001' has events from "),
        (("--user", "u0001", "--before", "1d", "--top", "3"), "leave 'top' and 'contrast' out"),
        (("--user", "u0001", "--against", "i001"), "Name it: items=[…], or --item"),
        (("--user", "u0001", "--item", "i001", "--against", "tea"), "item_id 'tea' is not among the 12 known"),
    ],
)
def test_what_a_difference_cannot_be_of_is_said(asked, message, run):
    done = influent_command("explain", run, *asked)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_an_order_only_log_has_no_week_before(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(f"u{n % 3},i{n % 4}\n" for n in range(24)))
    influent_command("clean", tmp_path / "log.csv", "--run", tmp_path / "run")
    assert influent_command("fit", tmp_path / "run", "--model", "counts").returncode == 0
    done = influent_command("explain", tmp_path / "run", "--user", "u0", "--before", "7d")
    assert done.returncode == 2
    assert "an order-only log does not say what was known a while before" in done.stderr


def test_factors_drift_and_attribution_are_kept_in_the_run(log, tmp_path):
    run = tmp_path / "run"
    influent_command("clean", log / "log.csv", "--run", run, *COLUMNS)
    assert influent_command("fit", run, "--split", "0.5", "--config", log / "settings.toml").returncode == 0
    assert "Run: influent explain" in influent_command("factors", run).stderr
    assert influent_command("explain", run).returncode == 0
    done = influent_command("factors", run, "--by", "action", "--by", "gap")
    assert done.returncode == 0, done.stderr
    assert "share of the variance" in done.stdout
    assert "There are: action, lag, gap" in influent_command("factors", run, "--by", "acton").stderr
    done = influent_command("drift", run, "--window", "2d")
    assert done.returncode == 0, done.stderr
    assert "half-life from" in done.stdout
    assert "is longer than half of the time" in influent_command("drift", run, "--window", "52w").stderr
    done = influent_command("attribute", run, "--outcome", "view")
    assert done.returncode == 0, done.stderr
    assert "every column adds up" in done.stdout
    assert "name the actions that are outcomes" in influent_command("attribute", run).stderr
    kept = {"factors.html", "drift.html", "half_lives.parquet", "attribution.parquet", "paths.parquet"}
    assert kept <= set(os.listdir(run))
    influent_command("explain", run)
    assert not kept & set(os.listdir(run))


def test_an_answer_of_one_is_the_outcome(log, tmp_path):
    run = tmp_path / "run"
    influent_command("clean", log / "log.csv", "--run", run, *COLUMNS)
    asked = ("--ask", "will_do", "--horizon", "3d", "--action", "view", "--config", log / "settings.toml")
    assert influent_command("fit", run, *asked).returncode == 0
    assert influent_command("explain", run).returncode == 0
    assert "leave the outcome out" in influent_command("attribute", run, "--outcome", "view").stderr
    done = influent_command("attribute", run)
    assert done.returncode == 0, done.stderr
    assert all(row["outcome_change"] is not None for row in pq.read_table(run / "what_if.parquet").to_pylist())


def test_explain_says_how_many_events_carry_a_score_and_by_which_method(run):
    user = pq.read_table(run / "events.parquet").column("user_id")[0].as_py()
    asked = ("explain", run, "--user", user, "--method")
    exact = influent_command(*asked, "exact").stdout
    assert "half of all credit lies with " in exact
    assert "histories read: 1" in exact
    assert "credits are estimates" not in exact
    shown = influent_command(*asked, "shapley", "--samples", "8", "--seed", "1").stdout
    assert "credits are estimates: shapley (n_samples 8, seed 1)" in shown
    assert " ± " in shown
    assert "a history that says nothing" in shown
    assert "what the credits leave over" in shown
    assert "integrated gradients (n_steps 5)" in influent_command(*asked, "integrated_gradients", "--steps", "5").stdout
    refused = influent_command(*asked, "lime")
    assert refused.returncode == 2
    assert "there is no method 'lime'. There are: exact, leave_one_out, shapley" in refused.stderr


def test_recommend_writes_lists_for_everyone(run):
    done = influent_command("recommend", run, "--k", "3", "--seen", "keep")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(run / "recommendations.parquet")
    assert set(table.column("served_from").to_pylist()) == {"history"}
    assert max(table.column("rank").to_pylist()) == 3
    assert "sum (ahead of its rivals by " in done.stdout
    own = influent_command("recommend", run, "--k", "3", "--seen", "keep", "--reasons", "score", "--n-reasons", "1")
    assert "sum (the model said " in own.stdout


def test_recommend_to_a_stranger_says_popularity(run):
    done = influent_command("recommend", run, "--user", "nobody yet", "--k", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from popularity") == 2


def test_recommend_from_events_handed_in(run, tmp_path):
    (tmp_path / "basket.csv").write_text("who,what,when,did\nnew,i001,2024-02-01,purchase\n")
    columns = ("--user-column", "who", "--item-column", "what", "--time-column", "when", "--action-column", "did")
    done = influent_command("recommend", run, "--events", tmp_path / "basket.csv", *columns, "--k", "2")
    assert done.returncode == 0, done.stderr
    assert "for user new:" in done.stdout
    assert "from events handed in" in done.stdout


def test_categories_are_kept_in_the_run_and_read_in_events_handed_in(log, tmp_path):
    rows = [f"u{n // 5},i{n % 4},{('home', 'shop')[n % 2]},d{n % 3}" for n in range(40)]
    (tmp_path / "log.csv").write_text("user_id,item_id,place,device\n" + "\n".join(rows))
    run, columns = tmp_path / "run", ("--scene", "place", "--category", "device")
    done = influent_command("clean", tmp_path / "log.csv", "--run", run, *columns, "--keep-duplicates")
    assert done.returncode == 0, done.stderr
    assert influent.Sequences.load(run).category_names == ("scene", "device")
    assert json.loads((run / "run.json").read_text())["steps"]["clean"]["settings"]["categories"] == ["scene", "device"]
    fitted = influent_command("fit", run, "--config", log / "settings.toml", "--context", "device")
    assert fitted.returncode == 0, fitted.stderr
    explained = influent_command("explain", run, "--by-part")
    assert explained.returncode == 0, explained.stderr
    assert "the device " in explained.stdout
    lines = {(row["source"], row["source_name"]) for row in influent.Ledger.load(run).table.to_pylist()}
    assert {("event", "scene"), ("event", "device"), ("context", "device")} <= lines
    (tmp_path / "basket.csv").write_text("user_id,item_id,where,device\nnew,i1,shop,d9\n")
    asked = ("recommend", run, "--events", tmp_path / "basket.csv", "--k", "1")
    done = influent_command(*asked, "--scene-column", "where")
    assert done.returncode == 0, done.stderr
    assert "from events handed in" in done.stdout
    (tmp_path / "basket.csv").write_text("user_id,item_id\nnew,i1\n")
    assert "events have no column 'device' that could be a category" in influent_command(*asked).stderr


def test_a_counting_model_goes_the_same_way(log, tmp_path):
    folder = tmp_path / "run"
    influent_command("clean", log / "log.csv", "--run", folder, *COLUMNS)
    assert influent_command("fit", folder, "--model", "ease", "--split", "0.8").returncode == 0
    assert influent_command("evaluate", folder).returncode == 0
    assert influent_command("recommend", folder).returncode == 0


def test_the_whole_way_in_one_command(log, tmp_path):
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = influent_command("demo", log / "log.csv", "--run", tmp_path / "run", *COLUMNS, env=settings)
    assert done.returncode == 0, done.stderr
    assert "The ledger closes" in done.stdout
    assert {"events.parquet", "ledger.parquet", "recommendations.parquet"} <= set(os.listdir(tmp_path / "run"))


def test_a_fit_that_is_killed_goes_on_where_it_stopped(log, tmp_path):
    folder = tmp_path / "run"
    influent_command("clean", log / "log.csv", "--run", folder, *COLUMNS)
    before = sorted(os.listdir(folder))
    command = [sys.executable, "-c", "from influent.cli import main; main()", "fit", str(folder), "--epochs", "500"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    checkpoint = checkpoint_of(folder)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(os.listdir(folder)) == before
    assert influent_command("evaluate", folder).returncode == 2  # there is no model yet
    again = influent_command("fit", folder, "--epochs", "500")
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stderr
    assert not checkpoint.exists()


def test_a_users_mistake_is_one_message_and_exit_code_2(run, tmp_path):
    done = influent_command("fit", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("influent: there is no run folder")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in influent_command("--debug", "fit", tmp_path / "nothing").stderr
    (tmp_path / "bad.toml").write_text("[trian]\nepochs = 1\n")
    done = influent_command("fit", run, "--config", tmp_path / "bad.toml")
    assert done.returncode == 2
    assert "may have the sections [model], [train] and [label]" in done.stderr


def test_a_table_of_items_may_call_the_id_as_the_log_does(log, tmp_path):
    (tmp_path / "items.csv").write_text("what,title\ni001,The First\n")
    done = influent_command(
        "clean", log / "log.csv", "--run", tmp_path / "run", "--items", tmp_path / "items.csv", *COLUMNS
    )
    assert done.returncode == 0, done.stderr
    assert "The First" in pq.read_table(tmp_path / "run" / "items.parquet").column("title").to_pylist()


def test_options_that_belong_to_something_that_is_not_there_are_refused(run):
    before = (run / "run.json").read_bytes()
    for asked, message in [
        (("demo", "--run", run, "--user", "who"), "are of a log of your own. Name it"),
        (("recommend", run, "--user", "u0000", "--user-column", "who"), "--events"),
        (("fit", run, "--target", "all"), "goes with a split by time"),
        (("fit", run, "--model", "gru", "--gate", "query"), "one of the additive model"),
    ]:
        done = influent_command(*asked)
        assert done.returncode == 2, asked
        assert message in done.stderr
    assert (run / "run.json").read_bytes() == before


def test_who_is_left_without_a_list_is_named(run):
    log = influent.Sequences.load(run)
    names, items = log.vocab.users.ids.to_pylist(), log.vocab.items.ids.to_pylist()
    has_seen = {name: set(log.item_idx[log.offsets[at] : log.offsets[at + 1]]) for at, name in enumerate(names)}
    one, other = next((a, b) for a in names for b in names if has_seen[a] - has_seen[b])
    item = items[min(has_seen[one] - has_seen[other])]
    done = influent_command("recommend", run, "--user", one, "--user", other, "--candidate", item)
    assert done.returncode == 0, done.stderr
    assert f"for user {one}: nothing is left that may be recommended." in done.stdout
    assert f"for user {other}:\n" in done.stdout


def test_a_user_without_events_is_said_to_be_new_and_who_is_meant_perhaps(run):
    done = influent_command("recommend", run, "--user", "u00001", "--user", "u0001")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "has no events" in line]
    assert said == ["user u00001 has no events, so the list is that of somebody new. Did you mean 'u0001'?"]


def test_how_many_users_are_left_without_a_list_is_said(run):
    log = influent.Sequences.load(run)
    item = int(np.argmax(log.item_counts()))
    n_seen = len(set(log.user_idx[log.item_idx == item]))
    done = influent_command("recommend", run, "--candidate", log.vocab.items.ids[item].as_py())
    assert done.returncode == 0, done.stderr
    assert 0 < n_seen < log.n_users
    assert f"{n_seen:,} users have no list: nothing is left to recommend to them." in done.stderr
    assert f"({log.n_users - n_seen:,} users)" in done.stdout


def test_what_could_not_be_read_of_events_handed_in_is_said(run, tmp_path):
    known = influent.Sequences.load(run).vocab.items.ids[0].as_py()
    rows = [("eve", known, "view", "soon"), ("eve", known, "kiss", "2024-02-01"), ("eve", "none", "view", "2024-02-02")]
    text = "user_id,item_id,action,time\n" + "".join(",".join(row) + "\n" for row in rows)
    (tmp_path / "new.csv").write_text(text)
    done = influent_command("recommend", run, "--events", tmp_path / "new.csv")
    assert done.returncode == 0, done.stderr
    assert "time: 1 cannot be read, the first is 'soon'" in done.stderr
    assert "1 events dropped, its place in the order is unknown." in done.stderr
    assert "1 events are of items that the model does not know." in done.stderr
    assert "1 events are of actions that the model does not know." in done.stderr
    assert "None" not in done.stdout


@pytest.mark.parametrize("name", ["ledger.parquet", "predictions.parquet", "ledger.json"])
def test_a_damaged_ledger_is_said_to_be_one(log, tmp_path, name):
    run = tmp_path / "run"
    for asked in (("clean", log / "log.csv", "--run", run, *COLUMNS), ("fit", run, "--model", "markov")):
        assert influent_command(*asked).returncode == 0
    assert influent_command("explain", run).returncode == 0
    (run / name).write_bytes((run / name).read_bytes()[:50])
    done = influent_command("factors", run)
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert "Run influent explain again" in done.stderr


def test_drift_of_models_that_only_count_and_of_black_boxes(log, tmp_path):
    run = tmp_path / "run"
    assert influent_command("clean", log / "log.csv", "--run", run, *COLUMNS).returncode == 0
    for kind, more in (("popularity", ()), ("markov", ()), ("gru", ("--config", log / "settings.toml"))):
        assert influent_command("fit", run, "--model", kind, *more).returncode == 0
        assert influent_command("explain", run).returncode == 0
        done = influent_command("drift", run, "--window", "3d")
        if kind == "popularity":
            assert (done.returncode, "all credits are 0" in done.stderr) == (2, True)
        else:
            assert done.returncode == 0, done.stderr
            assert (run / "drift.html").exists()


def test_a_stranger_with_a_number_may_be_recommended_to_beside_ties_of_numbers(tmp_path):
    rows = [f"{user},{item % 7},2024-01-{1 + item:02d}\n" for user in range(1, 9) for item in range(user, user + 6)]
    (tmp_path / "log.csv").write_text("user_id,item_id,time\n" + "".join(rows))
    (tmp_path / "edges.csv").write_text("source_user_id,target_user_id\n1,2\n3,4\n")
    run = tmp_path / "run"
    assert influent_command("clean", tmp_path / "log.csv", "--run", run).returncode == 0
    fitted = influent_command("fit", run, "--model", "counts", "--edges", tmp_path / "edges.csv")
    assert fitted.returncode == 0, fitted.stderr
    done = influent_command("recommend", run, "--user", "777", "--user", "eve", "--user", "3", "--seen", "keep")
    assert done.returncode == 0, done.stderr
    assert [f"for user {who}:" in done.stdout for who in ("777", "eve", "3")] == [True] * 3


def test_refitted_models_are_said_to_know_the_validation_events(log, tmp_path):
    run = tmp_path / "run"
    assert influent_command("clean", log / "log.csv", "--run", run, *COLUMNS).returncode == 0
    done = influent_command("fit", run, "--model", "counts", "--refit")
    split = influent.split_last(influent.Sequences.load(run))
    assert f"on {len(split.train_and_validation):,} events" in done.stdout
    assert len(split.train_and_validation) > len(split.train)
