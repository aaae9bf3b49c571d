"""
Objects pasted along their outlines
===================================

`kmix.CopyPaste` pastes objects of a partner into each image. The masks below
them lose what is covered, and the boxes follow.
"""

# %%
# Four generated scenes with three discs each. The label of a disc is its
# colour, and a disc in front hides a part of those behind it.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

import kmix

rng = np.random.default_rng(4)
colors = ["#0072b2", "#d55e00", "#009e73", "#666666"]
rows, columns = np.mgrid[:240, :240]


def scene(color):
    """An image with three discs, and the mask of what shows of each."""
    color = np.array(to_rgb(color), "float32")
    image = np.ones((240, 240, 3), "float32") * (0.8 + 0.2 * color)
    masks = np.zeros((3, 240, 240), bool)
    for i, tone in enumerate((0.7, 0.85, 1)):
        (x, y), radius = rng.uniform(40, 200, 2), rng.uniform(30, 44)
        masks[i] = np.hypot(columns - x, rows - y) < radius
        masks[:i] &= ~masks[i]
        image[masks[i]] = tone * color
    return image, masks


def box(mask):
    """The corners around a mask, x0, y0, x1, y1."""
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


images, masks = map(np.stack, zip(*map(scene, colors), strict=True))
boxes = np.array([[box(mask) for mask in each] for each in masks], "float32")
labels = np.repeat(np.arange(4)[:, None], 3, axis=1)
batch = {
    "images": images,
    "instances": {"masks": masks, "boxes": boxes, "labels": labels},
}

# %%
# `InstanceMasks` keeps mask, box and label of an object together. Its
# argument is the format of the boxes.

target = {"instances": kmix.targets.InstanceMasks("xyxy")}
paste = kmix.CopyPaste(instance_rate=0.7, target=target, seed=1)
mixed = paste.at_step(6, batch)
print("labels before:", labels[0])
print("labels after: ", mixed["instances"]["labels"][0])

# %%
# Above the four samples, below each of them after mixing, with the outline
# and the box of every object.


def show(ax, batch, row):
    """An image with the outlines and the boxes of its objects."""
    objects = {name: leaf[row] for name, leaf in batch["instances"].items()}
    ax.imshow(batch["images"][row])
    for i in np.flatnonzero(objects["labels"] >= 0):
        color = colors[objects["labels"][i]]
        ax.contour(objects["masks"][i], [0.5], colors="black", linewidths=1.5)
        (x0, y0, x1, y1) = objects["boxes"][i]
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color)
        ax.add_patch(frame)
    ax.set(xticks=[], yticks=[])


figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
for row in range(4):
    show(axes[0, row], batch, row)
    show(axes[1, row], mixed, row)
axes[0, 0].set_ylabel("samples", fontsize=13)
axes[1, 0].set_ylabel("mixed", fontsize=13)
plt.show()
