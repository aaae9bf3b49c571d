"""Who is mixed with whom: any two patients, or patients with similar values."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

import kmix

y = load_diabetes().target.astype("float32")
rules = {
    "pairing at random": kmix.pairing.RandomPairs(allow_self=False),
    "SimilarLabels(0.25)": kmix.pairing.SimilarLabels(0.25, allow_self=False),
}
figure, axes = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained", sharey=True)
for ax, (title, rule), color in zip(axes, rules.items(), ("#0072b2", "#d55e00"), strict=True):
    layer = kmix.MixUp(1.0, pairing=rule, seed=0)
    for step in range(6):
        batch = np.random.default_rng(step).permutation(y)[:64]
        partner = batch[layer.plan(step, 64, targets=batch).permutation]
        ax.scatter(batch, partner, s=10, color=color, alpha=0.5, linewidth=0)
    ax.plot([20, 350], [20, 350], color="black", lw=0.8)
    ax.set(title=title, xlabel="value of a patient", aspect="equal")
axes[0].set_ylabel("value of the partner")
