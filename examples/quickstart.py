"""kmix in two minutes: a small network on few handwritten digits, trained plainly and with mixup.

    python examples/quickstart.py                      # prints a table of test errors, draws quickstart.png
    python examples/quickstart.py --quick              # one seed, few epochs: only to see that it runs
    KERAS_BACKEND=jax python examples/quickstart.py    # or torch (tf.data needs TensorFlow all the same)

scikit-learn brings the digits along, Matplotlib draws: `pip install kmix[examples]`.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kmix
from kmix import plots

# The same for all methods. Learning rate, batch size and epochs were chosen on seeds 100 to 103; seeds 0, 1, ... split
# the digits differently. The test digits select and stop nothing: what the last epoch leaves is what is reported.
CLASSES, TRAIN_SIZE, BATCH_SIZE, LEARNING_RATE = 10, 180, 45, 2e-3
ALPHA = 0.4
METHODS = {"plain": "#666666", "MixUp": "#0072b2", "MixUp/CutMix, scheduled": "#d55e00"}
SCORES = {"error": ("test error (%)", 2), "nll": ("NLL (nats)", 3), "ece": ("ECE (%)", 2)}
CAPTION = "NLL: negative log-likelihood. ECE: expected calibration error. Lower is better, in all three."


def split_digits(seed):
    """18 digits of each class to train on, the other 1617 to test on: images (n, 8, 8, 1) in [0, 1] and class ids."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16.0
    x, x_test, y, y_test = train_test_split(x, y, train_size=TRAIN_SIZE, stratify=y, random_state=seed)
    return (x, y), (x_test, y_test)


def build_network():
    return keras.Sequential(
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


def compiled_network():
    """One compiled network serves all methods: loss and metrics take class ids and mixed labels alike."""
    model = build_network()
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        # Without the entropy of the mixed labels, 0 is the minimum of every method's training curve.
        loss=kmix.losses.SoftLabelCrossentropy(subtract_entropy=True),
        metrics=[kmix.metrics.SoftLabelAccuracy(name="accuracy"), kmix.metrics.ExpectedCalibrationError(name="ece")],
        jit_compile=keras.backend.backend() == "jax",  # on TensorFlow XLA takes longer than it saves here
    )
    model.optimizer.build(model.trainable_variables)
    return model


def phases(epochs):
    """The epoch at which the warm-up of alpha ends, and the one from which on nothing is mixed."""
    warm_up = max(1, epochs // 10)
    return warm_up, max(warm_up + 1, round(0.8 * epochs))


def mixing_of(method, seed, epochs):
    """The mixing layer of a method, and the callbacks that go with it."""
    mixup = kmix.MixUp(ALPHA, num_classes=CLASSES, seed=seed)
    if method == "MixUp":
        return mixup, []
    choice = kmix.RandomChoice([mixup, kmix.CutMix(ALPHA, num_classes=CLASSES, seed=seed)], seed=seed)
    warm_up, off = phases(epochs)
    alpha = kmix.schedules.Join([kmix.schedules.Linear(0.0, ALPHA, warm_up), ALPHA, 0.0], boundaries=[warm_up, off])
    return choice, [kmix.callbacks.AlphaScheduler(choice.layers, alpha)]


def train(model, method, seed, epochs, on_epoch_end):
    """Train from the initial weights of a seed, the same for all methods. Returns history, scores, and predictions."""
    (x, y), (x_test, y_test) = split_digits(seed)
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)]
    # Repeated before it is mixed: a new pipeline for every epoch of four batches would take longer than the training.
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(TRAIN_SIZE, seed=seed).batch(BATCH_SIZE).repeat()
    if method != "plain":
        layer, alpha_callbacks = mixing_of(method, seed, epochs)
        numbering = kmix.data.Numbering()  # the number of a batch decides how it is mixed
        batches = numbering(batches).map(layer.at_step)
        callbacks = [numbering, *alpha_callbacks, *callbacks]

    history = model.fit(
        batches.prefetch(1),
        epochs=epochs,
        steps_per_epoch=TRAIN_SIZE // BATCH_SIZE,
        validation_data=(x_test, y_test),
        validation_batch_size=len(x_test),
        validation_freq=validation_epochs(epochs),
        callbacks=callbacks,
        shuffle=False,  # tf.data shuffles
        verbose=0,
    ).history
    last = {name: history[f"val_{name}"][-1] for name in ("accuracy", "loss", "ece")}
    scores = {"error": 100 * (1 - last["accuracy"]), "nll": last["loss"], "ece": 100 * last["ece"]}
    probabilities = model.predict(x_test, batch_size=len(x_test), verbose=0)
    return {"history": history, "scores": scores, "labels": y_test, "probabilities": probabilities}


def validation_epochs(epochs):
    """Every fourth epoch and the last one, counted from 1."""
    return [epoch for epoch in range(1, epochs + 1) if epoch % 4 == 0 or epoch == epochs]


def train_all(console, seeds, epochs):
    """All methods from all seeds: {method: [run of seed 0, run of seed 1, ...]}."""
    model = compiled_network()
    untrained = model.get_state_tree(value_format="numpy_array")
    runs = {method: [] for method in METHODS}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=seeds * len(METHODS) * epochs)
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            initial_weights = build_network().get_weights()
            for method in METHODS:
                progress.update(task, description=f"seed {seed}: {method}")
                model.set_state_tree(untrained)  # a fresh optimizer
                model.set_weights(initial_weights)
                run = train(model, method, seed, epochs, lambda epoch, logs: progress.advance(task))
                runs[method].append(run)
                scores = ", ".join(f"{title} {run['scores'][name]:.{digits}f}" for name, (title, digits) in SCORES.items())
                console.print(f"seed {seed}: {method:23s} {scores}", highlight=False)
    return runs


def print_table(console, runs, epochs):
    seeds, test_size = len(runs["plain"]), len(runs["plain"][0]["labels"])
    spread = f"mean ± standard deviation over seeds 0 to {seeds - 1}" if seeds > 1 else "seed 0 alone"
    table = Table(title=f"{TRAIN_SIZE} training and {test_size} test digits, {epochs} epochs: {spread}", caption=CAPTION)
    table.add_column("method")
    for title, _ in SCORES.values():
        table.add_column(title, justify="right")
    for method, results in runs.items():
        cells = []
        for name, (_, digits) in SCORES.items():
            values = [run["scores"][name] for run in results]
            deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if seeds > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{deviation}")
        table.add_row(method, *cells)
    console.print(table)


def draw(runs, epochs, path):
    """One picture: what enters the network, how the losses develop, how calibrated the results are."""
    figure = Figure(figsize=(14, 8.6), dpi=100, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2])
    (x, y), _ = split_digits(seed=0)
    layers = {"MixUp blends two digits": kmix.MixUp, "CutMix pastes a box of one into the other": kmix.CutMix}
    for part, (title, layer) in zip(top.subfigures(1, 2), layers.items(), strict=True):
        x_mixed, y_mixed = layer(ALPHA, num_classes=CLASSES, seed=0).at_step(0, (x[:BATCH_SIZE], y[:BATCH_SIZE]))
        plots.mixed_batch(x_mixed, y_mixed, count=6, figure=part)
        part.suptitle(f"{title}, and their labels")

    train_axes, test_axes, reliability = bottom.subplots(1, 3)
    for method, color in METHODS.items():
        results = runs[method]
        loss, test_loss = (np.mean([run["history"][name] for run in results], 0) for name in ("loss", "val_loss"))
        train_axes.plot(np.arange(1, epochs + 1), loss, color=color, label=method)
        test_axes.plot(validation_epochs(epochs), test_loss, color=color, label=method)
        labels, probabilities = (np.concatenate([run[name] for run in results]) for name in ("labels", "probabilities"))
        plots.reliability_diagram(labels, probabilities, num_bins=10, ax=reliability, label=method, color=color)
    for axes, title in ((train_axes, "Training loss, on what was mixed"), (test_axes, "Test loss")):
        axes.set(title=title, xlabel="epoch", ylabel="cross-entropy above the labels' entropy (nats)", yscale="log")
        axes.axvspan(phases(epochs)[1], epochs, color=METHODS["MixUp/CutMix, scheduled"], alpha=0.1, linewidth=0)
    reliability.set_title("Reliability: above the diagonal is underconfident")
    reliability.legend(loc="upper left")
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--epochs", type=int, default=80, help="epochs of each run (default: 80)")
    parser.add_argument("--output", default="quickstart.png", help="the picture (default: quickstart.png)")
    parser.add_argument("--quick", action="store_true", help="1 seed, 8 epochs")
    options = parser.parse_args()
    seeds, epochs = (1, 8) if options.quick else (options.seeds, options.epochs)

    console, start = Console(), time.time()
    console.print(f"kmix {kmix.__version__}, Keras {keras.__version__} on {keras.backend.backend()}", highlight=False)
    runs = train_all(console, seeds, epochs)
    print_table(console, runs, epochs)
    draw(runs, epochs, options.output)
    console.print(f"{options.output} shows the mixed digits, the curves and the calibration. {time.time() - start:.0f} s.")


if __name__ == "__main__":
    main()
