"""The plan of one step: lam, partners, and the boxes of a CutMix."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

import kmix

SIZE, N = 16, 8
plan = kmix.CutMix(1.0, seed=5).plan(step=3, batch_size=N, spatial_shape=(SIZE, SIZE))
colours = plt.get_cmap("Set2").colors
figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(8, 4.6), sharex=True, height_ratios=[1.3, 1, 0.72])

own = np.arange(N)
top.bar(own, plan.lam, color=[colours[i] for i in own], width=0.7)
top.bar(
    own, 1 - plan.lam, bottom=plan.lam, color=[colours[i] for i in plan.permutation], width=0.7, alpha=0.55, hatch="//"
)
for i in own:
    top.text(i, plan.lam[i] / 2, f"{plan.lam[i]:.2f}", ha="center", va="center", fontsize=9)
top.set(ylabel="lam", ylim=(0, 1), yticks=[0, 0.5, 1])

middle.scatter(own, 0 * own, s=190, color=[colours[i] for i in own], zorder=3)
for i, partner in enumerate(plan.permutation):
    middle.text(i, 0, str(i), ha="center", va="center", fontsize=9, zorder=4)
    if partner != i:
        bend = f"arc3,rad={-0.32 * min(1, 2 / abs(i - partner))}"
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 8, "shrinkB": 8, "linewidth": 1.5}
        arc = FancyArrowPatch((partner, 0), (i, 0), connectionstyle=bend, color=colours[partner], **style)
        middle.add_patch(arc)
middle.set(ylabel="partner", ylim=(-1.1, 1.1), yticks=[])

side = 0.9  # about square on the page
for i in own:
    bottom.add_patch(Rectangle((i - side / 2, 0), side, 1, color=colours[i]))
    y0, x0, y1, x1 = plan.box[i] / SIZE
    corner, width, height = (i - side / 2 + side * x0, 1 - y1), side * (x1 - x0), y1 - y0
    bottom.add_patch(Rectangle(corner, width, height, facecolor=colours[plan.permutation[i]], edgecolor="black"))
bottom.set(ylabel="box", ylim=(-0.05, 1.05), yticks=[], xlim=(-0.6, N - 0.4), xticks=own, xlabel="sample")
for ax in (middle, bottom):
    for spine in ax.spines.values():
        spine.set_visible(False)
