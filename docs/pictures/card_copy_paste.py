"""A scene of discs and squares, and three steps that paste objects of other scenes, with the outlines of all masks."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np

import kmix

SIZE, MOST = 96, 3


def scenes(number, seed):
    """Discs and squares in the colours of their scene, each with its mask."""
    rng = np.random.default_rng(seed)
    images = np.ones((number, SIZE, SIZE, 3), "float32") * rng.uniform(0.75, 0.95, (number, 1, 1, 3))
    masks, labels = np.zeros((number, MOST, SIZE, SIZE), bool), rng.integers(2, size=(number, MOST))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for image, objects, kinds in zip(images, masks, labels, strict=True):
        color = rng.uniform(0, 0.6, 3)
        for i, mask in enumerate(objects):
            (row, column), radius = rng.uniform(18, SIZE - 18, 2), rng.uniform(12, 18)
            far = abs(rows - row), abs(columns - column)
            mask[:] = (np.maximum(*far) if kinds[i] else np.hypot(*far)) < radius
            objects[:i] &= ~mask
            image[mask] = color * rng.uniform(0.6, 1.4)
    return {"images": images.astype("float32"), "instances": {"masks": masks, "labels": labels}}


def show(ax, batch, row=0):
    """An image with the outlines of its objects."""
    ax.imshow(np.clip(batch["images"][row], 0, 1))
    objects = batch["instances"]
    for mask, label in zip(objects["masks"][row], objects["labels"][row], strict=True):
        if label >= 0 and mask.any():
            ax.contour(mask, levels=[0.5], colors="black", linewidths=1.5)
    ax.set(xticks=[], yticks=[])


plt.close("all")
batch = scenes(6, seed=8)
layer = kmix.CopyPaste(instance_rate=0.5, data_format="channels_last", seed=1)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
show(axes[0], batch)
axes[0].set_title("original", fontsize=10)
for ax, step in zip(axes[1:], [0, 3, 4], strict=True):
    mixed = layer.at_step(step, batch)
    show(ax, mixed)
    count = int((mixed["instances"]["labels"][0] >= 0).sum())
    ax.set_title(f"{count} objects", fontsize=10)
