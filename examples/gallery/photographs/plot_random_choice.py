"""
Use another mixer for each batch with RandomChoice
==================================================

`kmix.RandomChoice` draws one of its mixers for each batch, here `MixUp`,
`CutMix` or `Mosaic`.
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
# The layers agree on what the labels are. `probabilities` weights them; by
# default, all are equally likely.

layers = [
    kmix.MixUp(1.0, num_classes=4, seed=193),
    kmix.CutMix(1.0, num_classes=4, seed=193),
    kmix.Mosaic(num_classes=4, seed=193),
]
mixer = kmix.RandomChoice(layers, seed=193)

# %%
# The plan of a step says which one was drawn. The picture shows the first
# sample of the same batch at six steps.

figure, axes = plt.subplots(2, 3, figsize=(9, 6.5), layout="constrained")
for step, ax in enumerate(axes.flat):
    mixed, _ = mixer.at_step(step, (images, labels))
    plan = mixer.plan(step, batch_size=4, spatial_shape=(195, 195))
    ax.imshow(np.asarray(mixed[0]) / 255)
    ax.set_title(f"step {step}: {type(layers[plan.choice]).__name__}")
    ax.set_axis_off()
plt.show()

# %%
# .. rubric:: Attribution
#
# Photographs by danielbuechele (temple, trees, roof) and vultilion (flower),
# `CC BY 2.0 <https://creativecommons.org/licenses/by/2.0/>`__, cropped and
# mixed.
