"""A run folder is replaced as a whole or not at all."""

import contextlib
import json
import os

import pytest

import influent
from influent import run as run_module
from influent.run import FORMAT_VERSION, Run, check_place, checkpoint_of, fitting, writing


def write(folder, step, **files):
    with writing(folder, step, {"made": step}) as new:
        for name, text in files.items():
            (new / f"{name}.parquet").write_text(text)


def clean_step(folder, text="1"):
    with writing(folder, "clean", {}) as new:
        for name in ("events.parquet", "cleaning.json", "sequences.parquet", "vocab.parquet"):
            (new / name).write_text(text)


def write_then_fail(folder, step, name):
    with writing(folder, step, {}) as new:
        (new / name).write_text("new and half")
        raise RuntimeError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_step_that_fails_leaves_the_old_run_as_it_was(tmp_path):
    clean_step(tmp_path / "run", "old")
    before = {name: (tmp_path / "run" / name).read_text() for name in names(tmp_path / "run")}
    with pytest.raises(RuntimeError):
        write_then_fail(tmp_path / "run", "clean", "events.parquet")
    assert {name: (tmp_path / "run" / name).read_text() for name in names(tmp_path / "run")} == before
    assert [name for name in os.listdir(tmp_path) if "new" in name or "old" in name] == []


def test_a_later_step_keeps_the_earlier_files_and_a_new_start_drops_the_later(tmp_path):
    clean_step(tmp_path / "run")
    write(tmp_path / "run", "recommend", recommendations="lists")
    assert {"events.parquet", "recommendations.parquet"} <= set(names(tmp_path / "run"))
    clean_step(tmp_path / "run", "again")
    assert "recommendations.parquet" not in names(tmp_path / "run")
    assert set(Run.open(tmp_path / "run").steps) == {"clean"}


def test_a_step_never_writes_through_to_the_old_folders_files(tmp_path):
    clean_step(tmp_path / "run", "old")
    with pytest.raises(RuntimeError):
        write_then_fail(tmp_path / "run", "fit", "vocab.parquet")
    assert (tmp_path / "run" / "vocab.parquet").read_text() == "old"


def test_steps_after_fit_stand_beside_each_other(tmp_path):
    clean_step(tmp_path / "run")
    write(tmp_path / "run", "recommend", recommendations="lists")
    with writing(tmp_path / "run", "evaluate", {}) as new:
        (new / "evaluation.json").write_text("{}")
        (new / "evaluation.md").write_text("")
    assert (tmp_path / "run" / "recommendations.parquet").read_text() == "lists"


def test_a_replacement_killed_between_its_renames_is_put_right(tmp_path):
    clean_step(tmp_path / "run", "old")
    (tmp_path / "run").rename(tmp_path / ".run.old")
    assert Run.open(tmp_path / "run").steps.keys() == {"clean"}
    assert (tmp_path / "run" / "events.parquet").read_text() == "old"


def test_a_replacement_killed_after_its_renames_leaves_no_rubbish(tmp_path):
    clean_step(tmp_path / "run", "new")
    (tmp_path / ".run.old").mkdir()
    (tmp_path / ".run.new-killed").mkdir()
    write(tmp_path / "run", "recommend", recommendations="lists")
    assert sorted(os.listdir(tmp_path)) == [".run.lock", "run"]


def test_a_kill_inside_the_swap_loses_nothing(tmp_path, monkeypatch):
    clean_step(tmp_path / "run", "old")
    monkeypatch.setattr(run_module.shutil, "rmtree", lambda *a, **k: None)
    real, calls = run_module.Path.rename, []

    def die_at_second(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(run_module.Path, "rename", die_at_second)
    with pytest.raises(KeyboardInterrupt):
        clean_step(tmp_path / "run", "new")
    monkeypatch.undo()
    assert Run.open(tmp_path / "run").require("clean") is not None
    assert (tmp_path / "run" / "events.parquet").read_text() == "old"


def test_a_folder_that_is_not_a_run_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(influent.RunFolderError, match="exists and is not a run folder. Choose another place"):
        clean_step(tmp_path / "photos")
    assert names(tmp_path / "photos") == ["cat.jpg"]
    with pytest.raises(influent.RunFolderError, match=r"is not a run folder \(no run.json\)"):
        Run.open(tmp_path / "photos")


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / "run").mkdir()
    clean_step(tmp_path / "run")
    assert Run.open(tmp_path / "run").require("clean")["settings"] == {}


def test_a_run_from_a_newer_version_is_refused(tmp_path):
    clean_step(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "run.json").read_text()) | {"format_version": FORMAT_VERSION + 1}
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(influent.RunFolderError, match="was written by a newer version"):
        Run.open(tmp_path / "run")
    with pytest.raises(influent.RunFolderError, match="newer version"):
        clean_step(tmp_path / "run")


def test_a_missing_step_or_file_is_named(tmp_path):
    with pytest.raises(influent.RunFolderError, match="there is no run folder"):
        Run.open(tmp_path / "run")
    clean_step(tmp_path / "run")
    with pytest.raises(influent.RunFolderError, match=r"has no fit step yet. Run: influent fit"):
        Run.open(tmp_path / "run").require("fit")
    (tmp_path / "run" / "sequences.parquet").unlink()
    with pytest.raises(influent.RunFolderError, match="lacks sequences.parquet"):
        Run.open(tmp_path / "run").require("clean")


def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("of somebody")
    for place in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(influent.RunFolderError, match=r"cannot be written.*Not a directory.*Make that writable"):
            check_place(place)
    clean_step(tmp_path / "run")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert Run.open(tmp_path / "run").steps  # reading needs no more than it did
    with pytest.raises(influent.RunFolderError, match=r"cannot be written.*\(Permission denied\)"):
        Run.open(tmp_path / "run", writes=True)


def test_a_step_of_what_was_replaced_meanwhile_is_refused(tmp_path):
    clean_step(tmp_path / "run", "old")
    read = Run.open(tmp_path / "run")
    clean_step(tmp_path / "run", "new")
    with pytest.raises(influent.RunFolderError, match="was run again meanwhile"):
        write_of(read, "fit")
    assert (tmp_path / "run" / "events.parquet").read_text() == "new"


def write_of(read, step):
    with writing(read.folder, step, {}, stands_on=read) as new:
        (new / "model.safetensors").write_text("of the old events")


def test_two_fits_do_not_share_a_run_folder(tmp_path):
    with fitting(tmp_path / "run"), pytest.raises(influent.RunFolderError, match="another fit is running"):
        fitting(tmp_path / "run").__enter__()


def test_a_checkpoint_is_kept_when_a_fit_fails_and_cleared_when_it_ends(tmp_path):
    with contextlib.suppress(RuntimeError), fitting(tmp_path / "run") as checkpoint:
        checkpoint.write_text("three epochs")
        raise RuntimeError
    assert checkpoint_of(tmp_path / "run").read_text() == "three epochs"
    with fitting(tmp_path / "run"):
        pass
    assert not checkpoint_of(tmp_path / "run").exists()


def test_a_run_folder_behind_a_link_is_replaced_where_it_is(tmp_path):
    clean_step(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    clean_step(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "events.parquet").read_text() == "new"
    write(tmp_path / "link", "recommend", recommendations="lists")
    assert "recommendations.parquet" in names(tmp_path / "real")


def test_the_folder_one_stands_in_is_not_replaced(tmp_path, monkeypatch):
    clean_step(tmp_path / "run", "old")
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(influent.RunFolderError, match=r"is where you are.*Go out of it: cd \.\."):
        clean_step(".")
    assert (tmp_path / "run" / "events.parquet").read_text() == "old"
