"""
A spectrogram cut in time
=========================

With `axes=2`, `kmix.CutMix` cuts spectrograms `(B, F, T)` in time alone. All
frequencies of the cut come from the partner.
"""

# %%
# Two generated chirps, one rising and one wobbling, and their spectrograms.

import matplotlib.pyplot as plt
import numpy as np

import kmix

RATE, FRAME, HOP = 8000, 256, 64
time = np.arange(2 * RATE) / RATE
rng = np.random.default_rng(0)


def spectrogram(wave):
    """The level of each frequency and frame in decibels, `(F, T)`."""
    wave = wave + 0.02 * rng.standard_normal(len(wave))
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP]
    levels = abs(np.fft.rfft(frames * np.hanning(FRAME)))
    return 20 * np.log10(levels.T + 1e-3)


rising = np.sin(2 * np.pi * (300 * time + 700 * time**2))
wobble = np.sin(2 * np.pi * (2000 * time + 120 * np.sin(7 * time)))
x = np.stack([spectrogram(rising), spectrogram(wobble)]).astype("float32")

# %%
# The weights of the label are the shares of the frames.

cutmix = kmix.CutMix(1.0, num_classes=2, axes=2, seed=1)
mixed, labels = cutmix.at_step(8, (x, np.array([0, 1])))
plan = cutmix.plan(8, batch_size=2, spatial_shape=x.shape[1:])
print("box (f0, t0, f1, t1):", plan.box[0])

# %%
# The white lines mark the cut.

figure, axes = plt.subplot_mosaic(
    "ab;cc", figsize=(9, 6), height_ratios=[1, 1.6], layout="constrained"
)
shares = f"{labels[0, 0]:.2f} rising, {labels[0, 1]:.2f} wobbling"
panels = zip(
    "abc", [x[0], x[1], mixed[0]], ["rising", "wobbling", shares], strict=True
)
for name, levels, title in panels:
    ax = axes[name]
    ax.imshow(
        levels,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-20,
        extent=(0, 2, 0, RATE / 2000),
    )
    ax.set_title(title, fontsize=15)
    ax.set(yticks=range(5), xticks=[0, 0.5, 1, 1.5, 2])
axes["a"].set_ylabel("kHz", fontsize=13)
axes["c"].set_ylabel("kHz", fontsize=13)
axes["c"].set_xlabel("seconds", fontsize=13)
for frame in plan.box[0, [1, 3]]:
    axes["c"].axvline(
        2 * frame / x.shape[2], color="white", linewidth=2.5, linestyle="--"
    )
plt.show()
