"""The comparison of figure 4: from runs to choices, and from kept scores to intervals."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons import training
from trpo_lessons.bench import figure_4
from trpo_lessons.bench import figure_4_results as results
from trpo_lessons.bench.compare import compare
from trpo_lessons.bench.curves import kept_curves
from trpo_lessons.teaching.lesson_08.recorded_runs import WITH_RETURNS as KEPT_RETURNS
from trpo_lessons.training import RunError
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.style import new_figure

ROOT = Path(__file__).parents[1]


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    rng = np.random.default_rng(0)
    tasks = [rng.normal(size=4) for _ in range(3)]
    middle = np.sort(np.concatenate(tasks))[3:9]
    assert results.interquartile_mean(*tasks) == pytest.approx(middle.mean())
    # one that failed and one that was lucky change nothing
    tasks[0][tasks[0].argmin()] = min(map(np.min, tasks)) - 100
    tasks[1][tasks[1].argmax()] = max(map(np.max, tasks)) + 100
    kept = np.sort(np.concatenate(tasks))[3:9]
    assert results.interquartile_mean(*tasks) == pytest.approx(kept.mean())
    assert kept.mean() == pytest.approx(middle.mean(), abs=2)


SURE = [np.ones(5)] * 3  # a reference without spread


def test_bootstrap_draws_seeds_within_tasks() -> None:
    # Tasks whose seeds agree cannot spread, however far the tasks are apart: only draws across tasks would.
    apart = [np.full(5, level) for level in (0.2, 1.0, 3.0)]
    found = results.aggregate(apart, SURE)
    assert found.low == found.value == found.high
    one_spreads = [np.full(5, 0.2), np.linspace(0.9, 1.1, 5), np.full(5, 3.0)]
    found = results.aggregate(one_spreads, SURE)
    assert 0.2 < found.low < found.value < found.high < 3.0
    assert found.high - found.low < 0.5


def test_scores_are_in_units_of_the_reference() -> None:
    rng = np.random.default_rng(4)
    tasks, references = ([rng.normal(1, 0.2, size=5) for _ in range(3)] for _ in range(2))
    found = results.aggregate(tasks, references)
    by_hand = np.sort(np.concatenate([x / y.mean() for x, y in zip(tasks, references, strict=True)]))
    assert found.value == pytest.approx(by_hand[3:-3].mean())
    other_units = [
        (task * k, reference * k) for task, reference, k in zip(tasks, references, (1, 10, 300), strict=True)
    ]
    assert results.aggregate(*zip(*other_units, strict=True)).low == pytest.approx(found.low)  # type: ignore[arg-type]


def test_an_uncertain_reference_widens_the_interval() -> None:
    rng = np.random.default_rng(5)
    tasks = [rng.normal(1, 0.1, size=5) for _ in range(3)]
    uncertain = [np.linspace(0.5, 1.5, 5)] * 3
    sure, unsure = results.aggregate(tasks, SURE), results.aggregate(tasks, uncertain)
    assert sure.value == pytest.approx(unsure.value)
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low)


def test_interval_is_wider_than_the_plain_bootstrap_by_what_few_seeds_hide() -> None:
    rng = np.random.default_rng(1)
    tasks = [rng.normal(1, 0.2, size=5) for _ in range(3)]
    found = results.aggregate(tasks, SURE, seed=3)
    plain = stats.bootstrap(
        (*tasks, *SURE),
        results.relative_mean,
        n_resamples=results.RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert found.high - found.low == pytest.approx((plain.high - plain.low) * np.sqrt(5 / 4))


def test_intervals_of_the_aggregate_cover() -> None:
    rng = np.random.default_rng(2)

    def draw() -> tuple[list[np.ndarray], list[np.ndarray]]:
        own = [rng.normal(level, spread, size=5) for level, spread in ((1.0, 0.2), (0.8, 0.3), (0.9, 0.1))]
        return own, [rng.normal(1.0, spread, size=5) for spread in (0.2, 0.15, 0.1)]

    truth = np.mean([results.relative_mean(*own, *others) for own, others in (draw() for _ in range(4000))])
    found = [results.aggregate(*draw(), resamples=499) for _ in range(200)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    error = np.sqrt(0.95 * 0.05 / 200)
    assert 0.95 - 3 * error < covered < 0.95 + 3 * error


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        results.aggregate([np.ones(5), np.ones(1)], [np.ones(5)] * 2)


def test_where_one_method_always_scores_the_same_the_spread_is_that_of_the_other() -> None:
    others = np.array([500.0, 500, 500, 31, 500])
    with warnings.catch_warnings(action="error"):
        found = compare("barto-cartpole", [500.0] * 5, others.tolist())
    half = stats.t.ppf(0.975, 4) * others.std(ddof=1) / 5**0.5
    middle = 500 - others.mean()
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison in miniature, of TRPO with two deltas on one robot, and by both schemes on the cart-pole."""
    out = tmp_path_factory.mktemp("figure") / "out"
    with pytest.MonkeyPatch.context() as patch:
        _shrink(patch)
        figure_4.run(out, ("swimmer",), workers=2)
    return out


def _shrink(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(figure_4, "GRIDS", {"trpo": ("delta", (0.003, 0.1))})
    patch.setattr(figure_4, "METHODS", ("trpo", "vine"))
    patch.setattr(figure_4, "SEEDS", (0, 1))
    patch.setattr(figure_4, "TUNING_STEPS", 4096)
    patch.setattr(figure_4, "STEPS", 8192)
    patch.setattr(figure_4, "CARTPOLE_STEPS", 4096)
    patch.setattr(figure_4, "EPISODES", 3)
    patch.setattr(figure_4, "RETURNS_SEEDS", (0,))
    patch.setattr(figure_4, "WITH_RETURNS", {"trpo": {"delta": (0.01, 0.03), "value_hidden": [()]}})


def test_everything_is_trained_once(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _shrink(monkeypatch)
    finals = {path.parent.name for path in (compared / "finals").glob("*/config.json")}
    best = f"{figure_4.chosen(compared / 'tuning', 'swimmer')['trpo']:g}"
    assert finals == {
        *(f"swimmer-trpo-delta={best}-seed{seed}" for seed in (0, 1)),
        *(f"barto-cartpole-{method}-seed{seed}" for method in ("trpo", "trpo-vine") for seed in (0, 1)),
    }
    scores = json.loads((compared / "finals" / "scores.json").read_text())
    assert scores.keys() == finals
    for name in finals:
        run = training.load_run(compared / "finals" / name)
        assert scores[name]["mean"] == pytest.approx(training.evaluate(run, 3).mean, rel=1e-12)
    monkeypatch.setattr(training, "evaluate", lambda *_: pytest.fail("scored again"))
    before = {path: path.stat().st_mtime_ns for path in compared.rglob("checkpoint.safetensors")}
    figure_4.run(compared, ("swimmer",), workers=2)
    assert {path: path.stat().st_mtime_ns for path in compared.rglob("checkpoint.safetensors")} == before


def test_a_run_that_is_still_being_trained_has_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A score is kept and not measured again: that of a policy half-way would stay, and choose a setting.
    monkeypatch.setattr(figure_4, "EPISODES", 2)
    config = training.preset("barto-cartpole", "smoke", iterations=3, threads=1)
    training.train(config, tmp_path / "begun", stop_after=1e-9)
    training.train(config, tmp_path / "done")
    assert figure_4.scores(tmp_path).keys() == {"done"}
    finished, _ = training.resume(tmp_path / "begun")
    assert figure_4.scores(tmp_path)["begun"].mean == training.evaluate(finished, 2).mean


def test_the_value_that_scored_best_is_chosen(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _shrink(monkeypatch)
    tried = figure_4.tuned(compared / "tuning", "swimmer")
    assert {method: list(values) for method, values in tried.items()} == {"trpo": [0.003, 0.1]}
    assert figure_4.chosen(compared / "tuning", "swimmer")["trpo"] == max(tried["trpo"], key=tried["trpo"].__getitem__)
    assert 100 not in figure_4.SEEDS, "chosen on other seeds than those that are reported"


def test_kept_runs_tell_the_same_as_their_folders(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shrink(monkeypatch)
    monkeypatch.setattr(figure_4, "ROBOTS", ("swimmer",))
    figure_4.keep(compared, tmp_path)
    runs = results.kept_runs(tmp_path)
    assert runs.keys() == {("swimmer", "trpo"), ("barto-cartpole", "trpo"), ("barto-cartpole", "vine")}
    scores = json.loads((compared / "finals" / "scores.json").read_text())
    assert results.scores_of(runs, "barto-cartpole", "vine").tolist() == [
        scores[f"barto-cartpole-trpo-vine-seed{seed}"]["mean"] for seed in (0, 1)
    ]
    assert [run.seed for run in runs["barto-cartpole", "vine"]] == [0, 1]
    returns = kept_curves(tmp_path / "returns")
    assert [run.facts["settings"]["delta"] for run in returns.values()] == [0.01, 0.03]
    assert all(np.isnan(run["explained_variance"]).all() for run in returns.values()), "there is no value function"
    tuning = json.loads((tmp_path / "tuning.json").read_text())
    assert tuning["seeds"] == [100]
    scored = tuning["tried"]["swimmer"]["trpo"]["scores"]
    assert scored.keys() == {"0.003", "0.1"}
    best = max(scored, key=scored.__getitem__)
    assert results.tried(tmp_path).count("[") == 1
    assert f"[{best}:{scored[best]:.0f}]" in results.tried(tmp_path)
    log = RunFolder(compared / "tuning" / f"swimmer-trpo-delta={best}-seed100").rows()
    assert results.tried_curve_end("swimmer", "trpo", float(best), tmp_path) == float(log[-1]["mean_return"])
    assert f"swimmer-trpo-delta={best}-seed0" in kept_curves(tmp_path)


def test_what_was_not_trained_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        figure_4.keep(tmp_path / "nothing", tmp_path / "kept")


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ({"interrupted": True, "failed": []}, "the same command goes on"),
        ({"interrupted": False, "failed": [SimpleNamespace(name="swimmer-seed1", line="no room")]}, "seed1: no room"),
    ],
)
def test_what_ended_early_is_told(
    ended: dict[str, object], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "sweep", lambda *_, **__: SimpleNamespace(**ended))
    with pytest.raises(RunError, match=told):
        figure_4.run(tmp_path, ("swimmer",))


def test_mean_curve_is_the_mean_where_all_seeds_are_known() -> None:
    def run(steps: list[float], returns: list[float], seed: int) -> results.Kept:
        columns = {"total_steps": np.array(steps), "mean_return": np.array(returns)}
        return results.Kept(results.Curves({"settings": {"seed": seed}}, columns), 0.0)

    steps, mean = results.mean_curve([run([0, 10], [0, 10], 0), run([0, 2, 8], [np.nan, 4, 16], 1)], points=7)
    np.testing.assert_allclose(steps, np.arange(2, 9))
    np.testing.assert_allclose(mean, (np.arange(2, 9) + 2 * np.arange(2, 9)) / 2)


def test_every_seed_is_a_line_and_a_method_a_thick_one(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRPO's seeds once: where it stands for comparison alone, its mean does."""
    _shrink(monkeypatch)
    monkeypatch.setattr(figure_4, "ROBOTS", ("swimmer",))
    figure_4.keep(compared, tmp_path)
    figure = new_figure(10, 6)
    results.draw(figure, tmp_path)
    by_path, searches = (
        {axes.get_title() or task: axes for axes, task in zip(row, results.TASKS, strict=True)}
        for row in np.array(figure.axes).reshape(2, -1)
    )
    assert {task: len(axes.lines) for task, axes in by_path.items()} == {
        "barto-cartpole": 2 * (2 + 1), "swimmer": 2 + 1, "hopper": 0, "walker": 0
    }  # fmt: skip
    assert {task: len(axes.lines) for task, axes in searches.items()} == {
        "barto-cartpole": 1, "swimmer": 1, "hopper": 0, "walker": 0
    }  # fmt: skip
    assert results.drawn(tmp_path).startswith(b"\x89PNG")


# ---- what comes with the package -------------------------------------------------------------------------------------


def test_the_whole_comparison_is_kept() -> None:
    """Every task, method and seed, at equal simulator steps to within a population's generation."""
    runs = results.kept_runs()
    assert {key: [run.seed for run in each] for key, each in runs.items()} == {
        (task, method): list(figure_4.SEEDS)
        for task in results.TASKS
        for method in results.METHODS
        if method != "max-kl" or task == figure_4.CARTPOLE
    }
    for (task, method), each in runs.items():
        budget = figure_4.CARTPOLE_STEPS if task == figure_4.CARTPOLE else figure_4.STEPS
        for run in each:
            steps = run.curves["total_steps"]
            assert 0.98 * budget < steps[-1] < 1.07 * budget, (task, method, run.seed)
            assert len(steps) <= 100
    returns = [run.facts["settings"] for run in kept_curves(KEPT_RETURNS).values()]
    assert len(returns) == len(figure_4.RETURNS_SEEDS) * sum(
        len(settings[figure_4.GRIDS[method][0]]) for method, settings in figure_4.WITH_RETURNS.items()
    )
    assert sum(path.stat().st_size for path in results.KEPT.rglob("*")) < 3_000_000


def test_settings_were_chosen_on_other_seeds_than_those_that_are_reported() -> None:
    tuning = json.loads((results.KEPT / "tuning.json").read_text())
    assert not set(tuning["seeds"]) & set(figure_4.SEEDS)
    for (task, method), each in results.kept_runs().items():
        if task in results.ROBOTS:
            setting, grid = figure_4.GRIDS[method]
            tried = tuning["tried"][task][method]
            scores = {float(value): score for value, score in tried["scores"].items()}
            assert tried["setting"] == setting
            assert sorted(scores) == sorted(grid)
            assert {run.curves.facts["settings"][setting] for run in each} == {max(scores, key=scores.__getitem__)}


def test_methods_with_advantages_differ_in_nothing_but_the_method() -> None:
    own = {setting for setting, _ in figure_4.GRIDS.values()} | {"method", "seed", "sampling"}
    sampled = {"num_envs", "vine_states", "vine_branches", "rollout_length", "fisher_stride", "value_stride"}
    sampled |= {"iterations", "steps_per_iteration"}
    by_task: dict[str, list[dict[str, object]]] = {}
    for (task, method), each in results.kept_runs().items():
        if method not in ("cem", "cma"):
            left_out = own | {"fit_iterations"} | (sampled if method == "vine" else set())
            for run in each:
                settings = run.curves.facts["settings"]
                by_task.setdefault(task, []).append({k: v for k, v in settings.items() if k not in left_out})
    for task, every in by_task.items():
        whole = max(every, key=len)
        assert all(settings.items() <= whole.items() for settings in every), task


def test_table_and_what_was_tried_name_every_score() -> None:
    table, tried = results.table(), results.tried()
    assert sum(table.count(label) for label in results.LABELS.values()) == 9 + 3 * 8 + 8
    for each in results.kept_runs().values():
        assert ", ".join(f"{run.score:.0f}" for run in each) in table
    assert tried.count("[") == len(results.ROBOTS) * len(figure_4.GRIDS)
    assert (results.KEPT / figure_4.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_readme_shows_the_number_for_all_robots() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    rows = results.table().splitlines()
    first = next(i for i, row in enumerate(rows) if row.startswith("three robots")) + 2
    for row in rows[first:]:
        numbers = row.replace("0.", ".").split()
        told = numbers[-1] if "to" not in numbers else f"{numbers[-4]} ({numbers[-3]} to {numbers[-1]})"
        assert told in readme, row
