"""Eight mixed digits, as the quick start draws them."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import kmix

x, y = load_digits(return_X_y=True)
x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
mixed = kmix.MixUp(1.0, num_classes=10, seed=0).at_step(0, (x[40:56], y[40:56]))
kmix.plots.mixed_batch(*mixed, count=8, figure=plt.figure(figsize=(9, 2)))
