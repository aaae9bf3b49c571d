"""
The plan of a step
==================

Everything random about one batch is a plan: lam and a partner for each
sample. It depends on the seed and the step, and on no data.
"""

# %%
# The plan of step 8 for a batch of eight samples.

import matplotlib.pyplot as plt
import numpy as np

import kmix

mixup = kmix.MixUp(1.0, seed=1)
plan = mixup.plan(step=8, batch_size=8)
print(plan.permutation)
print(plan.lam.round(2))

# %%
# On the left, an arrow points from each partner to the sample that it is
# mixed into. On the right, blue is the share of the sample, and orange that
# of its partner.

figure, (left, right) = plt.subplots(
    1,
    2,
    figsize=(9, 6),
    width_ratios=[1, 1.6],
    sharey=True,
    layout="constrained",
)
rows = np.arange(8)
for row, partner in enumerate(plan.permutation):
    left.annotate(
        "",
        (0.93, row),
        (0.07, partner),
        arrowprops={"arrowstyle": "-|>", "color": "#d55e00", "linewidth": 2},
    )
for x, color in ((0, "#d55e00"), (1, "#0072b2")):
    left.scatter(np.full(8, x), rows, s=420, color=color, zorder=3)
    for row in rows:
        left.text(
            x,
            row,
            row,
            color="white",
            fontsize=13,
            ha="center",
            va="center",
            zorder=4,
        )
left.set(xlim=(-0.15, 1.15), yticks=[], xticks=[0, 1])
left.set_xticklabels(["partner", "sample"], fontsize=14)
left.tick_params(length=0)
right.barh(rows, plan.lam, color="#0072b2")
right.barh(rows, 1 - plan.lam, left=plan.lam, color="#d55e00")
for row, partner in enumerate(plan.permutation):
    right.text(0.02, row, row, color="white", fontsize=13, va="center")
    right.text(
        0.98, row, partner, color="white", fontsize=13, va="center", ha="right"
    )
right.set(xlim=(0, 1), ylim=(7.6, -0.6))
right.set_xlabel("lam", fontsize=14)
left.spines[:].set_visible(False)
right.spines[["top", "right", "left"]].set_visible(False)
plt.show()
