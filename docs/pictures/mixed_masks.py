"""A scene and its mask, under CutMix, Mosaic and MixUp."""

import matplotlib.pyplot as plt
import numpy as np

import kmix

SIZE, COLORS = 48, np.array([[0.15, 0.15, 0.2], [0.9, 0.6, 0.1], [0.2, 0.6, 0.9]])


def scenes(number, seed):
    """Squares and discs on noise, each with its mask."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.35, (number, SIZE, SIZE, 3)).astype("float32")
    masks = np.zeros((number, SIZE, SIZE), "int32")
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for index in range(number):
        kind, radius = 1 + index % 2, rng.integers(9, 14)
        row, column = rng.integers(13, SIZE - 13, size=2)
        far = abs(rows - row), abs(columns - column)
        inside = (np.maximum(*far) if kind == 1 else np.hypot(*far)) < radius
        images[index, inside] += rng.uniform(0.3, 0.6, 3)
        masks[index, inside] = kind
    return images, masks


images, masks = scenes(6, seed=3)
settings = {"target": kmix.targets.SegmentationMasks(3), "data_format": "channels_last", "seed": 1}
columns = {
    "original": (images, masks),
    "CutMix": kmix.CutMix(1.0, **settings).at_step(4, (images, masks)),
    "Mosaic": kmix.Mosaic(**settings).at_step(12, (images, masks)),
    "MixUp": kmix.MixUp(4.0, target=settings["target"], seed=1).at_step(1, (images, masks)),
}
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
for column, (title, (x, y)) in zip(axes.T, columns.items(), strict=True):
    shares = np.eye(3)[y[0]] if y.ndim == 3 else y[0]
    column[0].imshow(np.clip(x[0], 0, 1))
    column[1].imshow(shares @ COLORS)
    column[0].set_title(title)
for ax, name in zip(axes[:, 0], ("image", "mask"), strict=True):
    ax.set_ylabel(name)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
