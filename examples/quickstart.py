"""kmix in two minutes: a small network, trained on a few handwritten digits with and without mixup.

    python examples/quickstart.py                      # prints a table of test errors, draws quickstart.png
    python examples/quickstart.py --quick              # one seed, few epochs: only to check that it runs
    KERAS_BACKEND=jax python examples/quickstart.py    # or torch (tf.data still needs TensorFlow)

The digits come with scikit-learn, and Matplotlib draws. In a checkout, run `pip install ".[tensorflow,examples]"`.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kmix
from kmix import plots

# The same for all methods. Network, learning rate, batch size and epochs were chosen on seeds 100 to 103; alpha is in
# the middle of the range that was tried there, 0.2 to 1. A seed sets the split, the initial weights, the order and the
# mixing. The test digits of a run neither select nor stop anything in it: the network after the last epoch counts.
CLASSES, TRAIN_SIZE, BATCH_SIZE, LEARNING_RATE, ALPHA = 10, 180, 45, 2e-3, 0.4
COLORS = {"plain": "#666666", "MixUp": "#0072b2", "MixUp/CutMix, scheduled": "#d55e00"}


def split_digits(seed):
    """18 digits of each class to train on and the other 1617 to test on: images (n, 8, 8, 1) and class ids."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16.0
    return train_test_split(x, y, train_size=TRAIN_SIZE, stratify=y, random_state=seed)


def compiled_network():
    """One compiled network serves all methods: loss and metrics take class ids and mixed labels alike."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        # The entropy of the mixed labels is subtracted, so that every training curve has its minimum at 0.
        loss=kmix.losses.SoftLabelCrossentropy(subtract_entropy=True),
        metrics=[kmix.metrics.SoftLabelAccuracy(name="accuracy"), kmix.metrics.ExpectedCalibrationError(name="ece")],
        jit_compile=keras.backend.backend() == "jax",  # on TensorFlow, XLA takes longer here than it saves
    )
    model.optimizer.build(model.trainable_variables)
    return model


def clean_from(epochs):
    """The epoch from which the scheduled method no longer mixes."""
    return max(2, round(0.8 * epochs))


def mixing_of(method, seed, epochs):
    """The mixing layer of a method, and the callbacks that go with it."""
    mixup = kmix.MixUp(ALPHA, num_classes=CLASSES, seed=seed)
    if method == "MixUp":
        return mixup, []
    either = kmix.RandomChoice([mixup, kmix.CutMix(ALPHA, num_classes=CLASSES, seed=seed)], seed=seed)
    warm_up = max(1, epochs // 10)
    phases = [kmix.schedules.Linear(0.0, ALPHA, warm_up), ALPHA, 0.0]
    alpha = kmix.schedules.Join(phases, boundaries=[warm_up, clean_from(epochs)])
    return either, [kmix.callbacks.AlphaScheduler(either.layers, alpha)]


def train(model, method, seed, epochs, on_epoch_end):
    """Train with one method on the split of one seed, and test."""
    x, x_test, y, y_test = split_digits(seed)
    # Repeat before mixing: starting a pipeline for every epoch takes longer than four batches of training.
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(TRAIN_SIZE, seed=seed).batch(BATCH_SIZE).repeat()
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)]
    if method != "plain":
        layer, alpha_callbacks = mixing_of(method, seed, epochs)
        numbering = kmix.data.Numbering()  # the number of a batch decides how it is mixed
        batches = numbering(batches).map(layer.at_step)
        callbacks = [numbering, *alpha_callbacks, *callbacks]
    history = model.fit(
        batches.prefetch(1),
        epochs=epochs,
        steps_per_epoch=TRAIN_SIZE // BATCH_SIZE,
        validation_data=(x_test, y_test),  # plain images and class ids, with the same loss and metrics
        validation_freq=max(1, epochs // 20),
        validation_batch_size=len(x_test),
        callbacks=callbacks,
        shuffle=False,  # tf.data does it
        verbose=0,
    ).history
    scores = model.evaluate(x_test, y_test, batch_size=len(x_test), verbose=0, return_dict=True)
    return {
        "scores": (100 * (1 - scores["accuracy"]), scores["loss"], 100 * scores["ece"]),
        "training": history["loss"],
        "test": history["val_loss"],
        "labels": y_test,
        "probabilities": model.predict(x_test, batch_size=len(x_test), verbose=0),
    }


def train_all(console, seeds, epochs):
    """Train with every method from every seed. Returns {method: [the results of `train`, seed by seed]}."""
    model = compiled_network()
    untrained = model.get_state_tree(value_format="numpy_array")
    runs = {method: [] for method in COLORS}
    with Progress(console=console) as progress:
        task = progress.add_task("", total=seeds * len(runs) * epochs)
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            initial_weights = compiled_network().get_weights()
            for method, results in runs.items():
                progress.update(task, description=f"seed {seed}: {method:23}")
                model.set_state_tree(untrained)  # mainly that of the optimizer
                model.set_weights(initial_weights)  # the same for every method
                results.append(train(model, method, seed, epochs, lambda epoch, logs: progress.advance(task)))
                scores = "test error {:.2f} %, NLL {:.3f}, ECE {:.2f} %".format(*results[-1]["scores"])
                console.print(f"seed {seed}: {method:23} {scores}", highlight=False)
    return runs


def print_table(console, runs, epochs):
    scores = {method: np.array([run["scores"] for run in results]) for method, results in runs.items()}
    seeds, test_size = len(scores["plain"]), len(runs["plain"][0]["labels"])
    table = Table("method", "test error (%)", "NLL (nats)", "ECE (%)")
    table.title = f"{TRAIN_SIZE} training digits, {test_size} test digits, {epochs} epochs, {seeds} seed(s)"
    table.caption = "mean ± standard deviation; ECE: expected calibration error"
    for method, values in scores.items():
        cells = [f"{mean:.2f}" for mean in values.mean(axis=0)]
        if seeds > 1:
            cells = [f"{cell} ± {spread:.2f}" for cell, spread in zip(cells, values.std(axis=0, ddof=1), strict=True)]
        table.add_row(method, *cells)
    console.print(table)
    for method in list(runs)[1:]:
        wins = int(np.sum(scores[method][:, 0] < scores["plain"][:, 0]))
        console.print(f"{method:23} has a lower test error than plain on {wins} of {seeds} seed(s)", highlight=False)


def draw(runs, epochs, path):
    """One picture: what enters the network, how the losses develop, and how well calibrated the networks are."""
    figure = Figure(figsize=(14, 7.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2.9])
    x, _, y, _ = split_digits(seed=0)
    titles = {kmix.MixUp: "MixUp blends two digits", kmix.CutMix: "CutMix pastes a box of one digit into another"}
    for part, (layer, title) in zip(top.subfigures(1, 2), titles.items(), strict=True):
        mixed = layer(ALPHA, num_classes=CLASSES, seed=0).at_step(0, (x[:BATCH_SIZE], y[:BATCH_SIZE]))
        plots.mixed_batch(*mixed, count=6, figure=part)
        part.suptitle(title)
    training, test, reliability = bottom.subplots(1, 3)
    curves = {training: ("training", "Training loss minus the labels' entropy"), test: ("test", "Test loss")}
    for axes, (name, title) in curves.items():
        for method, results in runs.items():
            loss = np.mean([run[name] for run in results], axis=0)
            axes.plot(np.arange(1, len(loss) + 1) * (epochs // len(loss)), loss, color=COLORS[method], label=method)
        axes.axvspan(clean_from(epochs), epochs, color=COLORS["MixUp/CutMix, scheduled"], alpha=0.1, linewidth=0)
        axes.text(clean_from(epochs), 0.97, " alpha = 0", transform=axes.get_xaxis_transform(), va="top")
        axes.set(title=title, xlabel="epoch", ylabel="nats, mean over the seeds", xlim=(0, epochs), yscale="log")
        axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter="")
        axes.set_box_aspect(1)
    for method, results in runs.items():
        y_test, y_pred = (np.concatenate([run[name] for run in results]) for name in ("labels", "probabilities"))
        plots.reliability_diagram(y_test, y_pred, num_bins=10, ax=reliability, label=method, color=COLORS[method])
    reliability.set_title("Reliability: underconfident above the diagonal")
    bottom.legend(*training.get_legend_handles_labels(), loc="outside upper center", ncols=len(runs))
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--epochs", type=int, default=80, help="epochs of each run (default: 80)")
    parser.add_argument("--output", default="quickstart.png", help="the picture (default: quickstart.png)")
    parser.add_argument("--quick", action="store_true", help="1 seed, 4 epochs")
    options = parser.parse_args()
    seeds, epochs = (1, 4) if options.quick else (options.seeds, options.epochs)

    console, start = Console(), time.time()
    runs = train_all(console, seeds, epochs)
    print_table(console, runs, epochs)
    draw(runs, epochs, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
