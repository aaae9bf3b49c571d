"""
A time series with a pasted stretch
===================================

`kmix.CutMix` on series `(B, T, C)` replaces a stretch of time in all channels
at once, so that the channels stay aligned.
"""

# %%
# Two generated recordings of three sensors: someone walks, someone runs.

import matplotlib.pyplot as plt
import numpy as np

import kmix

rng = np.random.default_rng(0)
time = np.linspace(0, 10, 400)


def recording(steps_a_second, height):
    """Three channels of the same rhythm, `(T, 3)`."""
    phase = 2 * np.pi * steps_a_second * time[:, None] + np.array([0, 1, 2])
    noise = 0.1 * rng.standard_normal((400, 3))
    return height * np.sin(phase) + noise


x = np.stack([recording(0.5, 0.5), recording(1.6, 1.2)]).astype("float32")
labels = np.array([0, 1])

# %%
# `axes=1` names the axis of time. The last axis holds the channels, and the
# weights of the label are the shares of the time.

cutmix = kmix.CutMix(1.0, num_classes=2, axes=1, seed=1)
mixed, mixed_labels = cutmix.at_step(8, (x, labels))
start, stop = cutmix.plan(8, batch_size=2, spatial_shape=(400,)).box[0]
print("label of the first series:", mixed_labels[0])

# %%
# The grey ground marks what comes from the partner.

figure, axes = plt.subplots(
    3, 1, figsize=(9, 6), sharex=True, sharey=True, layout="constrained"
)
titles = [
    "walking",
    "running",
    f"{mixed_labels[0, 0]:.2f} walking, {mixed_labels[0, 1]:.2f} running",
]
for ax, series, title in zip(axes, [*x, mixed[0]], titles, strict=True):
    for channel, color in zip(
        series.T, ["#0072b2", "#d55e00", "#009e73"], strict=True
    ):
        ax.plot(time, channel, color=color, linewidth=1.8)
    ax.set_title(title, fontsize=15)
    ax.set(yticks=[], xlim=(0, 10))
    ax.spines[["top", "right", "left"]].set_visible(False)
axes[2].axvspan(10 * start / 400, 10 * stop / 400, color="#dddddd", zorder=0)
axes[2].set_xlabel("seconds", fontsize=13)
plt.show()
