"""The verbs, from a log to recommendations, as a person at a terminal meets them."""

import json
import os
import signal
import subprocess
import sys
import time

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
    run, columns = tmp_path / "run", ("--scene", "place", "--category", "scene", "--category", "device")
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
