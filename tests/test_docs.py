"""What the README shows is what comes out, and every verb and file is described."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from influent import run
from influent.cli import app
from influent.models.methods import MethodName

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def without_numbers(text):
    """Numbers and which items they are of differ in their last digits from processor to processor."""
    return re.sub(r"[+-]?\d[\d.,e-]*", "#", re.sub(r"(event|bias|rest) .*", r"\1", text)).split()


@pytest.mark.parametrize("page", ["README.md", "docs/effects.md"])
def test_the_python_of_a_page_prints_what_it_shows(page):
    code, shown = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", (ROOT / page).read_text(), re.DOTALL).groups()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert without_numbers(done.stdout) == without_numbers(shown)


def test_the_readme_shows_the_effect_that_its_page_prints():
    shown = re.search(r"```\n(effect .*?)```", (ROOT / "docs" / "effects.md").read_text(), re.DOTALL)[1]
    assert shown in README


def test_every_verb_is_in_the_readme():
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(verbs) == 12
    for verb in verbs:
        assert f"`influent {verb}" in README


def test_every_option_that_the_readme_names_exists():
    for verb, rest in re.findall(r"influent (\w+)((?: [^\n`|]|\\\n)*[^\n`|]*)", README):
        options = set(re.findall(r"--[a-z-]+", rest))
        if options:
            shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
            assert all(option in shown for option in options), (verb, options)


def test_every_method_of_credits_is_compared():
    page = (ROOT / "docs" / "methods.md").read_text()
    for name in get_args(MethodName):
        assert f"| `{name}` |" in page


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert named <= targets
    assert {"demo", "test", "check", "bench"} <= named


def test_every_file_of_a_run_folder_is_described():
    described = (ROOT / "docs" / "tables.md").read_text()
    for step in run._STEPS:
        for name in run._files(step):
            assert f"`{name}`" in described
