"""
How much is mixed: lam for several alphas
=========================================

Each sample keeps the share lam of itself, drawn from the symmetric
distribution Beta(alpha, alpha). Alpha says how much is mixed.
"""

# %%
# `plan` draws lam without any data. Here it does so for 20,000 samples.

import matplotlib.pyplot as plt
import numpy as np

import kmix

alphas = [0.1, 0.4, 1.0, 4.0]
drawn = {
    alpha: kmix.MixUp(alpha, seed=1).plan(step=0, batch_size=20_000).lam
    for alpha in alphas
}

# %%
# With a small alpha, most samples stay almost as they are. With alpha 1, all
# shares are equally likely. With a large alpha, most samples are mixed half
# and half.

figure, axes = plt.subplots(
    2, 2, figsize=(9, 6), sharex=True, sharey=True, layout="constrained"
)
colors = ["#0072b2", "#d55e00", "#009e73", "#666666"]
for ax, (alpha, lam), color in zip(
    axes.flat, drawn.items(), colors, strict=True
):
    weights = np.full(len(lam), 100 / len(lam))
    ax.hist(lam, bins=np.linspace(0, 1, 21), weights=weights, color=color)
    ax.set_title(f"alpha = {alpha}", fontsize=16)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlim=(0, 1))
for ax in axes[1]:
    ax.set_xlabel("lam", fontsize=14)
for ax in axes[:, 0]:
    ax.set_ylabel("% of samples", fontsize=14)
plt.show()
