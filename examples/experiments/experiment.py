"""What the experiments share: Fashion-MNIST, a network that can memorise, paired training, and the result file."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import tables
from keras import layers
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import kmix

CLASSES, BATCH_SIZE, LEARNING_RATE = 10, 100, 2e-3
PLAIN = "plain"
SEED_STEPS = 1_000_000  # the first step of a seed is a multiple of it


def load_data():
    """Images `(n, 28, 28, 1)` in [0, 1] and class ids of Fashion-MNIST: `(x, y), (x_test, y_test)`."""
    try:
        parts = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises nothing narrower
        raise SystemExit(
            f"{error}\nFashion-MNIST could not be downloaded. Without a network connection, put its four .gz files "
            "into ~/.keras/datasets/fashion-mnist/; on Debian they are in the package dataset-fashion-mnist, under "
            "/usr/share/datasets/fashion-mnist/."
        ) from None
    return [(x[..., None].astype("float32") / 255, y.astype("int64")) for x, y in parts]


def draw_samples(data, size, seed):
    """A training set of `size` images, as many of each class, drawn by a seed."""
    x, y = data
    generator = np.random.default_rng(seed)
    classes = [generator.permutation(np.flatnonzero(y == one))[: size // CLASSES] for one in range(CLASSES)]
    chosen = generator.permutation(np.concatenate(classes))
    return x[chosen], y[chosen]


def replace_labels(y, noise, seed):
    """Labels of which a share is replaced by random classes."""
    generator = np.random.default_rng([seed, 1])
    replaced = generator.permutation(len(y)) < round(noise * len(y))
    return np.where(replaced, generator.integers(0, CLASSES, len(y)), y)


def augment(x, generator, reach=2):
    """Images, half of them flipped from left to right, shifted by up to `reach` pixels; what is shifted in is black."""
    flipped = np.where(generator.random((len(x), 1, 1, 1)) < 0.5, x[:, :, ::-1], x)
    padded = np.pad(flipped, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    row, column = generator.integers(0, 2 * reach + 1, (2, len(x), 1))
    rows, columns = row + np.arange(x.shape[1]), column + np.arange(x.shape[2])
    return padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]


def network(dropout=0.0):
    """207 000 weights: enough to memorise some thousand images whatever their labels say."""
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="conv2")(x)
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    x = layers.Dropout(dropout)(layers.Dense(128, activation="relu", name="hidden")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))


class Method:
    """A network and what to fit, compiled once for all runs.

    Args:
        steps: Number of training steps of a run, in which the learning rate falls to 0 along a cosine.
        trainer_of: Makes of the network what to fit: a `MixTrainer`, or the network itself.
        dropout: Rate of dropout, for `model_of`.
        label_smoothing: Share of each label to spread over the classes.
        weight_decay: Rate of Adam's decoupled weight decay.
        augmented: Whether to flip and shift the images, see `augment`.
        schedule: Alpha by the number of the step, or None to leave alpha alone.
        model_of: Makes the network of that dropout, always with the same weights: by default for Fashion-MNIST.
    """

    def __init__(
        self,
        steps,
        trainer_of=lambda model: model,
        dropout=0.0,
        label_smoothing=0.0,
        weight_decay=None,
        augmented=False,
        schedule=None,
        model_of=network,
    ):
        self.steps, self.model, self.model_of = steps, model_of(dropout), model_of
        self.trainer, self.augmented, self.schedule = trainer_of(self.model), augmented, schedule
        rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
        optimizer = keras.optimizers.Adam(rate, weight_decay=weight_decay)
        self.trainer.compile(optimizer, kmix.losses.SoftLabelCrossentropy(label_smoothing=label_smoothing))
        optimizer.build(self.model.trainable_variables)
        self.variables = [*self.trainer.variables, *optimizer.variables]
        self.untrained = [keras.ops.convert_to_numpy(variable) for variable in self.variables]

    def train(self, x, y, seed, parts, after_part=lambda: None):
        """Train anew. A seed gives every method the same initial weights and the same batches in the same order.

        Args:
            x, y: The training set.
            seed: The seed.
            parts: Number of equal parts of the training.
            after_part: Is called after each of them.
        """
        for variable, value in zip(self.variables, self.untrained, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(seed)
        self.model.set_weights(self.model_of(0.0).get_weights())  # dropout has no weights
        for number, layer in enumerate(self.model.layers):
            if isinstance(layer, layers.Dropout) and layer.rate > 0:
                layer.seed_generator.state.assign([seed, 1_000_000 * number])
        if isinstance(self.trainer, kmix.MixTrainer):
            self.trainer.step.assign(SEED_STEPS * seed)  # the number of a step decides how it is mixed
        generator, needed = np.random.default_rng(seed), self.steps * BATCH_SIZE
        order = np.concatenate([generator.permutation(len(x)) for _ in range(-(-needed // len(x)))])[:needed]
        settings = {"batch_size": BATCH_SIZE, "shuffle": False, "verbose": 0}
        if self.schedule is not None:
            settings["callbacks"] = [kmix.callbacks.AlphaScheduler(self.trainer, self.schedule, unit="batch")]
        for part in np.split(order, parts):
            images = augment(x[part], generator) if self.augmented else x[part]
            self.trainer.fit(images, y[part], **settings)
            after_part()

    def predict(self, x):
        """Probabilities `(n, CLASSES)`."""
        return self.model.predict(x, batch_size=1000, verbose=0)


def options_of(doc, name, seeds, quick, more=None):
    """The command line that all experiments have, with `more` options: `{flag: settings of add_argument}`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"number of paired seeds (default: {seeds})")
    parser.add_argument("--output", default=f"{name}.png", help=f"the picture (default: {name}.png)")
    parser.add_argument("--quick", action="store_true", help=quick)
    for flag, settings in (more or {}).items():
        parser.add_argument(flag, **settings)
    options = parser.parse_args()
    options.output = pathlib.Path(options.output)
    options.result = options.output.with_suffix(".json")
    return options


def run_all(runs, run):
    """Call `run(*one)` for each of a list of runs, with a bar. Returns how long all took, in seconds."""
    start = time.time()
    with Progress(console=Console()) as progress:
        task = progress.add_task("", total=len(runs))
        for one in runs:
            progress.update(task, description=", ".join(map(str, one)))
            run(*one)
            progress.advance(task)
    return time.time() - start


def summary(values):
    """Mean and standard deviation over the seeds."""
    return {"mean": np.mean(values), "std": np.std(values, ddof=1) if len(values) > 1 else None, "values": values}


def rounded(value):
    """Numbers with 6 decimals, in dictionaries and lists."""
    if isinstance(value, dict):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(one) for one in value]
    return round(float(value), 6) if isinstance(value, (float, np.floating)) else value


def save(path, experiment, seeds, settings, seconds, cases, **more):
    """Write the result file, and return what it holds."""
    packages = ["keras", "numpy", keras.backend.backend()]
    result = {
        "experiment": experiment,
        "command": " ".join([f"KERAS_BACKEND={keras.backend.backend()} python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(seconds),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {"python": platform.python_version(), "kmix": kmix.__version__}
        | {name: importlib.metadata.version(name) for name in packages},
        "seeds": seeds,
        "settings": {"batch size": BATCH_SIZE, "learning rate": LEARNING_RATE, **settings},
        "cases": rounded(cases),
        **rounded(more),
    }
    text = json.dumps(result, indent=1)
    path.write_text(re.sub(r"\[[^]\[{]*\]", in_one_line, text) + "\n")  # lists of numbers
    return result


def in_one_line(found):
    """The text of a match without its line breaks."""
    return " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]")


def reach(differences, factor):
    """The means of differences, and how far their intervals reach below and above, as `errorbar` takes them."""
    mean = factor * np.array([one["mean"] for one in differences])
    ends = [[one["mean"] if one[end] is None else one[end] for one in differences] for end in ("low", "high")]
    return mean, np.abs(factor * np.array(ends) - mean)


def figure_of(columns, title):
    """A figure with one row of panels."""
    figure = Figure(figsize=(5 * columns, 5.6), layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def print_table(result, title):
    """The table of a result, on the terminal."""
    head, *body = tables.rows(result)
    table = Table(*head, title=title, caption=f"mean ± standard deviation over {len(result['seeds'])} seed(s)")
    for row in body:
        table.add_row(*row)
    Console(width=max(120, Console().width)).print(table)


def report(result, title, draw, options):
    """Draw the picture of a result, and print its table."""
    draw(result, options.output)
    print_table(result, title)
    print(f"{result['seconds']} s. The results: {options.result}. The picture: {options.output}")
