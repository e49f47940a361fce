"""What a policy does and how it came to do it, as pictures.

Reading order: after `training`. `playing` follows the policy for an episode and notes what there is to see; `robots`,
`cartpoles` and `opengl` draw it; `animation` makes a film of the drawings; `learning_curve` draws the log of a run;
`watching` is `trpo-lessons watch`. All of them have the look that `style` says.
"""
