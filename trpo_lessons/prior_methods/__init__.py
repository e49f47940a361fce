"""What TRPO is compared with, each a short composition: the paper's methods (section 8.1, lesson 08), and PPO.

*Updates* take a problem and a theta, and return another theta with a report, as `trpo_update` does. All of them ask the
same problem, with the same advantages: what differs is how far they go, and what measures it.

    natural_gradient  equation 18: TRPO's direction, with a fixed factor in place of the trust region and its search
    max_kl            equation 12: the largest KL of all visited states in place of their mean
    weighted_fit      a policy fitted to weighted samples, which the next two share
    rwr               reward-weighted regression: weights exponential in the advantages
    reps              relative entropy policy search: the best weights within a KL of the samples
    ppo               proximal policy optimisation (2017): a clipped surrogate, and many steps of Adam

The empirical Fisher matrix needs no module: it is `trpo_update` in a
`TrustRegion(fisher=empirical_fisher_vector_product)`.

*Ask and tell* methods see neither steps nor gradients: they ask for a population of thetas to be played, and are told
how much each has earned.

    gaussian_search   a Gaussian over theta, fitted again and again to a weighted population: elite, exponential, REPS
    cem               the cross-entropy method: the elite's mean and variance, and extra noise that fades
    cma               CMA-ES, by pycma with random numbers of ours
    many_policies     every theta of a population as a policy, all in one call
"""
