"""Two chirps, MixUp of their waves, CutMix of their spectrograms in time."""

import matplotlib.pyplot as plt
import numpy as np

import kmix

RATE, LENGTH = 4000, 4096
time = np.arange(LENGTH) / RATE
sweep = {"rising": 300 * time + 450 * time**2, "falling": 1400 * time - 450 * time**2}
waves = np.stack([np.sin(2 * np.pi * phase) for phase in sweep.values()]).astype("float32")


def spectrograms(waves):
    """Spectrograms `(B, F, T)` in dB."""
    frames = np.lib.stride_tricks.sliding_window_view(waves, 256, axis=1)[:, ::32]
    power = np.abs(np.fft.rfft(frames * np.hanning(256))) ** 2
    return 10 * np.log10(np.swapaxes(power, 1, 2) + 1e-2)


others = kmix.pairing.RandomPairs(allow_self=False)
mixup = kmix.MixUp(1.0, num_classes=2, pairing=others, seed=1)
cutmix = kmix.CutMix(1.0, num_classes=2, axes=2, pairing=others, seed=1)
clean = spectrograms(waves).astype("float32")
size = clean.shape[1:]


def inside(step):
    box = cutmix.plan(step, 2, spatial_shape=size).box[0]
    return box[1] > 15 and box[3] < size[1] - 15 and 0.5 < cutmix.plan(step, 2, spatial_shape=size).lam[0] < 0.7


blended, blended_y = mixup.at_step(
    next(step for step in range(100) if 0.5 < mixup.plan(step, 2).lam[0] < 0.7), (waves, np.array([0, 1]))
)
pasted, pasted_y = cutmix.at_step(next(filter(inside, range(500))), (clean, np.array([0, 1])))

panels = {
    "rising": clean[0],
    "falling": clean[1],
    f"MixUp of the waves\n{blended_y[0, 0]:.2f} rising, {blended_y[0, 1]:.2f} falling": spectrograms(blended)[0],
    f"CutMix in time\n{pasted_y[0, 0]:.2f} rising, {pasted_y[0, 1]:.2f} falling": pasted[0],
}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.7), sharey=True, layout="constrained")
for ax, (title, picture) in zip(axes, panels.items(), strict=True):
    extent = (0, LENGTH / RATE, 0, RATE / 2000)
    ax.imshow(picture, "gray_r", origin="lower", aspect="auto", extent=extent, vmin=-20, vmax=36)
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel("seconds")
axes[0].set_ylabel("kHz")
