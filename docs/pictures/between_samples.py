"""What two networks answer between pairs of digits: one trained plainly, one with MixUp."""

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import kmix
from kmix.diagnostics import interpolation

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
order = np.random.default_rng(0).permutation(300)
repeated = np.concatenate([np.random.default_rng(n).permutation(300) for n in range(100)])
figure = plt.figure(figsize=(7.5, 3.2), layout="constrained")
for label, alpha in (("plain", 0.0), ("MixUp", 1.0)):
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(128, activation="relu")
    model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10, activation="softmax")])
    trainer = kmix.MixTrainer(model, kmix.MixUp(alpha, num_classes=10, seed=1))
    trainer.compile(keras.optimizers.Adam(3e-3), kmix.losses.SoftLabelCrossentropy())
    trainer.fit(x[repeated], y[repeated], batch_size=50, shuffle=False, verbose=0)
    interpolation(model, x[300:700], y[300:700]).plot(figure, label=label)
