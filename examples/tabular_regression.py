"""Regression on a small table: plain training, MixUp, and MixUp of patients with similar targets (C-Mixup).

    python examples/tabular_regression.py                      # prints a table, draws tabular_regression.png
    python examples/tabular_regression.py --quick              # two seeds, few epochs: only to check that it runs
    KERAS_BACKEND=jax python examples/tabular_regression.py    # or torch

The table is scikit-learn's diabetes data: ten measurements of 442 patients, and how far the disease progressed within a
year. In a checkout, run `pip install ".[tensorflow,examples]"`.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import kmix

# Alpha was chosen from 1 and 2 and the bandwidth from 0.25, 0.5 and 1, on seeds 100 to 111; STOP, the epoch after which
# each method has the lowest mean test error, on seeds 100 to 159. A seed sets the split, the initial weights, the order
# and the mixing; all splits are of the same 442 patients.
BATCH_SIZE, LEARNING_RATE, ALPHA, BANDWIDTH = 56, 1e-3, 2.0, 1.0
STOP = {"none": 9, "MixUp": 10, "MixUp by label": 9}
COLORS = {"none": "#666666", "MixUp": "#0072b2", "MixUp by label": "#d55e00"}
STYLES = {"none": ":", "MixUp": "-", "MixUp by label": "--"}
MARKERS = {"MixUp": "o", "MixUp by label": "^"}


def split_patients(seed):
    """One half of the patients to train on and the other to test on, standardised by the first, and the scale of y."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    splits = train_test_split(x, y[:, None], test_size=0.5, random_state=seed)
    arrays = []
    for train, test in (splits[:2], splits[2:]):
        mean, scale = train.mean(axis=0), train.std(axis=0)
        arrays += [((part - mean) / scale).astype("float32") for part in (train, test)]
    return arrays, scale.item()


def network():
    """18,000 weights for 221 patients: enough to learn them by heart."""
    hidden = [keras.layers.Dense(128, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((10,)), *hidden, keras.layers.Dense(1)])


def mixing_of(method):
    """The mixing layer of a method."""
    if method == "MixUp":
        return kmix.MixUp(ALPHA, seed=0)
    return kmix.MixUp(ALPHA, pairing=kmix.pairing.SimilarLabels(BANDWIDTH), seed=0)


def compiled_trainer(method):
    """The network, what to fit, compiled once for all seeds, and its state before training."""
    model = network()
    trainer = model if method == "none" else kmix.MixTrainer(model, mixing_of(method))
    rmse = keras.metrics.RootMeanSquaredError(name="rmse")
    trainer.compile(keras.optimizers.Adam(LEARNING_RATE), "mse", weighted_metrics=[rmse])
    trainer.optimizer.build(model.trainable_variables)
    return model, trainer, trainer.get_state_tree(value_format="numpy_array")


def train(model, trainer, untrained, seed, epochs):
    """Train on the split of one seed. Returns the test error after each epoch, and the last error in training."""
    (x, x_test, y, y_test), scale = split_patients(seed)
    trainer.set_state_tree(untrained)
    keras.utils.set_random_seed(seed)  # the same initial weights and order for every method
    model.set_weights(network().get_weights())
    if isinstance(trainer, kmix.MixTrainer):
        trainer.step.assign(1_000_000 * seed)  # the number of a step decides how it is mixed
    history = trainer.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=(x_test, y_test),  # never mixed
        validation_batch_size=len(x_test),
        verbose=0,
    ).history
    fitted = trainer.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    return scale * np.array(history["val_rmse"]), scale * fitted["rmse"]


def train_all(console, seeds, epochs):
    """Returns {method: test errors (seeds, epochs)} and {method: last errors in training (seeds,)}."""
    test, fitted = {}, {}
    with Progress(console=console) as progress:
        task = progress.add_task("", total=seeds * len(STOP))
        for method in STOP:
            compiled, runs = compiled_trainer(method), []
            for seed in range(seeds):
                progress.update(task, description=f"{method:14} seed {seed:2}")
                runs.append(train(*compiled, seed, epochs))
                progress.advance(task)
            test[method], fitted[method] = (np.array(values) for values in zip(*runs, strict=True))
    return test, fitted


def paired_difference(test, method, epoch):
    """Test error minus that of plain training, seed by seed, both stopped early (epoch None) or not: with 95 %."""
    ends = {name: min(STOP[name], errors.shape[1]) if epoch is None else epoch for name, errors in test.items()}
    differences = test[method][:, ends[method] - 1] - test["none"][:, ends["none"] - 1]
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return differences, differences.mean(), half


def linear_errors(seeds):
    """Test errors of linear regression, which a network has to beat."""
    errors = []
    for seed in range(seeds):
        (x, x_test, y, y_test), scale = split_patients(seed)
        errors.append(scale * np.sqrt(np.mean((x_test @ np.linalg.lstsq(x, y)[0] - y_test) ** 2)))
    return np.array(errors)


def print_table(console, test, fitted, epochs):
    seeds = len(test["none"])
    table = Table("method", "epochs", "training", "test", "test minus none")
    table.title = f"Root mean squared error, {seeds} random splits of 442 patients into halves"
    table.caption = "mean ± standard deviation over the splits; the difference with its 95 % interval"
    for epoch in (None, epochs):
        for method in STOP:
            end = min(STOP[method], epochs) if epoch is None else epoch
            errors, difference = test[method][:, end - 1], ""
            if method != "none":
                _, mean, half = paired_difference(test, method, epoch)
                difference = f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"
            training = f"{fitted[method].mean():.1f}" if epoch else ""
            table.add_row(method, str(end), training, f"{errors.mean():.2f} ± {errors.std(ddof=1):.2f}", difference)
        table.add_section()
    linear = linear_errors(seeds)
    table.add_row("linear model", "", "", f"{linear.mean():.2f} ± {linear.std(ddof=1):.2f}", "")
    console.print(table)


def draw(test, epochs, path):
    """Who is mixed with whom, how the error develops, and what mixing changes, split by split."""
    figure = Figure(figsize=(13, 8.4), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=[1, 1])
    for ax, method in zip(axes[0], MARKERS, strict=True):
        draw_partners(ax, method)
    draw_curves(axes[1, 0], test, epochs)
    draw_differences(axes[1, 1], test, epochs)
    figure.savefig(path, dpi=100)


def draw_partners(ax, method):
    """The targets of the pairs of 12 batches."""
    (_, _, y, _), _ = split_patients(seed=0)
    layer, pairs = mixing_of(method), []
    for step in range(12):
        batch = np.random.default_rng(step).permutation(y)[:BATCH_SIZE]
        partners = layer.plan(step, BATCH_SIZE, targets=batch).permutation
        pairs.append(np.column_stack([batch, batch[partners]])[partners != np.arange(BATCH_SIZE)])
    y_i, y_j = np.concatenate(pairs).T
    ax.plot([-1.7, 2.5], [-1.7, 2.5], color="black", lw=0.8)
    ax.scatter(y_i, y_j, s=14, color=COLORS[method], marker=MARKERS[method], alpha=0.5, linewidth=0)
    title = {"MixUp": "MixUp: any two patients", "MixUp by label": "MixUp by label: similar targets"}
    ax.set_title(f"{title[method]} (correlation {np.corrcoef(y_i, y_j)[0, 1]:.2f})")
    ax.set(xlabel="target of a patient (standardised)", ylabel="target of the partner")


def draw_curves(ax, test, epochs):
    for method, errors in test.items():
        mean, end = errors.mean(axis=0), min(STOP[method], epochs)
        ax.plot(np.arange(1, epochs + 1), mean, STYLES[method], color=COLORS[method], lw=2, label=method)
        label = "early stop" if method == "none" else None
        ax.plot(end, mean[end - 1], "s", color=COLORS[method], mec="black", ms=7, label=label)
    handles, labels = ax.get_legend_handles_labels()
    order = [i for i, label in enumerate(labels) if label != "early stop"] + [labels.index("early stop")]
    ax.legend([handles[i] for i in order], [labels[i] for i in order], loc=(0.08, 0.66))
    low = min(errors.mean(axis=0).min() for errors in test.values())
    high = max(errors.mean(axis=0)[-1] for errors in test.values())
    ax.set(title="Test error, mean over the splits", xlabel="epoch", ylabel="root mean squared error", xlim=(0, epochs))
    ax.set_ylim(low - 0.5, high + 1)
    ax.grid(axis="y", alpha=0.3)


def draw_differences(ax, test, epochs):
    """A dot for each split, and the mean with its 95 % interval."""
    rows = [(method, epoch) for epoch in (epochs, None) for method in reversed(MARKERS)]
    names = {None: "stopped early", epochs: f"{epochs} epochs"}
    for height, (method, epoch) in enumerate(rows):
        differences, mean, half = paired_difference(test, method, epoch)
        jitter = height + 0.2 + 0.2 * np.random.default_rng(0).random(len(differences))
        ax.scatter(differences, jitter, s=16, color=COLORS[method], marker=MARKERS[method], alpha=0.6, linewidth=0)
        ax.errorbar(mean, height, xerr=half, fmt=MARKERS[method], color="black", capsize=4)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(rows)), [f"{method},\n{names[epoch]}" for method, epoch in rows])
    ax.set(title="Test error minus that of none, split by split: better to the left", ylim=(-0.4, len(rows) - 0.3))
    ax.set_xlabel("difference; black: mean and 95 % interval")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30, help="number of seeds, 2 or more (default: 30)")
    parser.add_argument("--epochs", type=int, default=80, help="epochs of each run (default: 80)")
    parser.add_argument("--output", default="tabular_regression.png", help="picture (default: tabular_regression.png)")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 4 epochs")
    options = parser.parse_args()
    seeds, epochs = (2, 4) if options.quick else (options.seeds, options.epochs)

    console, start = Console(), time.time()
    test, fitted = train_all(console, seeds, epochs)
    print_table(console, test, fitted, epochs)
    draw(test, epochs, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
