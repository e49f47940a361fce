"""Exercise reward_parts of lesson 09, Locomotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_09.shared import Floats, agree

Parts = tuple[float, float, float]
Decompose = Callable[[Floats, Floats, float, float, float, bool], Parts]


class Stretch(NamedTuple):
    """What is handed to `reward_parts`."""

    x: Floats
    actions: Floats
    seconds: float
    healthy: float
    cost: float
    fell: bool

    @property
    def velocities(self) -> Floats:
        """[T], in m/s."""
        return np.diff(self.x) / self.seconds

    @property
    def steps_on_its_feet(self) -> int:
        """In which the bonus is paid."""
        return len(self.actions) - self.fell

    @property
    def right(self) -> Parts:
        """Forward, bonus, motors."""
        motors = -self.cost * float(np.square(self.actions).sum())
        return float(self.velocities.sum()), self.healthy * self.steps_on_its_feet, motors


def episode(rng: Generator, fell: bool | None = None) -> Stretch:
    """Some steps of a robot with two to four motors; it goes back now and then, and some commands are beyond 1."""
    steps, joints = int(rng.integers(5, 12)), int(rng.integers(2, 5))
    x = rng.normal() + np.append(0.0, np.cumsum(rng.normal(0.01, 0.03, size=steps)))
    actions = rng.normal(0.2, 1.2, size=(steps, joints))
    ended = bool(rng.integers(2)) if fell is None else fell
    seconds, healthy, cost = (float(rng.uniform(*ends)) for ends in ((0.005, 0.05), (0.5, 2), (0.01, 0.2)))
    return Stretch(x, actions, seconds, healthy, cost, ended)


reward_parts = Check("reward_parts", minutes=8, inputs=episode, arguments=Stretch)


@reward_parts.property(
    "A robot that ends where it began should have earned nothing for moving forward, the first of the three parts."
)
def there_and_back(student: Decompose, rng: Generator) -> bool:
    s = episode(rng, fell=False)
    x = s.x.copy()
    x[-1] = x[0]
    return agree(student(*s._replace(x=x))[0], 0.0)


@reward_parts.property(
    "One meter more, in any of the steps, should earn 1 / seconds more in the first part: what a step pays for is its "
    "velocity in m/s."
)
def a_meter_more(student: Decompose, rng: Generator) -> bool:
    s = episode(rng, fell=False)
    further = s.x.copy()
    further[int(rng.integers(1, len(s.x))) :] += 1.0
    return agree(student(*s._replace(x=further))[0] - student(*s)[0], 1 / s.seconds)


@reward_parts.property(
    "Where the robot did not fall, the second part should be the bonus of all T steps, T being the rows of actions: x "
    "has one entry more."
)
def each_step_pays_a_bonus(student: Decompose, rng: Generator) -> bool:
    s = episode(rng, fell=False)
    return agree(student(*s)[1], s.healthy * len(s.actions))


@reward_parts.property(
    "A fall should cost one bonus, that of the last step, and nothing else: this step still pays its velocity and "
    "still costs its torques."
)
def a_fall_costs_one_bonus(student: Decompose, rng: Generator) -> bool:
    s = episode(rng, fell=False)
    fell, stood = student(*s._replace(fell=True)), student(*s)
    return agree(fell[1], stood[1] - s.healthy) and agree(fell[::2], stood[::2])


@reward_parts.property("Where no motor does anything the motors should cost nothing, and nothing else should change.")
def at_rest(student: Decompose, rng: Generator) -> bool:
    s = episode(rng)
    resting = student(*s._replace(actions=np.zeros_like(s.actions)))
    return agree(resting[2], 0.0) and agree(resting[:2], student(*s)[:2])


@reward_parts.property("Twice the torques should cost four times as much.")
def costs_are_quadratic(student: Decompose, rng: Generator) -> bool:
    s = episode(rng)
    return agree(student(*s._replace(actions=2 * s.actions))[2], 4 * student(*s)[2])


@reward_parts.property(
    "One motor alone, at work in one step with the command u, should make the third part -cost * u**2, whichever motor "
    "it is and however long the step."
)
def one_motor_alone(student: Decompose, rng: Generator) -> bool:
    s = episode(rng)
    actions, u = np.zeros_like(s.actions), float(rng.normal(0, 2))
    actions[tuple(rng.integers(s.actions.shape))] = u
    return agree(student(*s._replace(actions=actions))[2], -s.cost * u**2)


@reward_parts.property(
    "What the motors cost together should be the sum of what each of them costs, step by step: square first, then add."
)
def motors_add_up(student: Decompose, rng: Generator) -> bool:
    s = episode(rng)
    return agree(student(*s)[2], s.right[2])


@reward_parts.property("The three parts should add up to what the steps earned.")
def add_up(student: Decompose, rng: Generator) -> bool:
    s = episode(rng)
    rewards = s.velocities + s.healthy - s.cost * np.square(s.actions).sum(1)
    return agree(sum(student(*s)), rewards.sum() - s.fell * s.healthy)


@reward_parts.property("A robot that cannot fall gets no bonus: with healthy = 0 the second part is 0.", edge=True)
def no_bonus(student: Decompose, rng: Generator) -> bool:
    return agree(student(*episode(rng)._replace(healthy=0.0))[1], 0.0)


@reward_parts.property("An episode of one step, in which the robot falls, is an episode as well.", edge=True)
def one_step(student: Decompose, rng: Generator) -> bool:
    s = episode(rng, fell=True)
    short = s._replace(x=s.x[:2], actions=s.actions[:1])
    return agree(student(*short), short.right)


@reward_parts.mistake(
    "concept",
    "Your first part is a distance; tempting, because that is what one sees. A step pays a *velocity*, in m/s, however "
    "short the step is: divide by its seconds.",
)
def pays_distance(s: Stretch) -> Parts:
    return float(s.x[-1] - s.x[0]), *s.right[1:]


@reward_parts.mistake(
    "concept",
    "Your first part is the mean velocity; tempting, because a speed is what one would tell. A return is a sum: every "
    "step pays its velocity.",
)
def pays_the_mean(s: Stretch) -> Parts:
    return float(s.velocities.mean()), *s.right[1:]


@reward_parts.mistake(
    "sign",
    "You pay for speed in either direction; tempting, because a speed is positive. Forward is what is paid, and a step "
    "back costs what a step forward earns.",
)
def pays_speed(s: Stretch) -> Parts:
    return float(np.abs(s.velocities).sum()), *s.right[1:]


@reward_parts.mistake(
    "sign",
    "Your third part is positive; tempting, because a cost is a positive number. Asked for is what it does to the "
    "return: 0 or less.",
)
def a_positive_cost(s: Stretch) -> Parts:
    return *s.right[:2], -s.right[2]


@reward_parts.mistake(
    "termination",
    "You pay the bonus for the step in which the robot falls; tempting, because it is a step like the others. The "
    "bonus is for being on its feet *after* the step.",
)
def pays_the_fall(s: Stretch) -> Parts:
    return s.right[0], s.healthy * len(s.actions), s.right[2]


@reward_parts.mistake(
    "concept",
    "You cut the actions off at 1 before you count their cost; tempting, because the motors do. The motors saturate, "
    "and the cost does not: a command of 3 moves a joint like one of 1, and costs nine times as much.",
)
def cuts_off(s: Stretch) -> Parts:
    return *s.right[:2], -s.cost * float(np.square(np.clip(s.actions, -1, 1)).sum())


@reward_parts.mistake(
    "concept",
    "You charge the length of the action vector; tempting, because it is written |a|. There is a square on it: strong "
    "torques cost more than their share.",
)
def charges_the_length(s: Stretch) -> Parts:
    return *s.right[:2], -s.cost * float(np.linalg.norm(s.actions, axis=1).sum())


@reward_parts.mistake(
    "numerics",
    "You charge the mean over the joints; tempting, because np.mean is close at hand. |a|² is the sum of their "
    "squares: a robot with six motors pays for six.",
)
def charges_the_mean(s: Stretch) -> Parts:
    return *s.right[:2], -s.cost * float(np.square(s.actions).mean(1).sum())


@reward_parts.mistake(
    "indexing",
    "You leave out the first step; tempting, because x and actions do not have the same length. Step t leads from x[t] "
    "to x[t + 1], so that T steps need T + 1 places.",
)
def leaves_out_the_first_step(s: Stretch) -> Parts:
    return float(s.velocities[1:].sum()), *s.right[1:]
