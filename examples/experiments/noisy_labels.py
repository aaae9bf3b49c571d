"""Wrong training labels: does MixUp keep a network from memorising them?

    python examples/experiments/noisy_labels.py            # prints a table, writes noisy_labels.json and a picture
    python examples/experiments/noisy_labels.py --quick    # one seed, few epochs: only to check that it runs

The experiment of Table 2 of the mixup paper (https://arxiv.org/abs/1710.09412) in small: a share of the training labels
is replaced by random ones, drawn from all ten classes, so a tenth of the replaced labels are still right. The test
labels are right. "Best" is the lowest test error of all epochs, as in the paper: no one who trains knows that epoch, so
it is optimistic for every method. "Last" is the error after the last epoch. "Fits" is the accuracy on the training
labels as they are, replaced ones included: near 100 % if the network has memorised them.
"""

import experiment
import numpy as np
from experiment import BATCH_SIZE, PLAIN, Method

import kmix
from kmix.diagnostics import compare

NOISE, TRAIN_SIZE, TEST_SIZE, EPOCHS, DROPOUT = (0.2, 0.5, 0.8), 2000, 2000, 30, 0.5
# Method: alpha of MixUp, or None, and the dropout.
METHODS = {
    PLAIN: (None, 0.0),
    "dropout": (None, DROPOUT),
    "MixUp(1)": (1.0, 0.0),
    "MixUp(8)": (8.0, 0.0),
    "MixUp(32)": (32.0, 0.0),
    "MixUp(8), dropout": (8.0, DROPOUT),
}
COLORS = dict(zip(METHODS, ("#666666", "#e69f00", "#56b4e9", "#0072b2", "#cc79a7", "#009e73"), strict=True))
# Told apart without colour, too.
DASHES = dict(zip(METHODS, ("-", "--", ":", "-.", (0, (6, 2)), (0, (1, 1, 4, 1))), strict=True))
MARKERS = dict(zip(METHODS, "xos^Dv", strict=True))


def method_of(name, steps):
    alpha, dropout = METHODS[name]
    if alpha is None:
        return Method(steps, dropout=dropout)
    return Method(steps, lambda model: kmix.MixTrainer(model, kmix.MixUp(alpha, seed=0)), dropout)


class Runs:
    """All runs of the experiment.

    Attributes:
        last, best: Predictions at the last and at the best epoch, by noise, method and seed.
        fits: The share of the training labels, as they are, that a network reproduces at the end.
        curves: The test error after each epoch.
    """

    def __init__(self, epochs, noise):
        self.data, (x, y) = experiment.load_data()
        self.x_test, self.y_test, self.epochs = x[:TEST_SIZE], y[:TEST_SIZE], epochs
        self.noise = noise
        self.methods = {name: method_of(name, epochs * TRAIN_SIZE // BATCH_SIZE) for name in METHODS}
        self.last, self.best, self.fits, self.curves = {}, {}, {}, {}

    def run(self, noise, name, seed):
        x, y = experiment.draw_samples(self.data, TRAIN_SIZE, seed)
        y, method, seen = experiment.replace_labels(y, noise, seed), self.methods[name], []
        method.train(x, y, seed, self.epochs, lambda: seen.append(method.predict(self.x_test)))
        errors = [np.mean(p.argmax(axis=1) != self.y_test) for p in seen]
        self.last[noise, name, seed] = seen[-1]
        self.best[noise, name, seed] = seen[int(np.argmin(errors))]
        self.fits[noise, name, seed] = np.mean(method.predict(x).argmax(axis=1) == y)
        self.curves[noise, name, seed] = errors

    def cases(self, seeds):
        """For each share of noise the scores, and the mean curves."""
        cases, curves = {}, {}
        for noise in self.noise:
            name = f"{100 * noise:.0f} %"
            cases[name] = {
                part: compare(of(found, noise, seeds), y=self.y_test).to_dict() for part, found in self.parts()
            }
            fits = of(self.fits, noise, seeds)
            cases[name]["fits"] = {method: experiment.summary(found) for method, found in fits.items()}
            curves[name] = {method: np.mean(found, axis=0) for method, found in of(self.curves, noise, seeds).items()}
        return cases, curves

    def parts(self):
        return ("last", self.last), ("best", self.best)


def of(found, noise, seeds):
    """What was found at one share of noise: a list over the seeds for each method."""
    return {name: [found[noise, name, seed] for seed in seeds] for name in METHODS}


def style(name, epochs):
    """Colour, dashes, and a marker at every fifth epoch."""
    return {"color": COLORS[name], "ls": DASHES[name], "marker": MARKERS[name], "markevery": max(1, epochs // 5)}


def draw(result, path):
    """The test error over the epochs, the mean of the seeds, with the spread at the end."""
    title = f"Test error on Fashion-MNIST, {TRAIN_SIZE} training images, mean of {len(result['seeds'])} seed(s)"
    figure, panels = experiment.figure_of(len(result["curves"]), title)
    for ax, (noise, curves) in zip(panels, result["curves"].items(), strict=True):
        for name, errors in curves.items():
            ax.plot(range(1, len(errors) + 1), 100 * np.array(errors), label=name, lw=1.8, **style(name, len(errors)))
        top = 100 * max(max(errors[len(errors) // 10 :]) for errors in curves.values())
        ax.set(title=f"{noise} of the labels replaced", xlabel="epoch", ylim=(0, 1.1 * top))
        ax.grid(alpha=0.3)
    panels[0].set_ylabel("test error (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    figure.savefig(path, dpi=80)


def main():
    quick = "1 seed, 2 epochs, 1 share of wrong labels"
    options = experiment.options_of(__doc__, "noisy_labels", 5, quick)
    seeds, epochs, noise = (1, 2, NOISE[:1]) if options.quick else (options.seeds, EPOCHS, NOISE)
    seeds, runs = list(range(seeds)), Runs(epochs, noise)
    seconds = experiment.run_all([(n, name, s) for s in seeds for name in METHODS for n in noise], runs.run)
    cases, curves = runs.cases(seeds)
    settings = {"training images": TRAIN_SIZE, "test images": TEST_SIZE, "epochs": epochs, "dropout": DROPOUT}
    result = experiment.save(options.result, "noisy_labels", seeds, settings, seconds, cases, curves=curves)
    experiment.report(result, "Test error (%) with wrong training labels", draw, options)


if __name__ == "__main__":
    main()
