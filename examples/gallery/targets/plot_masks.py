"""
Segmentation masks follow the images
====================================

`kmix.CutMix` pastes class ids with the pixels. `kmix.MixUp` blends the masks,
so that each pixel has a share for every class.
"""

# %%
# Two generated scenes: shapes of three classes, and their masks.

import matplotlib.pyplot as plt
import numpy as np

import kmix

SIZE = 96
rows, columns = np.mgrid[:SIZE, :SIZE]


def scene(*shapes):
    """An image and its mask; a shape is (class, row, column, radius)."""
    mask = np.zeros((SIZE, SIZE), "int32")
    for class_id, row, column, radius in shapes:
        y, x = rows - row, columns - column
        inside = {
            1: np.hypot(x, y) < radius,
            2: np.maximum(abs(x), abs(y)) < 0.85 * radius,
            3: (y < 0.7 * radius) & (y > 1.7 * abs(x) - radius),
        }
        mask[inside[class_id]] = class_id
    stripes = np.sin(0.25 * rows + 0.15 * columns)
    image = np.where(mask > 0, 0.4 + 0.2 * stripes, 0.9 + 0.1 * stripes)
    return image.astype("float32")[..., None], mask


scenes = [
    scene((1, 36, 34, 24), (2, 68, 70, 18)),
    scene((3, 60, 34, 28), (1, 28, 72, 17)),
]
images, masks = map(np.stack, zip(*scenes, strict=True))

# %%
# `SegmentationMasks` says what `y` is. The ids of a CutMix stay ids; those of
# a MixUp come out as shares `(B, H, W, 4)`.

target = kmix.targets.SegmentationMasks(4)
cutmix = kmix.CutMix(1.0, target=target, seed=1)
mixup = kmix.MixUp(1.0, target=target, seed=1)
cut_images, cut_masks = cutmix.at_step(58, (images, masks))
mixed_images, mixed_masks = mixup.at_step(3, (images, masks))
print("CutMix:", cut_masks.dtype, cut_masks.shape)
print("MixUp: ", mixed_masks.dtype, mixed_masks.shape)

# %%
# The masks are drawn over the images, in one colour for each class.

figure = plt.figure(figsize=(9, 6), layout="constrained")
parts = figure.subfigures(1, 3)
batches = {
    "before": (images, masks),
    "CutMix": (cut_images, cut_masks),
    "MixUp": (mixed_images, mixed_masks),
}
for part, (name, (x, y)) in zip(parts, batches.items(), strict=True):
    kmix.plots.mixed_batch(x, masks=y, columns=1, figure=part)
    part.suptitle(name, fontsize=16)
plt.show()
