"""The way of a batch through the modules of kmix."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

figure, ax = plt.subplots(figsize=(8, 4.6))
ax.set(xlim=(0, 100), ylim=(0, 58))
ax.axis("off")

BLUE, GREEN, GREY, ORANGE = "#d6e6f4", "#dcefdc", "#eeeeee", "#fde6cf"


def box(x, y, width, height, title, text, colour):
    style = "round,pad=0.4,rounding_size=1.2"
    patch = FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor="#555555")
    ax.add_patch(patch)
    ax.text(x + width / 2, y + height - 2.2, title, ha="center", va="center", fontsize=9.5, fontweight="bold")
    ax.text(x + width / 2, (y + y + height - 4) / 2, text, ha="center", va="center", fontsize=8.5)


def arrow(start, end, text="", dx=0, dy=0):
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#333333", linewidth=1.3))
    if text:
        middle = ((start[0] + end[0]) / 2 + dx, (start[1] + end[1]) / 2 + dy)
        ax.text(*middle, text, fontsize=8.5, ha="center", va="center", style="italic")


box(1, 46, 22, 10, "tf.data, loader", "ds.map(layer)\nlayer.at_step(n, batch)", GREY)
box(1, 31, 22, 10, "kmix/training", "the step of a MixTrainer", GREY)
box(33, 36, 22, 14, "kmix/layers", "numbers the batch,\nknows alpha and seed", BLUE)
box(67, 40, 31, 14, "kmix/plan, kmix/prng", "draw: seed, step, alpha, size\nto lam, partners, boxes", ORANGE)
box(33, 17, 22, 12, "kmix/batch.py", "names the parts,\nchecks, writes back", BLUE)
box(67, 22, 31, 10, "kmix/targets", "how each y is encoded and mixed", GREEN)
box(67, 6, 31, 10, "kmix/mixing", "blend, paste: plain arithmetic", GREEN)
box(1, 4, 22, 10, "out", "the same structure,\nlabels in float32", GREY)

arrow((23.6, 50), (32.2, 45))
arrow((23.6, 37), (32.2, 41))
arrow((55.8, 44), (66.2, 47), "asks", dy=2)
arrow((66.2, 42.5), (55.8, 39.5), "plan", dy=-2.2)
arrow((44, 35.2), (44, 29.8), "batch, plan", dx=7.5)
arrow((55.8, 24.5), (66.2, 26.5))
arrow((55.8, 20), (66.2, 13))
arrow((82.5, 21.2), (82.5, 16.8))
arrow((32.2, 19), (23.6, 12))
