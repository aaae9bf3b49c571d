"""A rising chirp and a falling one at five signal-to-noise ratios."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
from mixed_chirps import spectrograms, waves

import kmix

plt.close("all")
figure, axes = plt.subplots(1, 5, figsize=(9, 2.1), layout="constrained")
for ax, ratio in zip(axes, [40, 20, 10, 0, -10], strict=True):
    layer = kmix.AudioMix(snr=(ratio, ratio), num_classes=2, seed=1)
    mixed, labels = layer.at_step(0, (waves, np.array([0, 1])))
    ax.imshow(spectrograms(mixed)[0], "gray_r", origin="lower", aspect="auto", vmin=-20, vmax=36)
    ax.set_title(f"{ratio} dB: {labels[0, 0]:.2f} rising", fontsize=10)
    ax.axis("off")
