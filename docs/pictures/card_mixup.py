"""Two photographs, blended with six values of lam."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

import kmix

# Crops of china.jpg by danielbuechele and flower.jpg by vultilion, CC BY 2.0.
china, flower = load_sample_images().images
x = np.stack([china[27:427, 120:520], flower[10:410, 150:550], china[:400, :400], flower[27:427, 170:570]])
y = np.array([0, 1, 0, 1])

figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
for ax, lam in zip(axes, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0], strict=True):
    plan = kmix.MixUp(1.0).plan(0, 2)._replace(lam=np.full(2, lam, "float32"), permutation=np.array([1, 0]))
    blended = kmix.mixing.mix_inputs(x[:2].astype("float32"), plan)[0]
    ax.imshow(np.asarray(blended).clip(0, 255).astype("uint8"))
    ax.set_title(f"lam = {lam:g}", fontsize=10)
    ax.axis("off")
