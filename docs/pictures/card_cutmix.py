"""A photograph with a box of another, in six steps."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
from readme import batch

import kmix

x, y = batch()
layer = kmix.CutMix(1.0, num_classes=2, data_format="channels_last", seed=0)
steps = [step for step in range(100) if layer.plan(step, 2, spatial_shape=(400, 400)).permutation[0] == 1]
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
for ax, step in zip(axes, steps, strict=False):
    images, labels = layer.at_step(step, (x[:2], y[:2]))
    ax.imshow(images[0])
    ax.set_title(f"temple {labels[0, 0]:.2f}", fontsize=10)
    ax.axis("off")
