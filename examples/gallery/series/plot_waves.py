"""
Waves that carry the tags of both
=================================

`kmix.MixUp` blends waves `(B, T)` as it blends images. With the target
`LabelUnion`, a mixture of two sounds keeps the tags of both.
"""

# %%
# Two generated sounds: a short pluck and a slow hum.

import matplotlib.pyplot as plt
import numpy as np

import kmix

time = np.linspace(0, 1, 2000, dtype="float32")
pluck = np.exp(-6 * time) * np.sin(2 * np.pi * 40 * time)
hum = 0.6 * np.sin(2 * np.pi * 5 * time) * np.sin(np.pi * time)
waves = np.stack([pluck, hum])
tags = np.array([[1, 0, 0], [0, 1, 1]], "float32")

# %%
# The tags are multi-hot. A tag stays if one of the two partners has it.

mixup = kmix.MixUp(1.0, target=kmix.targets.LabelUnion(), seed=1)
mixed, mixed_tags = mixup.at_step(13, (waves, tags))
lam = mixup.plan(13, batch_size=2).lam[0]
print("lam: ", lam.round(2))
print("tags:", mixed_tags[0])

# %%
# From top to bottom: the sample, its partner, and the mix.

names = np.array(["pluck", "hum", "low"])
figure, axes = plt.subplots(
    3, 1, figsize=(9, 6), sharex=True, sharey=True, layout="constrained"
)
rows = zip(
    axes,
    [*waves, mixed[0]],
    [*tags, mixed_tags[0]],
    ["#0072b2", "#d55e00", "#009e73"],
    strict=True,
)
for ax, wave, row, color in rows:
    ax.plot(time, wave, color=color, linewidth=1.8)
    ax.set_title("tags: " + ", ".join(names[row > 0]), fontsize=15)
    ax.set(yticks=[-1, 0, 1], ylim=(-1.1, 1.1), xlim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
axes[2].set_xlabel("seconds", fontsize=13)
plt.show()
