"""Letters are shuffled by the seed, and an answer is judged about the line-up it was given for."""

from __future__ import annotations

from collections import Counter

import pytest

from trpo_lessons.teaching.checks.hunting import HuntCheck
from trpo_lessons.teaching.checks.hunts import HEALTHY, Hunt
from trpo_lessons.teaching.lesson_05.check import culprits as lesson_check

HUNT = Hunt(("too long", "too short", "too late", "too early"), lambda name: f"traces of {name}")


def no_arguments(_rng):
    return ()


def make_check():
    check = HuntCheck("culprits", hunt=HUNT, minutes=5, inputs=no_arguments)
    check.reference = HUNT.truth  # type: ignore[misc]
    check.hint("too long", "Measure it.")
    check.hint("too short", "Measure it again.")
    check.confusion("too long", "too short", "order", "tempting, because both have the wrong length.")
    return check


def test_seeds_shuffle_the_letters_evenly():
    behind_a = Counter(HUNT.truth(seed)["A"] for seed in range(400))
    assert set(behind_a) == set(HUNT.bugs)
    assert all(abs(count - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5 for count in behind_a.values())
    assert HUNT.truth(3) == HUNT.truth(3)


def test_a_lineup_shows_everybody_s_evidence_and_the_healthy_first():
    lineup = HUNT.lineup(1)
    assert list(lineup) == [HEALTHY, "A", "B", "C", "D"]
    assert lineup[HEALTHY] == "traces of healthy"
    assert {letter: f"traces of {bug}" for letter, bug in HUNT.truth(1).items()} == dict(list(lineup.items())[1:])


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_counts_for_its_own_line_up_and_for_no_other(seed, capsys):
    other = next(s for s in range(100) if all(HUNT.truth(s)[x] != HUNT.truth(seed)[x] for x in HUNT.letters))
    check = make_check()
    check(lambda: HUNT.truth(seed), seed)
    check(lambda: HUNT.truth(other), seed)
    passed, wrong = capsys.readouterr().out.splitlines()
    assert passed == "culprits: passed"
    assert wrong.startswith("culprits: not yet. ")


@pytest.mark.parametrize("seed", range(4))
def test_hints_and_confusions_hold_under_every_seed(seed, capsys):
    check, truth = make_check(), HUNT.truth(seed)
    exchange = {"too long": "too short", "too short": "too long"}
    turned = {"too long": "too late", "too late": "too early", "too early": "too long"}
    for change in (exchange, turned):
        check(lambda change=change: {letter: change.get(bug, bug) for letter, bug in truth.items()}, seed)
    confused, hinted = capsys.readouterr().out.splitlines()
    assert "You took 'too long' and 'too short' for each other; tempting" in confused
    assert "'too long' is somewhere else. Measure it." in hinted


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "returned None"),
        ("A", "returned a str, but a dict is asked for"),
        ({"A": "too long"}, "1 values, but 4 are asked for"),
        (dict.fromkeys("ABCD", "too long"), "use every name once"),
        (dict(zip("abcd", HUNT.bugs, strict=True)), "use every name once"),
        ({1: "too long", "B": "too short", "C": "too late", "D": "too early"}, "use every name once"),
    ],
)
def test_an_answer_of_another_form_is_told_so(answer, said, capsys):
    make_check()(lambda: answer, 2)
    assert said in capsys.readouterr().out


def test_what_is_no_function_and_what_is_not_written_get_their_own_lines(capsys):
    def stub():
        raise NotImplementedError

    make_check()({"A": "too long"})
    make_check()(stub, 7)
    called, unwritten = capsys.readouterr().out.splitlines()
    assert "Hand over the function itself" in called
    assert "not attempted yet (about 5 minutes)" in unwritten


def test_no_line_of_a_lesson_s_hunt_names_a_letter():
    lines = [otherwise for otherwise, _ in lesson_check.properties[1:]] + [m.message for m in lesson_check.mistakes]
    assert not any(f" {letter} " in line or f"{letter}:" in line for line in lines for letter in "BCDE")
