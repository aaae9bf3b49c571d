"""
Bounding boxes follow a Mosaic
==============================

`kmix.Mosaic` moves the boxes with their images, clips them, and drops those
of which too little shows.
"""

# %%
# Four generated scenes with three discs each. The label of a disc is its
# colour, and its box is given by the corners in pixels.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

import kmix

rng = np.random.default_rng(10)
colors = {
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "grey": "#666666",
}
rows, columns = np.mgrid[:240, :240]


def scene(color):
    """An image with three discs, and their boxes as x0, y0, x1, y1."""
    color = np.array(to_rgb(color), "float32")
    image = np.ones((240, 240, 3), "float32") * (0.8 + 0.2 * color)
    boxes = []
    for y in (44, 120, 196):
        x, radius = rng.uniform(40, 200), rng.uniform(26, 36)
        image[np.hypot(columns - x, rows - y) < radius] = color
        boxes.append([x - radius, y - radius, x + radius, y + radius])
    return image, np.array(boxes, "float32")


scenes = map(scene, colors.values())
images, boxes = map(np.stack, zip(*scenes, strict=True))
labels = np.repeat(np.arange(4.0)[:, None], 3, axis=1)
batch = {
    "images": images,
    "bounding_boxes": {"boxes": boxes, "labels": labels},
}

# %%
# `BoundingBoxes` names the format. The mixed batch has room for the boxes of
# all four images, padded with -1.

target = {"bounding_boxes": kmix.targets.BoundingBoxes("xyxy")}
mosaic = kmix.Mosaic(target=target, seed=3)
mixed = mosaic.at_step(44, batch)
print("boxes before:", boxes.shape)
print("boxes after: ", mixed["bounding_boxes"]["boxes"].shape)

# %%
# On the left the four samples, on the right the first sample after mixing.

figure = plt.figure(figsize=(9, 6.8), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 3.2])
names = list(colors)
kmix.plots.mixed_batch(
    batch,
    bounding_box_format="xyxy",
    class_names=names,
    columns=1,
    figure=left,
)
kmix.plots.mixed_batch(
    mixed,
    bounding_box_format="xyxy",
    class_names=names,
    count=1,
    figure=right,
)
for text in right.axes[0].texts:
    text.set_fontsize(14)
plt.show()
