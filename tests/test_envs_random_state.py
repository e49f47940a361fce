"""Generators as rows of numbers."""

import numpy as np
import pytest
from gymnasium.utils import seeding
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_lessons.envs.random_state import COLUMNS, derived_seeds, make_generators, pack_generators, put_back


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**64), draws=st.integers(0, 5), half_draws=st.integers(0, 3))
def test_a_generator_that_is_put_back_goes_on_where_the_packed_one_stood(seed, draws, half_draws):
    generator = seeding.np_random(seed)[0]
    generator.random(draws)
    generator.integers(0, 100, size=half_draws, dtype=np.int32)  # an odd number leaves half of a 64-bit draw over
    packed = pack_generators([generator, generator])
    assert (packed.dtype, packed.shape) == (np.uint64, (2, COLUMNS))
    twins = make_generators(2, seed=7)
    put_back(twins, packed)
    for twin in twins:
        state = generator.bit_generator.state
        assert twin.bit_generator.state == state
        assert twin.integers(0, 2**31, dtype=np.int32) == generator.integers(0, 2**31, dtype=np.int32)
        assert twin.random() == generator.random()
        generator.bit_generator.state = state


def test_without_a_seed_two_generators_differ():
    one, two = make_generators(2)
    assert one.bit_generator.state != two.bit_generator.state


def test_other_kinds_of_generator_are_refused():
    with pytest.raises(ValueError, match="only PCG64 generators can be saved, not MT19937"):
        pack_generators([np.random.Generator(np.random.MT19937(0))])


def test_derived_seeds_are_different_for_every_seed_purpose_and_copy():
    purposes = ("evaluation", "training after iteration 0", "training after iteration 1")
    seeds = [each for seed in range(20) for purpose in purposes for each in derived_seeds(seed, purpose, 50)]
    assert len(set(seeds)) == len(seeds) == 3000
    assert all(0 <= each < 2**31 for each in seeds)


def test_a_copys_seed_does_not_depend_on_how_many_copies_there_are():
    assert derived_seeds(2**63 - 1, "evaluation", 8)[:3] == derived_seeds(2**63 - 1, "evaluation", 3)
