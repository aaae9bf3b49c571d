"""A user's file in which a type checker finds an error on each line that says so, and on no other. Never run it."""

import numpy as np

import kmix

mixup = kmix.MixUp(0.2, num_classes=10)
kmix.MixUp(alhpa=0.3)  # error: no such argument
kmix.MixUp("0.2")  # error: a string is no alpha
kmix.MixUp(0.2, pairing="similar")  # error: no such rule
kmix.MixUp(0.2, target="label")  # error: no such target
kmix.CutMix(1.0, per="row")  # error: "sample" or "batch"
kmix.RandomChoice([mixup, "cutmix"])  # error: a name is no layer
kmix.schedules.Linear(0.0, 0.4, 0.5)  # error: a number of steps is an integer
mixup.plan(np.float32(1), 8)  # error: so is a step
kmix.pairing.RandomPairs(within="device")  # error: "batch", "shard" or a number of rows
kmix.callbacks.AlphaScheduler(mixup, 0.3)  # error: a number is no schedule
