"""
Blend two photographs with MixUp
================================

`kmix.MixUp` blends each sample with a partner from the same batch. The label
is blended with the same weights.
"""

# %%
# Two square crops of the photographs that come with scikit-learn form a batch.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

import kmix

china, flower = load_sample_images().images
images = np.stack([china[15:405, 15:405], flower[30:420, 112:502]])
labels = np.array([0, 1])

# %%
# The layer draws lam for each sample, the share that the sample keeps.
# The step, 13, numbers the batch: one seed and step always give the same mix.

mixup = kmix.MixUp(1.0, num_classes=2, seed=1)
mixed, mixed_labels = mixup.at_step(13, (images, labels))

# %%
# The title of the large picture is its label, one share for each class.

names = ["temple", "flower"]
figure = plt.figure(figsize=(9, 6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 2])
kmix.plots.mixed_batch(
    images, labels, class_names=names, columns=1, figure=left
)
kmix.plots.mixed_batch(
    mixed, mixed_labels, class_names=names, count=1, figure=right
)
for ax in figure.axes:
    ax.title.set_fontsize(15)
plt.show()

# %%
# .. rubric:: Attribution
#
# Photographs by danielbuechele (temple) and vultilion (flower),
# `CC BY 2.0 <https://creativecommons.org/licenses/by/2.0/>`__, cropped and
# mixed.
