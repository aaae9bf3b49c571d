"""Three questions that lead to the place to mix."""

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.pyplot import figure as new_figure

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#b34e00", "#00704f", "#555555"


def box(ax, x, y, text, color, filled, width=0.3):
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.095), width, 0.19, boxstyle="round,pad=0.01", facecolor=color if filled else "white"
    )
    patch.set(edgecolor=color, linewidth=1.5)
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", color="white" if filled else "black", fontsize=10.5)


def arrow(ax, start, end, text, offset=(0, 0)):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.5})
    x, y = (start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1]
    ax.text(x, y, text, ha="center", va="center", color=GREY, fontsize=10.5)


figure: Figure = new_figure(figsize=(9.5, 4.4), layout="none")
ax = figure.add_axes((0, 0, 1, 1))
ax.set(xlim=(0, 1), ylim=(0, 1))
ax.axis("off")
QUESTIONS = [
    (0.83, "Do you want to mix hidden states\nor embeddings of words?", "At hidden layers", ORANGE),
    (0.5, "Does the data come from tf.data, Grain,\na PyTorch loader or your own loop?", "In the pipeline", BLUE),
    (0.17, "Is it NumPy arrays, or should\nthe accelerator mix?", "In the training step", GREEN),
]
CODE = [
    "MixTrainer(model, EmbeddingMixup(2.0),\n           places=[...])",
    "ds.map(MixUp(0.2, num_classes=10))",
    "MixTrainer(model, CutMix(1.0))",
]
for number, ((y, question, answer, color), code) in enumerate(zip(QUESTIONS, CODE, strict=True)):
    box(ax, 0.19, y, question, GREY, filled=False, width=0.34)
    box(ax, 0.55, y, answer, color, filled=True, width=0.2)
    arrow(ax, (0.372, y), (0.438, y), "yes", (0, 0.045))
    ax.text(0.665, y, code, family="monospace", fontsize=9, va="center", ha="left", linespacing=1.3)
    if number < 2:
        arrow(ax, (0.19, y - 0.11), (0.19, y - 0.22), "no", (0.03, 0))
