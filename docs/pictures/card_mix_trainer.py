"""What a step of `MixTrainer` does with a batch."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

BLUE, ORANGE, GREY = "#0072b2", "#b34e00", "#555555"


def box(x, y, text, color, filled=False, width=0.15):
    patch = FancyBboxPatch((x - width / 2, y - 0.13), width, 0.26, boxstyle="round,pad=0.008")
    patch.set(facecolor=color if filled else "white", edgecolor=color, linewidth=1.5)
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", color="white" if filled else "black", fontsize=10)


def arrow(start, end):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.5})


figure = plt.figure(figsize=(9, 2.7), layout="none")
ax = figure.add_axes((0, 0, 1, 1))
ax.set(xlim=(0, 1), ylim=(0, 1))
ax.axis("off")
box(0.09, 0.72, "inputs", GREY)
box(0.09, 0.28, "labels,\nweights", GREY)
box(0.33, 0.5, "plan of the step\n(seed, step, alpha)", ORANGE, filled=True, width=0.19)
box(0.56, 0.72, "mixed inputs", BLUE)
box(0.56, 0.28, "mixed labels,\nweights", BLUE)
box(0.74, 0.72, "your model", GREY, width=0.13)
box(0.91, 0.5, "loss,\ngradients", GREY, width=0.13)
arrow((0.17, 0.72), (0.475, 0.72))
arrow((0.17, 0.28), (0.475, 0.28))
arrow((0.4, 0.64), (0.475, 0.7))
arrow((0.4, 0.36), (0.475, 0.3))
arrow((0.642, 0.72), (0.668, 0.72))
arrow((0.812, 0.68), (0.86, 0.58))
arrow((0.642, 0.28), (0.85, 0.42))
note = "evaluate, predict and export go to your model and do not mix"
ax.text(0.33, 0.06, note, ha="center", fontsize=9.5, color=GREY)
