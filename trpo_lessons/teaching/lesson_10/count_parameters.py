"""Exercise count_parameters of lesson 10, Atari."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from numpy.random import Generator

from trpo_lessons.teaching.checks import Check

Count = Callable[[int, int, int, int, int], int]
FILTERS, SIZE, STRIDE = 16, 4, 2


class Network(NamedTuple):
    """What the student's function is given."""

    frames: int
    height: int
    width: int
    hidden: int
    outputs: int


def network(rng: Generator) -> Network:
    """Frames of any size, even or odd, and layers of any width."""
    low, high = [2, 20, 20, 10, 4], [6, 70, 70, 40, 19]
    return Network(*(int(n) for n in rng.integers(low, high)))


count_parameters = Check("count_parameters", minutes=8, inputs=network, arguments=Network)


def after(length: int) -> int:
    """Places along one side after an unpadded convolution."""
    return (length - SIZE) // STRIDE + 1


def total(
    n: Network,
    sides: Callable[[int], int] = after,
    first: int | None = None,
    second: int | None = None,
    flat: int | None = None,
) -> int:
    """The right count, with parts of it replaced: the two convolutions, or how many numbers the hidden layer sees."""
    height, width = sides(sides(n.height)), sides(sides(n.width))
    first = FILTERS * (n.frames * SIZE**2 + 1) if first is None else first
    second = FILTERS * (FILTERS * SIZE**2 + 1) if second is None else second
    flat = FILTERS * height * width if flat is None else flat
    return first + second + n.hidden * (flat + 1) + n.outputs * (n.hidden + 1)


@count_parameters.property("One more output should add a weight for every hidden unit and a bias.")
def outputs_count(student: Count, rng: Generator) -> bool:
    n = network(rng)
    return student(*n._replace(outputs=n.outputs + 1)) - student(*n) == n.hidden + 1


@count_parameters.property("One more frame in the stack should add a 4 x 4 kernel to each filter of the first layer.")
def frames_count(student: Count, rng: Generator) -> bool:
    n = network(rng)
    return student(*n._replace(frames=n.frames + 1)) - student(*n) == FILTERS * SIZE**2


@count_parameters.property(
    "One more hidden unit should add a weight for each of the numbers that leave the second convolution, a bias, and a "
    "weight to every output. How many places has a 4 x 4 window that moves by 2 and stays inside?"
)
def hidden_units_count(student: Count, rng: Generator) -> bool:
    n = network(rng)
    added = FILTERS * after(after(n.height)) * after(after(n.width)) + 1 + n.outputs
    return student(*n._replace(hidden=n.hidden + 1)) - student(*n) == added


@count_parameters.property(
    "What belongs to the convolutions alone is another number. Every filter has a 4 x 4 kernel for each picture that "
    "it looks at, and one bias: 16 filters of the first layer look at the frames, 16 of the second at sixteen pictures."
)
def convolutions_count(student: Count, rng: Generator) -> bool:
    n = network(rng)

    def without_hidden_units(outputs: int) -> int:
        one, two = (student(*n._replace(hidden=hidden, outputs=outputs)) for hidden in (1, 2))
        return 2 * one - two  # the count is linear in the hidden units

    left = 2 * without_hidden_units(1) - without_hidden_units(2)  # and in the outputs
    return left == FILTERS * (n.frames * SIZE**2 + 1) + FILTERS * (FILTERS * SIZE**2 + 1)


@count_parameters.property("The smallest frames that two such convolutions can look at, 10 x 10, go wrong.", edge=True)
def smallest_frames(student: Count, rng: Generator) -> bool:
    n = network(rng)._replace(height=10, width=10)
    return student(*n) == total(n)


@count_parameters.mistake(
    "concept",
    "Your first filters look at one frame; tempting, because pictures are flat. The four frames are channels: a filter "
    "of the first layer has a 4 x 4 kernel for each of them, which is how it can see motion.",
)
def one_frame(n: Network) -> int:
    return total(n, first=FILTERS * (SIZE**2 + 1))


@count_parameters.mistake(
    "concept",
    "Your second filters look at one of the sixteen pictures that the first layer made; tempting, because sixteen go "
    "in and sixteen come out. Every filter of the second layer has a kernel for all sixteen.",
)
def one_channel(n: Network) -> int:
    return total(n, second=FILTERS * (SIZE**2 + 1))


@count_parameters.mistake(
    "concept",
    "You have left out the biases; tempting, because they are few. There is one for each filter, each hidden unit and "
    "each output, and 33,500 counts them.",
)
def no_biases(n: Network) -> int:
    return total(n) - 2 * FILTERS - n.hidden - n.outputs


@count_parameters.mistake(
    "indexing",
    "Your second convolution moves by 1; tempting, if one has the stride of the first alone in mind. Both move by 2.",
)
def second_stride_of_one(n: Network) -> int:
    height, width = (after(length) - SIZE + 1 for length in (n.height, n.width))
    return total(n, flat=FILTERS * height * width)


@count_parameters.mistake(
    "concept",
    "Your convolutions are padded, so that a stride of 2 halves each side and rounds up; tempting, because halving is "
    "easy to remember. Unpadded, the window has to stay inside: (length - 4) // 2 + 1 places.",
)
def padded(n: Network) -> int:
    return total(n, sides=lambda length: math.ceil(length / STRIDE))


@count_parameters.mistake(
    "indexing",
    "You count steps of the window and not its places; tempting, because (length - 4) / 2 is how far it can move. It "
    "also has the place that it starts from: one more.",
)
def steps_for_places(n: Network) -> int:
    return total(n, sides=lambda length: (length - SIZE) // STRIDE)


@count_parameters.mistake(
    "concept",
    "Every place has weights of its own in your convolutions; tempting, because each place has an output. All places "
    "share one kernel for each filter: that is what makes it a convolution.",
)
def not_shared(n: Network) -> int:
    height, width = after(n.height), after(n.width)
    places = height * width, after(height) * after(width)
    first = places[0] * FILTERS * (n.frames * SIZE**2 + 1)
    return total(n, first=first, second=places[1] * FILTERS * (FILTERS * SIZE**2 + 1))


@count_parameters.mistake(
    "concept",
    "Your filters share their kernels and have a bias for each place; tempting, because an output is a number with a "
    "bias. A filter has one bias for all places, as it has one kernel for them.",
)
def biases_of_places(n: Network) -> int:
    height, width = after(n.height), after(n.width)
    extra = height * width - 1 + after(height) * after(width) - 1
    return total(n) + FILTERS * extra


@count_parameters.mistake(
    "concept",
    "Your hidden layer sees one picture; tempting, because one picture came in. It sees all sixteen that leave the "
    "second layer, laid out in a row.",
)
def one_picture_to_the_hidden_layer(n: Network) -> int:
    return total(n, flat=after(after(n.height)) * after(after(n.width)))


@count_parameters.mistake(
    "indexing",
    "You stop at the hidden layer; tempting, because figure 3 ends in a box of probabilities. They are computed from "
    "logits, which have weights and biases too.",
)
def no_outputs(n: Network) -> int:
    return total(n) - n.outputs * (n.hidden + 1)


@count_parameters.mistake(
    "indexing",
    "You use the height for both sides; tempting, because most networks see squares. These frames have 52 rows and 40 "
    "columns: count the places along each side.",
)
def square_frames(n: Network) -> int:
    return total(n._replace(width=n.height))
