"""What a policy does and how it came to do it, as pictures.

Reading order: after `training`. `playing` follows the policy through an episode and notes what there is to see;
`stages` says how to look at a task; `robots`, `cartpoles` and `opengl` draw it, the last in a process of its own;
`animation` makes a film of the pictures; `learning_curve` draws the log of a run; `watching` is `trpo-lessons watch`.
All of them have the look of `style`.
"""
