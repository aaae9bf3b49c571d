"""
Put four photographs together with Mosaic
=========================================

`kmix.Mosaic` puts a sample and three partners around a random centre. No
image is resized: each shows the corner that meets the centre.
"""

# %%
# Four square crops of the photographs that come with scikit-learn form a
# batch. Two of them keep every second pixel.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

import kmix

china, flower = load_sample_images().images
images = np.stack(
    [
        china[15:405:2, 15:405:2],
        flower[30:420:2, 112:502:2],
        china[222:417, 390:585],
        china[60:255, 150:345],
    ]
)
labels = np.arange(4)

# %%
# A Mosaic has no alpha. The weights of the label are the shares of the
# pixels, here of up to four classes.

mosaic = kmix.Mosaic(num_classes=4, seed=3)
mixed, mixed_labels = mosaic.at_step(40, (images, labels))
names = ["temple", "flower", "trees", "roof"]
for name, share in zip(names, mixed_labels[0], strict=True):
    print(f"{name}: {share:.3f}")

# %%
# On the left the four samples, on the right the first sample after mixing.

figure = plt.figure(figsize=(9, 6.8), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 3.2])
kmix.plots.mixed_batch(
    images, labels, class_names=names, columns=1, figure=left
)
kmix.plots.mixed_batch(mixed, count=1, figure=right)
for ax in left.axes:
    ax.title.set_fontsize(13)
plt.show()

# %%
# .. rubric:: Attribution
#
# Photographs by danielbuechele (temple, trees, roof) and vultilion (flower),
# `CC BY 2.0 <https://creativecommons.org/licenses/by/2.0/>`__, cropped and
# mixed.
