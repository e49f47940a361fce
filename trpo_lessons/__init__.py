"""TRPO Lessons: trust region policy optimization (Schulman et al., 2015), to be read, run and trained with.

The modules in reading order; each imports only from those above it:

    distributions        Categorical, FactoredCategorical, DiagGaussian
    mdp                  finite MDPs solved exactly
    improvement_bound    equations 1 to 10 and Algorithm 1
    convolution          convolutions for the Atari network, cheap to differentiate twice; leave it for later
    policies             policy(theta, obs) -> Distribution, with theta one flat vector
    surrogate            the batch and the sampled surrogate, equation 15
    kl                   mean and max KL, products with the Fisher matrix
    problem              a surrogate to improve and states to be held back in: what can be asked at any theta
    conjugate_gradient   solves A x = b from products with A
    line_search          backtracking with an acceptance rule
    trpo                 the trust region, and one update: direction, scale, search, report
    envs                 environments that save and restore their states, and the simulator's side of sampling
    advantages           returns, generalized advantage estimation
    single_path          sampling whole trajectories, section 5.1
    rollout_set          several actions in the same state: equations 16 and 17, and which actions
    vine                 a trunk and its branches, section 5.2
    value_function       V fitted to returns, which the paper does without
    prior_methods        what TRPO is compared with: natural gradient, CEM, CMA-ES, PPO and others
    zoo_names            what the trained policies that come with this package are called
    training             the loop, presets, run folders, resume
    viewing              animations and learning curves
    zoo                  those policies, ready to act
    doctor               what works on this machine
    bench                how fast training is, and sb3-contrib's TRPO with the recipe we compare ourselves with;
                         gradient_subjects, gradient_batches, gradient_variance: how noisy gradients are (lesson 07)
    cli                  the trpo-lessons command
    teaching             explorers, checks for exercises, grading; imported by notebooks only

`distributions` to `vine` are the core, an hour's reading: how a step is found is told up to `trpo`, where its samples
come from after it. `convolution` and `envs` can be left for later. `tests/test_project.py` holds every module to this
order, and the core to its size.
"""

__version__ = "0.2.0"  # a new one whenever the same seed gives other bits: `resume` tells them apart
