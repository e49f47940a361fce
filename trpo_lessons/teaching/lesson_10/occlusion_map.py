"""Exercise occlusion_map of lesson 10, Atari."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.special import log_softmax  # type: ignore[import-untyped]

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives
from trpo_lessons.teaching.lesson_10.shared import Floats, agree

LogProbs = Callable[[Floats], Floats]
Map = Callable[[LogProbs, Floats, Floats, int], Floats]
FRAMES, ACTIONS = 2, 4


class View(NamedTuple):
    """What the student's function is given."""

    log_probs: LogProbs
    obs: Floats
    background: Floats
    patch: int


def policy(rng: Generator, height: int, width: int) -> LogProbs:
    """A small network with random weights: [N, frames, height, width] to log probabilities [N, actions]."""
    first = rng.normal(size=(FRAMES * height * width, 12)) / 5
    second = rng.normal(size=(12, ACTIONS))
    return lambda obs: np.asarray(log_softmax(np.tanh(obs.reshape(len(obs), -1) @ first) @ second, axis=1))


def view(rng: Generator) -> View:
    """Two frames of 4 x 6 pixels, covered in patches of 2 x 2."""
    obs = rng.normal(size=(FRAMES, 4, 6))
    return View(policy(rng, 4, 6), obs, rng.normal(size=(4, 6)), 2)


occlusion_map = Check("occlusion_map", minutes=12, inputs=view, arguments=View)


def covered(v: View, row: int, column: int) -> Floats:
    """The observation with one patch of all frames as the background has it."""
    found = v.obs.copy()
    place = np.s_[:, row : row + v.patch, column : column + v.patch]
    found[place] = np.broadcast_to(v.background, v.obs.shape)[place]
    return found


def corners(v: View) -> tuple[range, range]:
    """The first rows and the first columns of the patches."""
    return range(0, v.obs.shape[1], v.patch), range(0, v.obs.shape[2], v.patch)


def kl(one: Floats, other: Floats) -> float:
    """KL(one || other) of two rows of log probabilities, in nats."""
    return float((np.exp(one) * (one - other)).sum())


def mapped(v: View, difference: Callable[[Floats, Floats], float], cover: Callable[..., Floats] = covered) -> Floats:
    """A map of `difference(log probs of the whole, log probs of the covered observation)`."""
    rows, columns = corners(v)
    whole = v.log_probs(v.obs[None])[0]
    return np.array([[difference(whole, v.log_probs(cover(v, r, c)[None])[0]) for c in columns] for r in rows])


@occlusion_map.property("A policy that does not look at the observation should give a map of zeros.")
def blind_policies(student: Map, rng: Generator) -> bool:
    _, obs, background, patch = view(rng)
    fixed = log_softmax(rng.normal(size=ACTIONS))
    return survives(
        lambda: agree(student(lambda x: np.tile(fixed, (len(x), 1)), obs, background, patch), [[0] * 3] * 2)
    )


@occlusion_map.property("Where the observation is the background already, covering it should change nothing.")
def nothing_to_cover(student: Map, rng: Generator) -> bool:
    log_probs, obs, background, patch = view(rng)
    obs[:, 2:, 4:] = background[2:, 4:]
    return survives(lambda: abs(float(student(log_probs, obs, background, patch)[1, 2])) < 1e-12)


@occlusion_map.property("A KL is never negative, and neither should an entry be.")
def never_negative(student: Map, rng: Generator) -> bool:
    return survives(lambda: bool((student(*view(rng)) > -1e-12).all()))


@occlusion_map.property("A policy that looks at one pixel alone should give one entry above 0, at its patch.")
def looks_at_one_pixel(student: Map, rng: Generator) -> bool:
    _, obs, background, patch = view(rng)
    direction = rng.normal(size=ACTIONS)
    frame, row, column = (int(rng.integers(length)) for length in obs.shape)
    found = student(lambda x: log_softmax(x[:, frame, row, column, None] * direction, axis=1), obs, background, patch)
    place = row // patch, column // patch
    return survives(lambda: [tuple(each) for each in np.argwhere(np.asarray(found) > 1e-12)] == [place])


@occlusion_map.property(
    "Where a covered patch turns a policy of two actions from 1/2, 1/2 into 1/4, 3/4, the entry should be "
    "1/2 log 2 + 1/2 log 2/3, in nats. Each logarithm of a ratio has the weight of its action, and they are added up."
)
def two_actions(student: Map, rng: Generator) -> bool:
    _, obs, background, patch = view(rng)
    obs[0, 0, 0], background[0, 0] = 0.0, 1.0
    even, tilted = np.log([0.5, 0.5]), np.log([0.25, 0.75])

    def log_probs(seen: Floats) -> Floats:
        return np.where(seen[:, 0, 0, :1] == 0.0, even, tilted)

    return survives(lambda: agree(student(log_probs, obs, background, patch)[0, 0], np.log(4 / 3) / 2))


@occlusion_map.property(
    "Frames that are no multiple of the patch go wrong: the last row and the last column of patches are cut short.",
    edge=True,
)
def patches_cut_short(student: Map, rng: Generator) -> bool:
    v = View(policy(rng, 5, 7), rng.normal(size=(FRAMES, 5, 7)), rng.normal(size=(5, 7)), 2)
    return survives(lambda: agree(student(*v), mapped(v, kl)))


@occlusion_map.property("Patches of another size than 2 x 2 go wrong.", edge=True)
def larger_patches(student: Map, rng: Generator) -> bool:
    v = view(rng)._replace(patch=int(rng.integers(3, 5)))
    return survives(lambda: agree(student(*v), mapped(v, kl)))


@occlusion_map.mistake(
    "order",
    "You compute KL(covered || whole); tempting, because the covered one is the news. The expectation is taken under "
    "the policy that really acts, the one that sees everything: KL(whole || covered).",
)
def reversed_kl(v: View) -> Floats:
    return mapped(v, lambda whole, cover: kl(cover, whole))


@occlusion_map.mistake(
    "concept",
    "You cover with zeros; tempting, because 0 is black. A black hole is a thing to be seen, like a paddle. Cover with "
    "`background`, so that what was there is gone and nothing new is.",
)
def covers_with_zeros(v: View) -> Floats:
    return mapped(v._replace(background=np.zeros_like(v.background)), kl)


@occlusion_map.mistake(
    "concept",
    "You cover the newest frame alone; tempting, because it is what is seen now. The older frames still show the ball, "
    "a little behind: cover the patch in all of them.",
)
def newest_frame_alone(v: View) -> Floats:
    def cover(v: View, row: int, column: int) -> Floats:
        found = covered(v, row, column)
        found[:-1] = v.obs[:-1]
        return found

    return mapped(v, kl, cover)


@occlusion_map.mistake(
    "concept",
    "Your patches stay covered; tempting, because the loop goes on with the same array. The last entry then tells of "
    "an observation with nothing left in it: begin with a fresh copy for each patch.",
)
def stays_covered(v: View) -> Floats:
    seen = v.obs.copy()

    def cover(v: View, row: int, column: int) -> Floats:
        seen[:] = covered(v._replace(obs=seen), row, column)
        return seen

    return mapped(v, kl, cover)


@occlusion_map.mistake(
    "concept",
    "You cover everything but the patch; tempting, because 'what does this patch alone say' is a question too. It is "
    "another one: what is left is no picture of the game.",
)
def shows_the_patch_alone(v: View) -> Floats:
    def cover(v: View, row: int, column: int) -> Floats:
        empty = v._replace(obs=np.broadcast_to(v.background, v.obs.shape).copy(), background=v.obs)
        return covered_by_stack(empty, row, column)

    return mapped(v, kl, cover)


def covered_by_stack(v: View, row: int, column: int) -> Floats:
    """As `covered`, with a background of its own for every frame."""
    found = v.obs.copy()
    place = np.s_[:, row : row + v.patch, column : column + v.patch]
    found[place] = v.background[place]
    return found


@occlusion_map.mistake(
    "concept",
    "You look at the most likely action alone; tempting, because it is the one that will be taken. Sampled actions are "
    "all taken now and then: the KL minds every one of them.",
)
def most_likely_action(v: View) -> Floats:
    return mapped(v, lambda whole, cover: float(abs(np.exp(whole) - np.exp(cover))[whole.argmax()]))


@occlusion_map.mistake(
    "concept",
    "You add up how far probabilities move; tempting, because that is a distance as well, and half of it is the total "
    "variation. A rare action that becomes impossible hardly moves it, and moves the KL: use the KL.",
)
def total_variation(v: View) -> Floats:
    return mapped(v, lambda whole, cover: float(abs(np.exp(whole) - np.exp(cover)).sum()))


@occlusion_map.mistake(
    "conditioning",
    "You compare each covered observation with the empty background; tempting, because both are made up. Compare it "
    "with what the policy does when it sees everything.",
)
def compared_with_nothing(v: View) -> Floats:
    nothing = v.log_probs(np.broadcast_to(v.background, v.obs.shape)[None].copy())[0]
    return mapped(v, lambda _, cover: kl(nothing, cover))


@occlusion_map.mistake(
    "numerics",
    "You take logarithms of probabilities to which a small number was added; tempting, because log(0) is minus "
    "infinity. What `log_probs` gives is finite already, and the KL of anything else is not the policy's.",
)
def small_number_in_the_logs(v: View) -> Floats:
    def moved(log_probs: Floats) -> Floats:
        return np.asarray(np.log(np.exp(log_probs) + 1e-8))

    return mapped(v, lambda whole, cover: float((np.exp(whole) * (moved(whole) - moved(cover))).sum()))


@occlusion_map.mistake(
    "sign",
    "Your map is negative; tempting, because log p' - log p is what was lost. KL(whole || covered) is the mean of "
    "log p(whole) - log p(covered).",
)
def negative(v: View) -> Floats:
    return -mapped(v, kl)


@occlusion_map.mistake(
    "concept",
    "You return the change of the entropy; tempting, because a policy that misses something should be less sure. It "
    "may as well be sure of another action, and then the entropy stays: use the KL.",
)
def change_of_entropy(v: View) -> Floats:
    def entropy(log_probs: Floats) -> float:
        return -float((np.exp(log_probs) * log_probs).sum())

    return mapped(v, lambda whole, cover: abs(entropy(cover) - entropy(whole)))
