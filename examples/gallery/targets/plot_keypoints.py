"""
Keypoints follow CutMix and Mosaic
==================================

`kmix.targets.Keypoints` moves points with the pixels that they belong to, and
marks those that the partner covers, or that leave the view.
"""

# %%
# Four generated scenes with two stick figures each. A figure has six points:
# the head, the hips, the hands and the feet, all visible (v = 2).

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

import kmix

rng = np.random.default_rng(4)
SIZE = 240
colors = ["#0072b2", "#d55e00", "#009e73", "#666666"]
# The points of a figure in its box, and the bones that join them to the hips.
parts = np.array(
    [[0.5, 0.1], [0.5, 0.6], [0.1, 0.3], [0.9, 0.3], [0.2, 0.9], [0.8, 0.9]]
)
rows, columns = np.mgrid[:SIZE, :SIZE]


def scene(color):
    """An image with two figures, their boxes and their points."""
    color = np.array(to_rgb(color), "float32")
    image = np.ones((SIZE, SIZE, 3), "float32") * (0.75 + 0.25 * color)
    boxes, points = [], []
    for x in (10, 125):
        y, width, height = rng.uniform([8, 85, 120], [80, 100, 150])
        figure = parts * [width, height] + [x, y] + rng.normal(0, 5, (6, 2))
        for point in figure:
            for step in np.linspace(0, 1, 60):
                i, j = step * figure[1] + (1 - step) * point
                image[np.hypot(columns - i, rows - j) < 3] = color
        i, j = figure[0]
        image[np.hypot(columns - i, rows - j) < 12] = color
        boxes.append([x, y, x + width, y + height])
        points.append(np.insert(figure, 2, 2, axis=1))
    return image, np.array(boxes), np.array(points)


scenes = zip(*map(scene, colors), strict=True)
images, boxes, points = (np.stack(each).astype("float32") for each in scenes)

# %%
# The points are an entry of the boxes, so that they drop with them. With
# `hidden=1`, a point under a pasted partner stays as one that is hidden.

target = kmix.targets.BoundingBoxes(
    "xyxy", keypoints=kmix.targets.Keypoints("xy", hidden=1)
)
people = {"boxes": boxes, "labels": np.zeros((4, 2)), "keypoints": points}
settings = {"target": target, "data_format": "channels_last", "seed": 5}
mixed = {
    "original": (images, people),
    "CutMix": kmix.CutMix(1.0, **settings).at_step(34, (images, people)),
    "Mosaic": kmix.Mosaic(**settings).at_step(4, (images, people)),
}

# %%
# Circles show, crosses are hidden; what left the view is not drawn.

figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for ax, (title, (x, y)) in zip(axes, mixed.items(), strict=True):
    ax.imshow(np.clip(x[0], 0, 1), extent=(0, SIZE, SIZE, 0))
    ax.set(title=title, xticks=[], yticks=[])
    real = y["labels"][0] >= 0
    for x0, y0, x1, y1 in y["boxes"][0][real]:
        frame = (x0, y0), x1 - x0, y1 - y0
        ax.add_patch(plt.Rectangle(*frame, fill=False, ec="black"))
    found = y["keypoints"][0][real].reshape(-1, 3)
    shows, hidden = (found[found[:, 2] == v, :2].T for v in (2, 1))
    ax.scatter(*shows, 45, facecolor="white", edgecolor="black", zorder=3)
    ax.scatter(*hidden, 45, color="black", marker="x")
plt.show()
