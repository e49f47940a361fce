"""Train sb3-contrib's TRPO with the recipe that this project compares itself with, and record what it scores.

    python -m trpo_lessons.bench.sb3_peer hopper --seed 0 --out trpo_lessons/zoo/sb3_contrib

The comparison is fair only with the same seeds, the same budget, the same evaluation and the same machine, so the
recipe lives here, and writes CSV. It needs sb3-contrib, which the course does not.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trpo_lessons.bench.record import thinned
from trpo_lessons.training.running import files, log_file

TASKS = {"hopper": "Hopper-v5", "walker": "Walker2d-v5", "swimmer": "Swimmer-v5", "halfcheetah": "HalfCheetah-v5"}


def peer_model(task: str, seed: int, num_envs: int = 2) -> Any:
    """sb3-contrib's TRPO, with the recipe of its own benchmark for these tasks, not trained yet."""
    import torch
    from sb3_contrib import TRPO  # type: ignore[import-not-found]
    from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]
    from stable_baselines3.common.vec_env import VecNormalize  # type: ignore[import-not-found]

    from trpo_lessons.envs import simulator  # noqa: F401 (Gymnasium then finds MuJoCo, also without OpenGL)

    torch.set_num_threads(1)
    gamma = 0.9999 if task == "swimmer" else 0.99
    env = VecNormalize(make_vec_env(TASKS[task], n_envs=num_envs, seed=seed), norm_reward=True, gamma=gamma)
    return TRPO(
        "MlpPolicy",
        env,
        n_steps=1024,
        batch_size=128,
        gamma=gamma,
        gae_lambda=0.95,
        target_kl=0.01,
        cg_max_steps=10,
        cg_damping=0.1,
        n_critic_updates=20,
        learning_rate=1e-3,
        device="cpu",
        seed=seed,
    )


def run_peer(
    task: str, seed: int, total_steps: int, out: Path, num_envs: int = 2, episodes: int = 20
) -> dict[str, Any]:
    """Train for `total_steps` environment steps, then play `episodes` deterministic episodes with frozen statistics."""
    from stable_baselines3.common.evaluation import evaluate_policy  # type: ignore[import-not-found]
    from stable_baselines3.common.logger import configure  # type: ignore[import-not-found]

    folder = out / f"{task}-seed{seed}"
    model = peer_model(task, seed, num_envs)
    env = model.get_env()
    model.set_logger(configure(str(folder), ["csv"]))
    start = time.process_time()
    model.learn(total_steps)
    seconds = time.process_time() - start
    log = folder / log_file.NAME
    (folder / log_file.COMPRESSED).write_bytes(files.compressed(thinned(log.read_text()).encode()))
    log.unlink()
    env.training, env.norm_reward = False, False
    env.seed(10_000 + seed)
    returns, lengths = evaluate_policy(
        model, env, n_eval_episodes=episodes, deterministic=True, return_episode_rewards=True
    )
    with open(folder / "evaluation.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", "return", "length"])
        writer.writerows((i, r, n) for i, (r, n) in enumerate(zip(returns, lengths, strict=True)))
    packages = ("sb3-contrib", "stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
    summary = {
        "task": task,
        "seed": seed,
        "total_steps": total_steps,
        "num_envs": num_envs,
        "cpu_seconds": round(seconds, 1),
        "mean_return": sum(returns) / len(returns),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def main() -> None:
    """Train and score one task with one seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(json.dumps(run_peer(arguments.task, arguments.seed, arguments.steps, arguments.out, arguments.num_envs)))


if __name__ == "__main__":
    main()
