"""Two sentences as vectors of words, and their blend with the union of their padding masks."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np

import kmix

rng = np.random.default_rng(4)
table = rng.normal(size=(30, 6)).astype("float32")
table[0] = 0
ids = np.array([[5, 9, 3, 12, 0, 0, 0, 0], [7, 2, 14, 8, 21, 11, 4, 0]])
plan = kmix.MixUp(1.0).plan(0, 2)._replace(lam=np.full(2, 0.6, "float32"), permutation=np.array([1, 0]))
blended = np.asarray(kmix.mixing.mix_inputs(table[ids], plan))[0]
mask = (ids != 0).any(axis=0)

figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True)
for ax, title, values, known in [
    (axes[0], "sample, 4 words", table[ids[0]], ids[0] != 0),
    (axes[1], "partner, 7 words", table[ids[1]], ids[1] != 0),
    (axes[2], "0.6 * sample + 0.4 * partner", blended, mask),
]:
    ax.imshow(np.where(known, values.T, np.nan), cmap="RdBu", vmin=-2.5, vmax=2.5, aspect="auto")
    ax.set(title=title, xlabel="position", xticks=range(8), yticks=[])
    ax.set_facecolor("#dddddd")
axes[0].set_ylabel("embedding")
figure.text(0.995, 0.01, "grey: masked", ha="right", fontsize=9, color="#555555")
