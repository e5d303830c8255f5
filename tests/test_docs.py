"""What the README shows is what comes out, and every verb and file is described."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

import influent
from influent import run
from influent.cli import app
from influent.models.methods import MethodName

ROOT = Path(__file__).resolve().parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
README = PAGES["README.md"]


def without_numbers(text):
    """Numbers and which items they are of differ in their last digits from processor to processor."""
    return re.sub(r"[+-]?\d[\d.,e-]*", "#", re.sub(r"(event|bias|rest) .*", r"\1", text)).split()


@pytest.mark.parametrize("page", ["README.md", "docs/effects.md"])
def test_the_python_of_a_page_prints_what_it_shows(page):
    code, shown = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", (ROOT / page).read_text(), re.DOTALL).groups()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert without_numbers(done.stdout) == without_numbers(shown)


def test_every_verb_is_in_the_readme():
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(verbs) == 12
    for verb in verbs:
        assert f"`influent {verb}" in README


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_names_exists(page):
    for verb, rest in re.findall(r"influent (\w+)((?: [^\n`|]|\\\n)*[^\n`|]*)", PAGES[page]):
        options = set(re.findall(r"--[a-z-]+", rest))
        if options:
            shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
            assert all(option in shown for option in options), (verb, options)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if not target.startswith("http"):
            path, _, heading = target.partition("#")
            linked = (ROOT / page).parent / path if path else ROOT / page
            assert linked.exists(), target
            assert not heading or heading in headings_of(linked.read_text()), target


def headings_of(text):
    """Headings as links name them: in lower case, with hyphens for spaces and nothing for other signs."""
    return [
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.split("\n") if "#" in line
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_ours_that_a_page_uses_is_public(page):
    for name in re.findall(r"\binfluent\.([a-zA-Z_]+)\b(?!\.)", PAGES[page]):
        assert name in influent.__all__ or (ROOT / "influent" / name).exists(), name


def test_every_page_is_in_the_readme():
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in README


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
