"""
Partners with similar labels
============================

In regression, distant samples may not mix well. `SimilarLabels` draws
partners with similar labels (C-Mixup).
"""

# %%
# The diabetes data of scikit-learn: 442 patients, and the progress of their
# disease after a year.

import matplotlib.pyplot as plt
from sklearn.datasets import load_diabetes

import kmix

x, y = load_diabetes(return_X_y=True)
x, y = x.astype("float32"), y.astype("float32")

# %%
# The bandwidth counts in standard deviations of the label. Such a plan
# depends on the labels, so `plan` takes them as `targets`.

similar = kmix.pairing.SimilarLabels(0.3)
layers = {
    "any partner": kmix.MixUp(2.0, seed=1),
    "similar labels": kmix.MixUp(2.0, pairing=similar, seed=1),
}
partners = {
    name: layer.plan(step=0, batch_size=len(y), targets=y).permutation
    for name, layer in layers.items()
}

# %%
# Each point is a sample and its partner. Near the diagonal, the two labels
# are similar. Whether this helps depends on the data: the guide to
# :doc:`regression </guides/regression>` has measurements for this data set,
# on which similar partners gained nothing over random ones.

figure, axes = plt.subplots(
    1, 2, figsize=(9, 6), sharey=True, layout="constrained"
)
for ax, (name, index), color in zip(
    axes, partners.items(), ["#666666", "#0072b2"], strict=True
):
    ax.plot([0, 350], [0, 350], color="black", linewidth=1.2)
    ax.scatter(y, y[index], s=36, color=color, alpha=0.6, linewidths=0)
    ax.set_title(name, fontsize=16)
    ax.set_xlabel("label of the sample", fontsize=13)
    ax.set(xlim=(0, 360), ylim=(0, 360), xticks=[0, 100, 200, 300])
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("label of its partner", fontsize=13)
plt.show()
