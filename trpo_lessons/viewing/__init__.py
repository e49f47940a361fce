"""What a policy does and how it came to do it, as pictures.

Reading order: after `training`. `drawing` shows robots and cart-poles in the plane, `game_drawing` a game's screen and
how likely each action is; `playing` follows the policy
through an episode and notes what there is to see; `opengl` draws robots with MuJoCo's own renderer, in a process of its
own; `animation` makes a film of the pictures; `learning_curve` draws the log of a run; `watching` is `trpo-lessons
watch`. All of them have the look of `style`.
"""

WIDTH, HEIGHT = 480, 320  # pixels of a picture in an animation
