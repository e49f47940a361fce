"""Speed and scores measured beside those of others.

`sb3_peer` is the recipe by which sb3-contrib's TRPO is trained, `peer_process` trains it a little at a time; `speed`
measures ours and theirs in turns, beside the ceilings of robots (`robot_ceiling`, of populations `robot_population`)
and games (`game_ceiling`), and `table` shows what came out. `record` keeps what a run of ours scored, `rescore` plays
what is recorded again, and `compare` puts recorded scores side by side.
`curves` keeps the learning curves of many runs in two small files, for comparisons such as those of lesson 08, and
`policies` keeps policies without their runs, for the gaits of lesson 09.
How many simulator steps the gradients of both sampling schemes need (lesson 07): `gradient_subjects` trains the
policies, `gradient_batches` estimates their gradients in every way, and `gradient_variance` measures the noise.
"""
