"""What can be wrong with the texts of a run folder: one line says so, whoever has changed them, and how."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trpo_lessons
from trpo_lessons import cli, training
from trpo_lessons.bench import record
from trpo_lessons.training.running.run_folder import RunFolder, is_recorded
from trpo_lessons.viewing import watching

SMALL: dict[str, Any] = {
    "iterations": 2,
    "steps_per_iteration": 64,
    "num_envs": 4,
    "hidden": (8,),
    "value_hidden": (8,),
}
ZOO = Path(trpo_lessons.__file__).parent / "zoo"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    training.train(training.preset("cartpole", "smoke", threads=1, **SMALL), folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refusal(use: Callable[[], object]) -> str:
    with pytest.raises(training.RunError) as error:
        use()
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# ---- config.json ----------------------------------------------------------------------------------------------------

SETTING_VALUES = ("null", "true", "-1", "1e400", "NaN", "9" * 4000, "9" * 9000, '"x\\ny"', "[]", '[{"a": 1}]', "{}",
                  "[" * 3000 + "]" * 3000)  # fmt: skip


@pytest.mark.parametrize("value", SETTING_VALUES, ids=lambda value: value[:9])
@pytest.mark.parametrize("name", ["task", "preset", "gamma", "hidden", "iterations", "num_envs", "env_kwargs", "seed"])
def test_a_setting_of_another_type_works_or_is_told_in_one_line(name: str, value: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["settings"][name] = "HERE"
    (folder / "config.json").write_text(json.dumps(config).replace('"HERE"', value))
    works = {("hidden", "[]"), ("env_kwargs", "null")}
    if (name, value) in works:
        RunFolder(folder).config()
    else:
        assert str(folder) in refusal(RunFolder(folder).config)


@pytest.mark.parametrize(
    "text",
    ["[]", "5", '"text"', "null", '{"format": [], "settings": 1}', "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\0"],
)
def test_a_config_that_is_no_object(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    for use in (training.load_run, training.resume, training.differences):
        assert "config.json" in refusal(lambda use=use: use(folder))


@pytest.mark.parametrize("name", ["settings", "environment"])
@pytest.mark.parametrize("value", [None, [], "text", 5, {}])
def test_parts_of_another_type(name: str, value: object, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    if (name, value) == ("environment", {}):
        training.resume(folder, iterations=3)
    else:
        assert "is damaged" in refusal(lambda: training.resume(folder))


def test_a_byte_order_mark_is_no_damage(folder: Path) -> None:
    for name in ("config.json", "progress.csv"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert training.resume(folder, iterations=3)[0].iteration == 3
    assert len(RunFolder(folder).rows_of(3)) == 3


# ---- progress.csv ---------------------------------------------------------------------------------------------------


def lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "missing": (lambda _: None, "progress.csv is missing"),
    "empty": (lambda _: b"", "progress.csv has 0 of 2 rows"),
    "header alone": (lambda text: lines(text)[0], "progress.csv has 0 of 2 rows"),
    "a row lost": (lambda text: b"".join(lines(text)[:2]), "progress.csv has 1 of 2 rows"),
    "the first row lost": (lambda text: b"".join([lines(text)[0], *lines(text)[2:]]), "progress.csv has 1 of 2 rows"),
    "cut short": (lambda text: text[: -len(lines(text)[-1]) // 2], "progress.csv is damaged (row 2 is not whole)"),
    "semicolons": (lambda text: text.replace(b",", b";"), "its columns are parted by semicolons"),
    "other columns": (lambda text: text.replace(b"iteration", b"epoch"), "it has other columns"),
    "no text": (lambda _: b"\xff\xfe\x00", "progress.csv is damaged ("),
    "a folder": (lambda _: b"folder", "progress.csv is damaged ("),
}


@pytest.mark.parametrize(("change", "told"), DAMAGE.values(), ids=DAMAGE)
def test_a_log_that_is_changed_is_told_by_all_who_need_it(
    change: Callable[[bytes], bytes | None], told: str, folder: Path, tmp_path: Path
) -> None:
    path = folder / "progress.csv"
    new = change(path.read_bytes())
    path.unlink()
    if new == b"folder":
        path.mkdir()
    elif new is not None:
        path.write_bytes(new)
    before = {each: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    run = training.load_run(folder)  # which does not need it
    assert training.evaluate(run, 1).lengths[0] > 0
    assert told in refusal(lambda: training.resume(folder, iterations=3))
    assert told in refusal(lambda: record.record(folder, tmp_path / "kept", 1))
    assert "progress.csv" in refusal(lambda: watching.draw_learning_curve(run, tmp_path))
    assert {each: each.read_bytes() for each in folder.iterdir() if each.is_file()} == before


@pytest.mark.parametrize(
    "change", [lambda data: data[:-9], lambda data: data[:40] + b"?" + data[41:], lambda _: b"", lambda _: b"no gzip"]
)
def test_a_compressed_log_that_is_changed_is_told(
    change: Callable[[bytes], bytes], folder: Path, tmp_path: Path
) -> None:
    record.record(folder, tmp_path / "kept", 1)
    (kept,) = (tmp_path / "kept").iterdir()
    run, log = training.load_run(kept), kept / "progress.csv.gz"
    watching.draw_learning_curve(run, tmp_path)
    log.write_bytes(change(log.read_bytes()))
    told = "progress.csv.gz (is damaged|has 0 of 2 rows)"
    assert re.search(told, refusal(lambda: training.resume(kept, iterations=3)))
    assert re.search(told, refusal(lambda: watching.draw_learning_curve(run, tmp_path)))
    assert training.evaluate(run, 1).lengths[0] > 0


def test_a_row_is_not_added_under_other_columns(folder: Path) -> None:
    """Also where the checkpoint does not know which there were: an earlier version has written it."""
    tensors, facts = RunFolder(folder).load_checkpoint()
    del facts["columns"]
    RunFolder(folder).save_checkpoint(tensors, facts)
    path = folder / "progress.csv"
    changed = path.read_bytes().replace(b"mean_return", b"score")
    path.write_bytes(changed)
    assert "has other columns than this version writes" in refusal(lambda: training.resume(folder, iterations=3))
    assert path.read_bytes() == changed
    assert training.load_run(folder).iteration == 2


@pytest.mark.parametrize(
    "change", [(b"total_steps", b"steps"), (b"\n2,128,", b"\n2,many,"), (b"\n2,128,", b"\n2,nan,")]
)
def test_words_where_numbers_belong_are_told(change: tuple[bytes, bytes], folder: Path, tmp_path: Path) -> None:
    path = folder / "progress.csv"
    text = path.read_bytes()
    assert change[0] in text
    path.write_bytes(text.replace(*change))
    assert "progress.csv is damaged" in refusal(lambda: record.record(folder, tmp_path / "kept", 1))
    assert not (tmp_path / "kept").exists()


# ---- both, damaged by chance ----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_by_chance_works_or_is_told_in_one_line(data: st.DataObject, finished: Path, folder: Path) -> None:
    name = data.draw(st.sampled_from(["config.json", "progress.csv"]))
    whole = (finished / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    piece = data.draw(st.binary(max_size=6) | st.sampled_from([b"", b"null", b"1e400", b"[[", b'"', b"-", b"\n", b";"]))
    for each in ("config.json", "progress.csv"):
        shutil.copyfile(finished / each, folder / each)
    (folder / name).write_bytes(whole[:start] + piece + whole[end:])
    for use in (lambda: RunFolder(folder).config(), lambda: RunFolder(folder).rows_of(2)):
        try:
            use()
        except training.RunError as error:
            assert "\n" not in str(error)  # noqa: PT017


# ---- settings from NumPy --------------------------------------------------------------------------------------------


def test_numbers_of_numpy_are_settings_like_any_other(tmp_path: Path) -> None:
    theirs = training.preset(
        "cartpole", "smoke", seed=np.int64(3), iterations=np.int32(1), gamma=np.float64(0.9), normalise_obs=np.bool_(1),
        hidden=np.array([8, 4]), value_hidden=(np.int64(8),), delta=np.array(0.02), threads=np.uint8(1),
    )  # fmt: skip
    ours = training.preset(
        "cartpole", "smoke", seed=3, iterations=1, gamma=0.9, normalise_obs=True, hidden=(8, 4), value_hidden=(8,),
        delta=0.02, threads=1,
    )  # fmt: skip
    assert theirs == ours
    assert json.dumps(theirs.to_json()) == json.dumps(ours.to_json())
    training.train(theirs, tmp_path / "run")
    assert training.load_run(tmp_path / "run").config == ours
    kept = training.preset("gym:CartPole-v1", "smoke", env_kwargs={"max_episode_steps": np.int64(9)}).to_json()
    assert type(kept["env_kwargs"]["max_episode_steps"]) is int
    with pytest.raises(training.SettingError, match=r"at least 1, got 2\.5"):
        training.preset("cartpole", iterations=np.float64(2.5))


# ---- recorded runs --------------------------------------------------------------------------------------------------


def test_a_recorded_run_is_neither_resumed_nor_written_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_recorded(ZOO / "class_preset" / "hopper-seed0")
    assert not is_recorded(folder)
    monkeypatch.setattr("trpo_lessons.training.running.run_folder._RECORDED", folder.parent)  # a zoo of this test's own
    before = {each: each.read_bytes() for each in folder.iterdir()}
    assert "go on in a copy: --out FOLDER" in refusal(lambda: training.resume(folder, iterations=3))
    run = training.load_run(folder)
    monkeypatch.chdir(folder)
    assert "name another with --out" in refusal(lambda: watching.pictures_folder(run))
    assert cli.main(["watch", str(folder), "--seconds", "0.1"]) == 2
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert cli.main(["watch", str(folder), "--seconds", "0.1"]) == 0
    assert sorted(each.name for each in elsewhere.iterdir()) == ["animation.gif", "learning_curve.png"]
    assert {each: each.read_bytes() for each in folder.iterdir()} == before


def test_pictures_go_to_the_run_where_it_may_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training.load_run(folder)
    assert watching.pictures_folder(run) == folder
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != folder)
    assert watching.pictures_folder(run) == Path()
