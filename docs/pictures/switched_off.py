"""Alpha that warms up, holds, and is 0 for the last epochs, and the lam that it implies."""

import matplotlib.pyplot as plt

import kmix
from kmix.schedules import Join, Linear

figure = plt.figure(figsize=(7.5, 3), layout="constrained")
alpha = Join([Linear(0.0, 0.4, 5), 0.4, 0.0], boundaries=[5, 40])
kmix.plots.alpha_schedule(alpha, 50, figure=figure)
