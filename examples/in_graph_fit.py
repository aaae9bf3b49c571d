"""Mixing inside the training step: plain `fit` on NumPy arrays, without a data pipeline.

    python examples/in_graph_fit.py                    # prints a table of test errors, draws in_graph_fit.png
    python examples/in_graph_fit.py --quick            # one seed, few epochs: only to check that it runs
    KERAS_BACKEND=jax python examples/in_graph_fit.py  # or torch; neither needs TensorFlow
    python examples/in_graph_fit.py --logs runs        # the curves for `tensorboard --logdir runs`, with alpha

A small network learns digits, a fifth of which carry a wrong label, as they might if a crowd labelled them in a hurry.
In the end, plain training memorises the wrong labels. `kmix.MixTrainer` trains with MixUp or CutMix on the images, and
then with Manifold Mixup, which blends the images or the output of one of the two stages. Alpha warms up, holds, and
ends at 0.

`--data DIR` reads Fashion-MNIST instead of scikit-learn's digits: `train-images-idx3-ubyte.gz` and
`train-labels-idx1-ubyte.gz` from https://github.com/zalandoresearch/fashion-mnist. The digits come with scikit-learn,
and Matplotlib draws. In a checkout, run `pip install ".[tensorflow,examples]"`, with jax or torch for another backend.
"""

import argparse
import gzip
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kmix
from kmix import plots
from kmix.mixing import mix_inputs

# The same for all methods. Network, learning rate, epochs, alphas and their schedule were chosen on the digits with
# seeds 100 and 101. A seed sets the split, the wrong labels, the initial weights, the order and the mixing. The test
# images of a run neither select nor stop anything in it: the network after the last epoch counts.
CLASSES, TRAIN_SIZE, MAX_TEST_SIZE, WRONG_LABELS, BATCH_SIZE, LEARNING_RATE = 10, 500, 2000, 0.2, 50, 2e-3
PLAIN, INPUTS, MANIFOLD = "plain", "MixUp or CutMix", "Manifold Mixup"
ALPHAS = {INPUTS: 1.0, MANIFOLD: 2.0}
COLORS = {PLAIN: "#666666", INPUTS: "#0072b2", MANIFOLD: "#d55e00"}
SCORES = {"test error (%)": "error", "NLL (nats)": "NLL", "ECE (%)": "ECE"}


def load(folder):
    """Images (n, height, width, 1) in [0, 1] and class ids: Fashion-MNIST from a folder, or the digits without one."""
    if folder is None:
        digits = load_digits()
        return digits.images[..., None].astype("float32") / 16.0, digits.target
    files = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
    images, labels = (gzip.decompress((folder / name).read_bytes()) for name in files)
    x = np.frombuffer(images, "uint8", offset=16).reshape(-1, 28, 28, 1)
    return x.astype("float32") / 255.0, np.frombuffer(labels, "uint8", offset=8).astype("int64")


def split(data, seed):
    """Training images, some with wrong labels, and test images with correct ones."""
    x, y = data
    test_size = min(MAX_TEST_SIZE, len(x) - TRAIN_SIZE)
    x, x_test, y, y_test = train_test_split(
        x, y, train_size=TRAIN_SIZE, test_size=test_size, stratify=y, random_state=seed
    )
    generator = np.random.default_rng(seed)
    wrong = generator.random(TRAIN_SIZE) < WRONG_LABELS
    others = (y + generator.integers(1, CLASSES, TRAIN_SIZE)) % CLASSES
    return x, np.where(wrong, others, y), x_test, y_test


def network(shape):
    """A small network whose stages have names, so that they can serve as places to mix."""
    inputs = x = keras.Input(shape)
    for stage, filters in enumerate((32, 64), 1):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D(name=f"stage{stage}")(x)
    x = keras.layers.Dense(128, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x))


def trainer_of(method, model, seed):
    """What to fit: the model itself, or a trainer that mixes and trains the model in place."""
    if method == PLAIN:
        return model
    mixup = kmix.MixUp(ALPHAS[method], seed=seed)
    if method == MANIFOLD:
        return kmix.MixTrainer(model, mixup, places=["input", "stage1", "stage2"])
    return kmix.MixTrainer(model, kmix.RandomChoice([mixup, kmix.CutMix(ALPHAS[method], seed=seed)], seed=seed))


def alpha_schedule(alpha, epochs):
    """Warm up for a tenth of the epochs, hold alpha, and drop to 0 for the last twentieth."""
    warm_up = max(1, epochs // 10)
    clean_from = max(warm_up + 1, epochs - max(1, epochs // 20))
    return kmix.schedules.Join([kmix.schedules.Linear(0.0, alpha, warm_up), alpha, 0.0], [warm_up, clean_from])


def train(method, data, seed, epochs, logs, on_epoch_end):
    """Train with one method on the split of one seed, and test."""
    x, y, x_test, y_test = split(data, seed)
    keras.utils.set_random_seed(seed)  # the same initial weights for every method
    trainer = trainer_of(method, network(x.shape[1:]), seed)
    trainer.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=kmix.losses.SoftLabelCrossentropy(),  # takes class ids and mixed labels
        metrics=[kmix.metrics.SoftLabelAccuracy(name="accuracy"), kmix.metrics.ExpectedCalibrationError(name="ece")],
    )
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)]
    if method != PLAIN:
        callbacks += [kmix.callbacks.AlphaScheduler(trainer, alpha_schedule(ALPHAS[method], epochs))]
    if logs:
        callbacks += [keras.callbacks.TensorBoard(f"{logs}/{method}, seed {seed}")]
    history = trainer.fit(
        x,
        y,  # class ids: the trainer encodes them, and infers the number of classes from the model
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=(x_test, y_test),
        validation_freq=max(1, epochs // 20),
        validation_batch_size=len(x_test),
        callbacks=callbacks,
        verbose=0,
    ).history
    scores = trainer.evaluate(x_test, y_test, batch_size=len(x_test), verbose=0, return_dict=True)
    return {
        "scores": (100 * (1 - scores["accuracy"]), scores["loss"], 100 * scores["ece"]),
        "alpha": history.get("alpha", [0.0] * epochs),
        "error": 100 * (1 - np.array(history["val_accuracy"])),
        "NLL": history["val_loss"],
        "labels": y_test,
        "probabilities": keras.ops.convert_to_numpy(trainer(x_test, training=False)),
    }


def train_all(console, data, seeds, epochs, logs):
    """Train with every method from every seed. Returns {method: [the results of `train`, seed by seed]}."""
    runs = {method: [] for method in COLORS}
    with Progress(console=console) as progress:
        task = progress.add_task("", total=seeds * len(runs) * epochs)
        for seed in range(seeds):
            for method, results in runs.items():
                progress.update(task, description=f"seed {seed}: {method:15}")
                results.append(train(method, data, seed, epochs, logs, lambda epoch, logs: progress.advance(task)))
                scores = "test error {:.2f} %, NLL {:.3f}, ECE {:.2f} %".format(*results[-1]["scores"])
                console.print(f"seed {seed}: {method:15} {scores}", highlight=False)
    return runs


def print_table(console, runs, epochs):
    scores = {method: np.array([run["scores"] for run in results]) for method, results in runs.items()}
    seeds, test_size = len(scores[PLAIN]), len(runs[PLAIN][0]["labels"])
    table = Table("method", *SCORES)
    table.title = f"{TRAIN_SIZE} training images, {test_size} test images, {epochs} epochs, {seeds} seed(s)"
    table.caption = f"mean ± standard deviation; {WRONG_LABELS:.0%} of the training labels are wrong, but no test label"
    for method, values in scores.items():
        cells = [f"{mean:.2f}" for mean in values.mean(axis=0)]
        if seeds > 1:
            cells = [f"{cell} ± {spread:.2f}" for cell, spread in zip(cells, values.std(axis=0, ddof=1), strict=True)]
        table.add_row(method, *cells)
    console.print(table)
    for method in ALPHAS:
        wins = np.sum(scores[method] < scores[PLAIN], axis=0)
        counts = ", ".join(f"{name} {count}" for name, count in zip(SCORES.values(), wins, strict=True))
        console.print(f"{method:15} is better than plain on this many of {seeds} seed(s): {counts}", highlight=False)


def draw_replay(figure, data):
    """Replay two training steps of seed 0 on a batch, one with MixUp and one with CutMix."""
    x, y = (array[:BATCH_SIZE] for array in data)
    trainer = trainer_of(INPUTS, network(x.shape[1:]), seed=0)
    for part, (choice, name) in zip(figure.subfigures(1, 2), enumerate(("MixUp", "CutMix")), strict=True):
        plans = ((step, trainer.plan(step, BATCH_SIZE, spatial_shape=x.shape[1:3])) for step in range(100, 200))
        step, plan = next((step, plan) for step, plan in plans if plan.choice == choice)
        one_hot, lam = np.eye(CLASSES)[y], plan.lam[:, None]
        labels = lam * one_hot + (1 - lam) * one_hot[plan.permutation]
        plots.mixed_batch(mix_inputs(x, plan), labels, count=6, figure=part)
        part.suptitle(f"Step {step} drew {name}: replayed from `trainer.plan({step}, ...)`")


def draw(runs, data, epochs, path):
    """One picture: what training steps do, how alpha and the scores develop, and how well calibrated networks are."""
    figure = Figure(figsize=(16, 6.8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2.2])
    draw_replay(top, data)
    *curves, reliability = bottom.subplots(1, 4)
    titles = {"alpha": "alpha, set by AlphaScheduler", "error": "Test error (%)", "NLL": "Test NLL (nats)"}
    for axes, (name, title) in zip(curves, titles.items(), strict=True):
        for method, results in runs.items():
            values = np.mean([run[name] for run in results], axis=0)
            at = np.arange(1, len(values) + 1) * (epochs // len(values))
            drawstyle = "steps" if name == "alpha" else "default"
            axes.plot(at, values, color=COLORS[method], drawstyle=drawstyle, label=method)
        axes.set(title=title, xlabel="epoch", xlim=(0, epochs), ylim=(0, None))
    for method, results in runs.items():
        y_test, y_pred = (np.concatenate([run[name] for run in results]) for name in ("labels", "probabilities"))
        plots.reliability_diagram(y_test, y_pred, num_bins=10, ax=reliability, label=method, color=COLORS[method])
    reliability.set_title("Reliability: underconfident above")
    for axes in (*curves, reliability):
        axes.set_box_aspect(1)
    bottom.legend(*curves[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(runs))
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of each run (default: 60)")
    parser.add_argument("--data", type=pathlib.Path, help="folder of Fashion-MNIST (default: scikit-learn's digits)")
    parser.add_argument("--logs", help="folder for TensorBoard's logs, which TensorFlow writes (default: none)")
    parser.add_argument("--output", default="in_graph_fit.png", help="the picture (default: in_graph_fit.png)")
    parser.add_argument("--quick", action="store_true", help="1 seed, 4 epochs")
    options = parser.parse_args()
    seeds, epochs = (1, 4) if options.quick else (options.seeds, options.epochs)

    console, start = Console(), time.time()
    data = load(options.data)
    runs = train_all(console, data, seeds, epochs, options.logs)
    print_table(console, runs, epochs)
    draw(runs, data, epochs, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
