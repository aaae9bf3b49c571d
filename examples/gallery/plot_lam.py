"""
How much is mixed: lam for several alphas
=========================================

`lam ~ Beta(alpha, alpha)` is the share that a sample keeps of itself.
"""

import matplotlib.pyplot as plt
import numpy as np

import kmix

figure, axes = plt.subplots(1, 4, figsize=(9, 3), sharey=True)
for ax, alpha in zip(axes, [0.1, 0.4, 1.0, 4.0], strict=True):
    lam = kmix.MixUp(alpha, seed=1).plan(step=0, batch_size=20_000).lam
    ax.hist(lam, bins=np.linspace(0, 1, 21), density=True)
    ax.set(title=f"alpha = {alpha}", xlabel="lam")
plt.show()
