"""A scene and its boxes, under CutMix, Mosaic and MixUp."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import kmix

SIZE, STYLES = 48, ("-", "--")


def scenes(number, seed):
    """Red and green rectangles on noise, each with its box."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.3, (number, SIZE, SIZE, 3)).astype("float32")
    boxes, labels = np.full((number, 3, 4), -1.0, "float32"), np.full((number, 3), -1.0, "float32")
    for index in range(number):
        for box in range(rng.integers(2, 4)):
            (left, top), (width, height) = rng.integers(2, SIZE - 18, size=2), rng.integers(8, 16, size=2)
            label = rng.integers(2)
            images[index, top : top + height, left : left + width, label] += 0.6
            boxes[index, box], labels[index, box] = (left, top, left + width, top + height), label
    return images, {"boxes": boxes, "labels": labels}


batch = scenes(6, seed=4)
target = kmix.targets.BoundingBoxes("xyxy", weights=True)
settings = {"target": target, "data_format": "channels_last", "seed": 1}
columns = {
    "original": kmix.MixUp(0.0, target=target, seed=1).at_step(0, batch),
    "CutMix": kmix.CutMix(1.0, **settings).at_step(4, batch),
    "Mosaic": kmix.Mosaic(**settings).at_step(12, batch),
    "MixUp": kmix.MixUp(4.0, target=target, seed=1).at_step(1, batch),
}
figure, axes = plt.subplots(1, 4, figsize=(8, 2.3), layout="constrained")
for ax, (title, (x, y)) in zip(axes, columns.items(), strict=True):
    ax.imshow(np.clip(x[0], 0, 1), extent=(0, SIZE, SIZE, 0))
    for (x0, y0, x1, y1), label, weight in zip(y["boxes"][0], y["labels"][0], y["weights"][0], strict=True):
        if label >= 0:
            frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=1.6, ls=STYLES[int(label)])
            ax.add_patch(frame)
            if weight < 1:
                ax.text(x0 + 1, y0 + 1, f"{weight:.2f}", color="white", va="top", fontsize=8)
    ax.set(title=title, xticks=[], yticks=[])
