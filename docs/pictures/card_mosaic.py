"""Four photographs in one, in six steps."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
from readme import batch

import kmix

x, y = batch()
layer = kmix.Mosaic(num_classes=2, data_format="channels_last", seed=0)
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
for ax, step in zip(axes, [36, 48, 75, 133, 143, 264], strict=True):
    images, labels = layer.at_step(step, (x, y))
    ax.imshow(images[0])
    ax.set_title(f"temple {labels[0, 0]:.2f}", fontsize=10)
    ax.axis("off")
