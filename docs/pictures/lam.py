"""lam for several alphas: what a layer draws, and the density that it should have."""

import math

import matplotlib.pyplot as plt
import numpy as np

import kmix

figure, axes = plt.subplots(2, 3, figsize=(8, 4.4), sharex=True)
grid = np.linspace(0.004, 0.996, 400)
for ax, alpha in zip(axes.flat, [0.05, 0.2, 0.4, 1.0, 2.0, 8.0], strict=True):
    lam = kmix.MixUp(alpha, seed=1).plan(step=0, batch_size=50_000).lam
    ax.hist(lam, bins=np.linspace(0, 1, 41), density=True, color="#9ec9e2", label="drawn by kmix")
    constant = math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)
    density = np.exp(constant + (alpha - 1) * (np.log(grid) + np.log1p(-grid)))
    ax.plot(grid, density, color="#0b4f8a", linewidth=1.5, label="Beta(alpha, alpha)")
    ax.set_title(f"alpha = {alpha}", fontsize=10)
    ax.set(xlim=(0, 1), ylim=(0, 3.2), xticks=[0, 0.5, 1])
for ax in axes[1]:
    ax.set_xlabel("lam, the share of the sample")
axes[0, 0].set_ylabel("density")
axes[1, 0].set_ylabel("density")
axes[0, 1].legend(fontsize=8, loc="upper center")
