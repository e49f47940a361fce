"""Exercise whole_games of lesson 10, Atari."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives
from trpo_lessons.teaching.lesson_10.shared import Bools, Floats, agree

Scores = Callable[[Floats, Bools, Bools], Floats]


class Record(NamedTuple):
    """What the student's function is given."""

    rewards: Floats
    life_lost: Bools
    game_over: Bools


def record(rng: Generator) -> Record:
    """Three games of three lives each, and the beginning of a fourth; points come in the step that ends a life, too.

    Some points are lost, as in Pong.
    """
    lives = [int(n) for n in rng.integers(4, 9, 10)]
    ends = np.cumsum(lives) - 1
    T = int(ends[-1] + rng.integers(4, 9))
    life_lost, game_over = np.zeros(T, dtype=bool), np.zeros(T, dtype=bool)
    game_over[ends[[2, 5, 8]]] = True
    life_lost[np.setdiff1d(ends, ends[[2, 5, 8]])] = True
    rewards = rng.choice([0.0, 0.0, 1.0, 4.0, 7.0, -2.0], T)
    rewards[ends] = rng.choice([1.0, 4.0, 7.0], len(ends))
    rewards[-2] = 4.0
    return Record(rewards, life_lost, game_over)


whole_games = Check("whole_games", minutes=8, inputs=record, arguments=Record)


@whole_games.property("There should be one score for each game that has ended.")
def one_score_a_game(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    return survives(lambda: np.shape(student(*r)) == (int(r.game_over.sum()),))


@whole_games.property("Where lives are lost should not matter.")
def lives_do_not_matter(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    none = np.zeros_like(r.life_lost)
    return survives(lambda: agree(student(*r), student(r.rewards, none, r.game_over)))


@whole_games.property("All that was scored up to the last end of a game should be counted once.")
def counts_everything_once(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    last = int(np.flatnonzero(r.game_over)[-1])
    return survives(lambda: agree(np.sum(student(*r)), r.rewards[: last + 1].sum()))


@whole_games.property(
    "Scores should be in the order of the games: what is scored in the first game belongs to the first one."
)
def in_order_of_games(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    more = r.rewards.copy()
    more[0] += 1.0
    raised = [1.0] + [0.0] * (int(r.game_over.sum()) - 1)
    return survives(lambda: agree(student(more, *r[1:]) - student(*r), raised))


@whole_games.property("A point that is lost should count as well: Pong's rewards are 1 and -1.")
def points_are_lost(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    return survives(lambda: agree(student(-r.rewards, *r[1:]), -student(*r)))


@whole_games.property("If no game has ended there should be no scores: an array of shape (0,).", edge=True)
def no_game_has_ended(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    none = np.zeros_like(r.game_over)
    return survives(lambda: np.asarray(student(r.rewards, r.life_lost, none)).shape == (0,))


@whole_games.property("Two games that end in steps that follow each other go wrong.", edge=True)
def games_of_one_step(student: Scores, rng: Generator) -> bool:
    rewards, ends = rng.uniform(1, 9, 3), np.array([True, True, False])
    return survives(lambda: agree(student(rewards, np.zeros(3, dtype=bool), ends), rewards[:2]))


@whole_games.property(
    "A record that ends in the step in which a game is over goes wrong: that game has ended, and none goes on.",
    edge=True,
)
def ends_with_a_game(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    whole = int(np.flatnonzero(r.game_over)[-1]) + 1
    return survives(lambda: agree(student(r.rewards[:whole], r.life_lost[:whole], r.game_over[:whole]), student(*r)))


@whole_games.property("A game without a single point goes wrong: its score is 0, and belongs to the list.", edge=True)
def games_of_no_points(student: Scores, rng: Generator) -> bool:
    r = record(rng)
    return survives(lambda: agree(student(np.zeros_like(r.rewards), *r[1:]), np.zeros(int(r.game_over.sum()))))


def cut_after(rewards: Floats, ends: Bools) -> list[Floats]:
    """The rewards of each stretch that has ended."""
    return np.split(rewards, np.flatnonzero(ends) + 1)[:-1]


@whole_games.mistake(
    "termination",
    "You end a game where a life is lost; tempting, because learning was told that it ends there. That is a signal for "
    "the value function. The player goes on, and tables of scores are about whole games: three lives, or five.",
)
def ends_at_lives(r: Record) -> Floats:
    return np.array([stretch.sum() for stretch in cut_after(r.rewards, r.life_lost | r.game_over)])


@whole_games.mistake(
    "concept",
    "You add up the signs of the rewards; tempting, because that is what the update has seen. Signs make games alike "
    "for learning; a score is what the game itself counts.",
)
def sums_of_signs(r: Record) -> Floats:
    return np.array([np.sign(stretch).sum() for stretch in cut_after(r.rewards, r.game_over)])


@whole_games.mistake(
    "termination",
    "You count the game that was still being played; tempting, because its points were scored. Its score is not known "
    "yet, and half a game lowers every mean: leave it out.",
)
def counts_the_unfinished(r: Record) -> Floats:
    return np.array([stretch.sum() for stretch in np.split(r.rewards, np.flatnonzero(r.game_over) + 1)])


@whole_games.mistake(
    "indexing",
    "What was scored in the step that ended a game goes to the next one; tempting, because np.split cuts *before* an "
    "index. That step belongs to the game that it ended.",
)
def last_step_to_the_next(r: Record) -> Floats:
    return np.array([stretch.sum() for stretch in np.split(r.rewards, np.flatnonzero(r.game_over))[:-1]])


@whole_games.mistake(
    "termination",
    "Your score goes on where a new game begins; tempting, because a running sum is one line. Take off what had been "
    "scored when the game before ended.",
)
def never_reset(r: Record) -> Floats:
    return np.asarray(r.rewards.cumsum()[r.game_over])


@whole_games.mistake(
    "concept",
    "You report the score of a game's last life; tempting, because the sum starts anew with each life. A game's score "
    "is that of all its lives together.",
)
def last_life_only(r: Record) -> Floats:
    over = r.game_over[r.life_lost | r.game_over]
    by_life = [stretch.sum() for stretch in cut_after(r.rewards, r.life_lost | r.game_over)]
    return np.array(by_life)[over]


@whole_games.mistake(
    "concept",
    "You report points per life; tempting, because lives are what the learner sees. Published scores are those of "
    "whole games.",
)
def per_life(r: Record) -> Floats:
    games = zip(cut_after(r.rewards, r.game_over), cut_after(r.life_lost.astype(np.float64), r.game_over), strict=True)
    return np.array([points.sum() / (lost.sum() + 1) for points, lost in games])


@whole_games.mistake(
    "conditioning",
    "You report the best game as it stood, game after game; tempting, because players speak of their high score. It "
    "can only rise, and rises with the number of games: keep every score.",
)
def high_score(r: Record) -> Floats:
    return np.maximum.accumulate([stretch.sum() for stretch in cut_after(r.rewards, r.game_over)])


@whole_games.mistake(
    "concept",
    "You discount the rewards; tempting, because learning does. A score is a plain sum: gamma is part of how a policy "
    "is found, not of how it is judged.",
)
def discounted(r: Record) -> Floats:
    return np.array([stretch @ 0.99 ** np.arange(len(stretch)) for stretch in cut_after(r.rewards, r.game_over)])
