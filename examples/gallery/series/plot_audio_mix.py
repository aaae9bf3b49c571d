"""
Sounds at a signal-to-noise ratio
=================================

`kmix.AudioMix` adds waves `(B, T)`. With `snr`, each partner lies a drawn
number of decibels below its sample, however loud it was recorded.
"""

# %%
# Three generated sounds: a soft call, a loud hum, and clicks.

import matplotlib.pyplot as plt
import numpy as np

import kmix

RATE, FRAME, HOP = 8000, 256, 64
time = np.arange(2 * RATE) / RATE
call = 0.05 * np.sin(2 * np.pi * (1500 * time + 60 * np.sin(12 * time)))
hum = sum(
    np.sin(2 * np.pi * f * time) / i for i, f in enumerate([300, 600], 1)
)
clicks = 0.5 * (time % 0.4 < 0.01) * np.sin(2 * np.pi * 3000 * time)
x = np.stack([call, hum, clicks]).astype("float32")
names = ["call", "hum", "clicks"]

# %%
# Three sources, 0 to 12 dB below the sample. The weights of the label are the
# shares of the amplitudes, after all sounds are brought to one level.

layer = kmix.AudioMix(snr=(0, 12), num_sources=3, num_classes=3, seed=1)
mixed, labels = layer.at_step(6, (x, np.arange(3)))
print("label of the first mix:", labels[0].round(2))

# %%
# The hum, which was far louder than the call, no longer hides it.


def spectrogram(wave):
    """The level of each frequency and frame in decibels, `(F, T)`."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP]
    levels = abs(np.fft.rfft(frames * np.hanning(FRAME)))
    return 20 * np.log10(levels.T + 1e-3)


figure, axes = plt.subplot_mosaic(
    "abc;ddd", figsize=(9, 6), height_ratios=[1, 1.6], layout="constrained"
)
shares = [f"{w:.2f} {name}" for w, name in zip(labels[0], names, strict=True)]
titles = [*names, ", ".join(shares)]
for key, wave, title in zip("abcd", [*x, mixed[0]], titles, strict=True):
    axes[key].imshow(
        spectrogram(wave),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-40,
        vmax=35,
        extent=(0, 2, 0, RATE / 2000),
    )
    axes[key].set_title(title, fontsize=15)
    axes[key].set(yticks=range(5), xticks=[0, 1, 2])
axes["a"].set_ylabel("kHz", fontsize=13)
axes["d"].set_ylabel("kHz", fontsize=13)
axes["d"].set_xlabel("seconds", fontsize=13)
plt.show()
