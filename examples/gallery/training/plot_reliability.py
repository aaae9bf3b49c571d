"""
Calibration before and after
============================

A reliability diagram shows whether a network's confidence is right: on the
diagonal, it is. Mixing lowers confidence, which may be good or too much.
"""

# %%
# 200 of scikit-learn's digits to train on, 1,000 others to test on; once with
# their own labels, and once with 3 of 10 training labels drawn at random.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import kmix

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
rng = np.random.default_rng(0)
order = rng.permutation(len(x))
train, test = order[:200], order[200:1200]
random = np.where(rng.random(200) < 0.3, rng.integers(0, 10, 200), y[train])
labels = {"clean labels": y[train], "30 % random labels": random}

# %%
# The same network on both, plainly and with MixUp. Alpha 0 is plain training.


def probabilities(alpha, labels):
    """Predictions for the test data after 100 passes over the samples."""
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
    copies = np.tile(x[train], (100, 1)), np.tile(labels, 100)
    trainer.fit(*copies, batch_size=100, verbose=0)
    return model.predict(x[test], verbose=0)


# %%
# Below the diagonal, a network is overconfident; above it, underconfident.

figure, axes = plt.subplots(
    1, 2, figsize=(9, 6), sharey=True, layout="constrained"
)
alphas = {"plain": 0.0, "MixUp": 1.0}
colors = {"plain": "#666666", "MixUp": "#0072b2"}
for ax, (kind, noisy) in zip(axes, labels.items(), strict=True):
    for name, alpha in alphas.items():
        p = probabilities(alpha, noisy)
        accuracy = (p.argmax(axis=1) == y[test]).mean()
        error = kmix.metrics.ExpectedCalibrationError()(y[test], p)
        print(f"{kind}, {name}: accuracy {accuracy:.2f}, ECE {error:.2f}")
        style = {"label": name, "color": colors[name], "linewidth": 3}
        kmix.plots.reliability_diagram(y[test], p, num_bins=6, ax=ax, **style)
    ax.set_title(kind, fontsize=16)
    ax.set_aspect("auto")
    ax.set_xlabel("confidence", fontsize=14)
    ax.set_ylabel("accuracy", fontsize=14)
axes[0].legend(fontsize=14)
plt.show()

# %%
# With random labels, plain training is overconfident, and MixUp corrects
# that. With clean labels, plain training is well calibrated, and MixUp makes
# the network underconfident.
