"""
Your own target: hours around the clock
=======================================

Hours are no ordinary numbers: the middle of 23 h and 1 h is midnight and not
noon. A target class mixes them the short way around the clock.
"""

# %%
# A subclass of `kmix.targets.Target` says how `y` follows a plan. `xp` has
# the operations of the batch's framework.

import keras
import matplotlib.pyplot as plt
import numpy as np

import kmix


@keras.saving.register_keras_serializable("gallery")
class Hours(kmix.targets.Target):
    """Hours of the day, which mix the short way around the clock."""

    def mix(self, xp, y, weight, plan, info):
        partner = xp.take(y, plan.permutation)
        way = (partner - y + 12) % 24 - 12
        lam = xp.along(plan.lam, y)
        return (y + (1 - lam) * way) % 24, weight


# %%
# The same plan mixes the hours of four samples as hours and, for comparison,
# as plain numbers.

inputs = np.zeros((4, 1), "float32")
hours = np.array([22.0, 20.0, 1.0, 3.0], "float32")
clock = kmix.MixUp(1.0, target=Hours(), seed=7)
numbers = kmix.MixUp(1.0, seed=7)
_, mixed = clock.at_step(5, (inputs, hours))
_, as_numbers = numbers.at_step(5, (inputs, hours))
partners = hours[clock.plan(step=5, batch_size=4).permutation]

# %%
# Each ring is one sample: the green mix lies on the short way from the blue
# sample to its orange partner. The crosses mark the mix of plain numbers.

figure = plt.figure(figsize=(9, 6), layout="constrained")
ax = figure.add_subplot(projection="polar")
turn, rings = 2 * np.pi / 24, np.array([0.4, 0.6, 0.8, 1.0])
for start, end, ring in zip(hours, partners, rings, strict=True):
    way = (end - start + 12) % 24 - 12
    path = np.linspace(start, start + way) * turn
    ax.plot(path, np.full(50, ring), color="#666666", linewidth=3)
for name, values, style in [
    ("sample", hours, {"marker": "o", "color": "#0072b2"}),
    ("partner", partners, {"marker": "o", "color": "#d55e00"}),
    ("mix, as hours", mixed, {"marker": "o", "color": "#009e73"}),
    ("mix, as numbers", as_numbers, {"marker": "x", "color": "black"}),
]:
    ax.scatter(
        values * turn,
        rings,
        s=170,
        linewidths=3,
        zorder=3,
        label=name,
        **style,
    )
ax.set_theta_zero_location("N")
ax.set_theta_direction(-1)
ax.set_xticks(np.arange(0, 24, 3) * turn)
ax.set_xticklabels([f"{hour} h" for hour in range(0, 24, 3)], fontsize=14)
ax.set(yticks=[], ylim=(0, 1.12))
figure.legend(loc="outside right center", fontsize=14)
plt.show()
