"""
Schedules: alpha as a function of the step
==========================================

A schedule is a function of the step. Pass it as `alpha`, and the pipeline
evaluates it for each batch.
"""

# %%
# Four schedules. `Join` puts several behind one another: warm up, hold, and
# train on clean data at the end.

import matplotlib.pyplot as plt
import numpy as np

import kmix
from kmix.schedules import Cosine, Join, Linear, Piecewise, Polynomial

schedules = {
    "Join": Join([Linear(0.0, 1.0, 50), 1.0, 0.0], boundaries=[50, 160]),
    "Cosine": Cosine(0.8, 0.0, 200),
    "Piecewise": Piecewise([0.2, 0.6, 0.3], boundaries=[70, 130]),
    "Polynomial": Polynomial(1.0, 0.0, 200, power=3.0),
}

# %%
# The plans of `mixup` follow the first of them, exactly to the step. A step
# with alpha 0 mixes nothing: lam is 1.

mixup = kmix.MixUp(schedules["Join"], seed=1)
steps = np.arange(200)
lam = np.stack([mixup.plan(step, batch_size=8).lam for step in range(200)])
print("mixed from step 160 on:", bool((lam[160:] < 1).any()))

# %%
# At the top alpha, at the bottom lam of eight samples in each step of `Join`.

figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(9, 6), sharex=True, layout="constrained"
)
colors = ["#0072b2", "#d55e00", "#009e73", "#666666"]
styles = ["-", "--", "-.", ":"]
for (name, schedule), color, style in zip(
    schedules.items(), colors, styles, strict=True
):
    alpha = [schedule(step) for step in range(200)]
    top.plot(steps, alpha, style, color=color, linewidth=3.5, label=name)
top.set_ylabel("alpha", fontsize=14)
figure.legend(loc="outside upper center", ncols=4, fontsize=14)
bottom.plot(steps, lam, ".", color="#0072b2", markersize=6, alpha=0.6)
bottom.set_ylabel("lam (Join)", fontsize=14)
bottom.set_xlabel("step", fontsize=14)
for ax in (top, bottom):
    ax.set(xlim=(0, 200))
    ax.spines[["top", "right"]].set_visible(False)
plt.show()
