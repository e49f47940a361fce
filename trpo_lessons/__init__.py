"""TRPO Lessons: trust region policy optimization (Schulman et al., 2015), to be read, run and trained with.

The modules in reading order; each imports only from those above it:

    distributions        Categorical, FactoredCategorical, DiagGaussian
    mdp                  finite MDPs solved exactly
    improvement_bound    equations 1 to 10 and Algorithm 1
    convolution          convolutions for the Atari network, cheap to differentiate twice; leave it for later
    policies             policy(theta, obs) -> Distribution, with theta one flat vector
    surrogate            the batch and the sampled surrogate, equation 15
    kl                   mean and max KL, Fisher-vector products
    conjugate_gradient   solves A x = b from products with A
    line_search          backtracking with an acceptance rule
    trpo                 one update: direction, scale, search, report
    envs                 environments that save and restore their states
    advantages           returns, generalized advantage estimation, value functions
    single_path          sampling whole trajectories, section 5.1
    vine                 several actions in the same state, section 5.2, equations 16 and 17
    training             the loop, presets, run folders, resume
    viewing              animations and learning curves
    doctor               what works on this machine
    bench                how fast training is, and sb3-contrib's TRPO with the recipe we compare ourselves with;
                         gradient_subjects, gradient_batches, gradient_variance: how noisy gradients are (lesson 07)
    cli                  the trpo-lessons command
    teaching             explorers, checks for exercises, grading; imported by notebooks only

`tests/test_project.py` holds every module to this order.
"""

__version__ = "0.1.0"
