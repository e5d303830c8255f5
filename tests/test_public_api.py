"""What is exported is what is listed, and touching it costs no more than it needs."""

import subprocess
import sys

import influent
from influent.errors import InfluentError


def test_every_listed_name_is_there_and_documented():
    for name in influent.__all__:
        assert getattr(influent, name).__doc__, name


def test_the_verbs_and_the_nouns_of_the_story_are_listed():
    story = {"read_events", "clean", "build_sequences", "split_last", "split_at", "Predictor", "explain", "recommend"}
    story |= {"evaluate", "load_model", "Ledger", "simulate_world", "check_faithfulness", "credits_by"}
    assert story <= set(influent.__all__)


def test_every_error_is_also_a_builtin():
    errors = [getattr(influent, name) for name in influent.__all__ if name.endswith("Error")]
    assert len(errors) == 10
    for error in errors:
        assert issubclass(error, InfluentError)
        assert error is InfluentError or len(error.__mro__) > len(InfluentError.__mro__) + 1


def test_reading_a_log_and_a_ledger_never_imports_torch():
    code = (
        "import sys, influent, pyarrow as pa\n"
        "log = pa.table({'user_id': [1, 1, 1], 'item_id': ['a', 'b', 'a']})\n"
        "split = influent.split_last(influent.build_sequences(influent.clean(influent.read_events(log))))\n"
        "model = influent.Popularity().fit(split.train)\n"
        "influent.explain(model, split.test).check_balance()\n"
        "influent.evaluate([model], split.test)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
