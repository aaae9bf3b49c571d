"""Two photographs, blended with six values of lam."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
from readme import batch

import kmix

x, _ = batch()
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
for ax, lam in zip(axes, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0], strict=True):
    plan = kmix.MixUp(1.0).plan(0, 2)._replace(lam=np.full(2, lam, "float32"), permutation=np.array([1, 0]))
    blended = kmix.mixing.mix_inputs(x[:2].astype("float32"), plan)[0]
    ax.imshow(np.asarray(blended).clip(0, 255).astype("uint8"))
    ax.set_title(f"lam = {lam:g}", fontsize=10)
    ax.axis("off")
