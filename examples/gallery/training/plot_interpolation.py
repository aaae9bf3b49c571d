"""
What a network predicts between two samples
===========================================

Between two samples, a network may predict a third class. One trained with
MixUp has seen such inputs and changes more evenly.
"""

# %%
# 1,000 of scikit-learn's digits to train on, and 300 others to test on.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import kmix

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
x_test, y_test = x[1000:1300], y[1000:1300]

# %%
# The same network twice, with the same initial weights. Alpha 0 is plain
# training.


def trained(alpha):
    """A small network after 30 passes over the data."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    trainer = kmix.MixTrainer(model, kmix.MixUp(alpha, seed=1))
    loss = kmix.losses.SoftLabelCrossentropy()
    trainer.compile(keras.optimizers.Adam(0.01), loss=loss)
    copies = np.tile(x[:1000], (30, 1)), np.tile(y[:1000], 30)
    trainer.fit(*copies, batch_size=100, verbose=0)
    return model


models = {"plain": trained(0.0), "MixUp, alpha 1": trained(1.0)}

# %%
# `interpolation` pairs the test samples at random and follows the network
# from each sample to its partner.

figure = plt.figure(figsize=(9, 6), layout="constrained")
for name, model in models.items():
    found = kmix.diagnostics.interpolation(model, x_test, y_test)
    found.plot(figure, label=name)
for ax in figure.axes:
    for line, color in zip(ax.lines, ["#666666", "#0072b2"], strict=True):
        line.set(color=color, linewidth=3, markersize=7)
    ax.title.set_fontsize(15)
    ax.set_xlabel("position between two samples", fontsize=13)
figure.axes[0].legend(fontsize=13)
plt.show()

# %%
# How far the left curves differ depends on the data: with 300 samples to
# train on, they hardly do.
