"""
A decision boundary with and without MixUp
==========================================

Trained long enough, this network bends its boundary around single samples.
With MixUp, the boundary is smoother and the network less confident.
"""

# %%
# Two moons that overlap, 60 samples.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import kmix

x, y = make_moons(60, noise=0.3, random_state=3)
x = x.astype("float32")

# %%
# The same network twice, with the same initial weights. Alpha 0 is plain
# training.


def trained(alpha):
    """A network of two hidden layers, after 300 steps in one epoch."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    trainer = kmix.MixTrainer(model, kmix.MixUp(alpha, seed=1))
    loss = kmix.losses.SoftLabelCrossentropy()
    trainer.compile(keras.optimizers.Adam(0.01), loss=loss)
    copies = np.tile(x, (300, 1)), np.tile(y, 300)
    trainer.fit(*copies, batch_size=60, shuffle=False, verbose=0)
    return model


models = {"plain": trained(0.0), "MixUp, alpha 1": trained(1.0)}

# %%
# The darker the ground, the less confident the network. The line divides the
# predicted classes.

colors = ["#0072b2", "#d55e00"]
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=colors)
figure, axes = plt.subplots(
    1, 2, figsize=(9, 6), sharey=True, layout="constrained"
)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    kmix.plots.decision_boundary(model, x, y, points=120, ax=ax)
    ax.set_title(name, fontsize=16)
    ax.set(xticks=[], yticks=[])
    for dots in ax.collections[-2:]:
        dots.set_sizes([70])
    ax.legend(title="class", loc="lower left", fontsize=13)
plt.show()
