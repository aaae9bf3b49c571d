"""The cross-entropy of a mixed label is the mix of two cross-entropies."""

import matplotlib.pyplot as plt
import numpy as np

p = np.linspace(0.01, 0.99, 200)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.9), sharey=True)
for ax, subtract in zip(axes, (False, True), strict=True):
    for lam, color in [(1.0, "#666666"), (0.8, "#009e73"), (0.5, "#d55e00")]:
        loss = -lam * np.log(p) - (1 - lam) * np.log(1 - p)
        if subtract and lam < 1:
            loss += lam * np.log(lam) + (1 - lam) * np.log(1 - lam)
        ax.plot(p, loss, color=color, label=f"label ({lam:g}, {1 - lam:.1g})")
        ax.plot(p[loss.argmin()], loss.min(), "o", color=color)
    ax.set(xlabel="probability of the first class", ylim=(-0.1, 2.5))
    title = "subtract_entropy=True: every minimum is 0" if subtract else "the loss; a dot marks its minimum"
    ax.set_title(title, fontsize=10)
axes[0].set_ylabel("nats")
axes[0].legend(frameon=False)
