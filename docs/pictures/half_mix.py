"""A mixer from outside kmix: the lower part of the partner, with label weights."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import kmix


class Below(NamedTuple):
    """The rows of the partner that are pasted: those below `row`."""

    row: Any

    def paste(self, xp, x, permutation, axes):
        rows = xp.reshape(xp.arange(xp.size(x, 1)), (1, -1, 1, 1))
        return xp.where(rows < xp.along(self.row, x), x, xp.take(x, permutation))


class HalfMix(kmix.layers.MixLayer):
    """The mixer of the page."""

    input_mixing = kmix.layers.Paste("channels_last")
    stream = kmix.plan.reserve("HalfMix", 3072)

    def sample(self, seed, step, alpha, size, spatial_shape, *, xp, **settings):
        drawn = kmix.plan.sample_mixup(seed, step, alpha, size, stream=self.stream, xp=xp, **settings)
        height = xp.cast(spatial_shape[0], "float32")
        row = xp.math.floor(drawn.lam * height + 0.5)
        return drawn._replace(lam=row / height, region=Below(xp.cast(row, "int32")))


digits = load_digits()
x, ids = digits.images[:7, ..., None].astype("float32") / 16, digits.target[:7]
pairing = kmix.pairing.RandomPairs(allow_self=False)
mixed, labels = HalfMix(2.0, num_classes=10, pairing=pairing, seed=4).at_step(0, (x, ids))
figure, axes = plt.subplots(2, 7, figsize=(9, 3.1))
for column in range(7):
    axes[0, column].set_title(f"{ids[column]}", fontsize=10)
    both = [
        f"{digit}: {labels[column, digit]:.2f}" for digit in np.argsort(-labels[column])[:2] if labels[column, digit]
    ]
    axes[1, column].set_title("\n".join(both), fontsize=9)
    for row, images in enumerate((x, mixed)):
        axes[row, column].imshow(images[column, ..., 0], cmap="gray_r", vmin=0, vmax=1)
        axes[row, column].set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("given")
axes[1, 0].set_ylabel("HalfMix")
