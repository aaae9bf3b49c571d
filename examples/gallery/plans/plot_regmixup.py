"""
RegMixup: clean and mixed samples in one batch
==============================================

With `include_clean=True`, a layer returns twice as many samples: the clean
ones first, then the mixed ones (RegMixup).
"""

# %%
# Three of scikit-learn's digits. `allow_self=False` gives each of them
# another one as its partner.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import kmix

images, labels = load_digits(return_X_y=True)
images, labels = images[:3].reshape(3, 8, 8, 1), labels[:3]
others = kmix.pairing.RandomPairs(allow_self=False)
mixup = kmix.MixUp(
    1.0, num_classes=10, pairing=others, include_clean=True, seed=1
)
x, y = mixup.at_step(19, (images.astype("float32"), labels))
print(images.shape, "->", np.shape(x))

# %%
# The top row is clean, the bottom row is mixed.

figure = plt.figure(figsize=(9, 6.4), layout="constrained")
kmix.plots.mixed_batch(x, y, columns=3, figure=figure)
for ax in figure.axes:
    ax.title.set_fontsize(15)
plt.show()
