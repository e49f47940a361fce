"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_PAGES = """
import resource
import torch
from trpo_lessons.policies import CategoricalHead, Policy, layers_for
from trpo_lessons.training.sampling.memory import keep_freed_memory

torch.set_num_threads(1)
assert keep_freed_memory()
policy = Policy(layers_for((4, 52, 40), (20,), 6), CategoricalHead(6))
theta, pictures = policy.initial_theta(), torch.zeros(512, 4, 52, 40)

def fetched_by_passes(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        for _ in range(times):
            policy(theta, pictures)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fetched_by_passes(10)
print(fetched_by_passes(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_the_memory_of_one_pass_serves_the_next() -> None:
    # Five passes need some 50,000 pages, and fetch most of them anew where the C library is left to itself.
    ran = subprocess.run([sys.executable, "-c", COUNT_PAGES], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 10_000
