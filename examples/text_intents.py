"""Intents of requests from few examples per class: plain training, wordMixup and senMixup, on two encoders.

    python examples/text_intents.py                      # downloads CLINC150 (2.5 MB), prints a table, draws a picture
    python examples/text_intents.py --data data_full.json    # reads a local copy of the data
    python examples/text_intents.py --quick              # one seed, few steps: only to check that it runs
    python examples/text_intents.py --scratch            # word vectors trained from scratch, not pretrained
    KERAS_BACKEND=jax python examples/text_intents.py    # or torch

A sentence is a sequence of token ids, which cannot be interpolated; its embeddings can. `EmbeddingMixup` stands in the
model, after the embedding (wordMixup) or after the encoder (senMixup), and `MixTrainer` mixes the labels with it.

The pretrained vectors come from the PyPI package `wordllama` (MIT), and the requests from Larson et al., "An Evaluation
Dataset for Intent Classification and Out-of-Scope Prediction", https://aclanthology.org/D19-1131 (CC BY 3.0).
In a checkout, `pip install ".[tensorflow,examples]"` installs everything.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.metrics import roc_auc_score

import kmix

URL = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/data_full.json"
SHA256 = "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"
CLASSES, LENGTH = 150, 24  # 99 % of the requests have at most 24 tokens; longer ones are cut

# The same for all methods. Networks, learning rate and steps were chosen for plain training, on the validation split
# with seeds 100 to 102; alpha was then chosen between 0.2 and 2. The mean was the best network; the convolution is here
# because it overfits few examples. Mixing in every step left the mean underconfident, so mixing stops halfway. The
# pretrained vectors are frozen: training them gains the mean a point of accuracy and takes twice as long. A seed sets
# the sample of training requests, their order, the initial weights and the mixing. Nothing is chosen on the test split.
SIZES, BATCH_SIZE, LEARNING_RATE, ALPHA = (5, 10, 50), 64, 2e-3, 0.5
METHODS = {"plain": "#666666", "wordMixup": "#0072b2", "senMixup": "#d55e00"}
ENCODERS = {"mean": "Mean of the tokens", "CNN": "Convolution and maximum"}
# ECE: expected calibration error. AUROC: how well the largest probability separates requests in scope from others.
SCORES = {"accuracy": "accuracy", "gain": "gain", "ece": "ECE", "auroc": "AUROC"}


def load_requests(path):
    """CLINC150, read from a file or downloaded: {split: [[text, intent], ...]}."""
    try:
        path = path or keras.utils.get_file("clinc150_data_full.json", URL, file_hash=SHA256)
    except Exception as error:  # Keras raises nothing narrower
        raise SystemExit(f"{error}\nWithout a network connection, pass a copy: --data data_full.json") from None
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def pretrained(texts):
    """The wordllama tokens of texts `(n, LENGTH)`, 0 for padding, and the vectors of the 32000 tokens.

    The two files of the package are read directly, because its own loader needs the network.
    """
    spec = importlib.util.find_spec("wordllama")
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError:
        spec = None
    if spec is None:
        raise SystemExit("Run `pip install wordllama safetensors tokenizers`, or train word vectors with `--scratch`.")
    folder = pathlib.Path(spec.submodule_search_locations[0])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.enable_padding(length=LENGTH, pad_id=0)
    tokenizer.enable_truncation(LENGTH)
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    (vectors,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    return np.array(tokens, "int32"), vectors.astype("float32")


def from_scratch(texts):
    """The words of texts as ids `(n, LENGTH)`, 0 for padding and 1 for unknown words, and random vectors."""
    words = [text.lower().split()[:LENGTH] for text in texts]
    ids = {word: 2 + i for i, word in enumerate(sorted(set().union(*words)))}
    tokens = np.zeros((len(texts), LENGTH), "int32")
    for row, sentence in zip(tokens, words, strict=True):
        row[: len(sentence)] = [ids[word] for word in sentence]
    vectors = np.random.default_rng(0).normal(size=(len(ids) + 2, 64)).astype("float32")
    vectors[1] = 0.0
    return tokens, vectors


def vectorize(requests, scratch):
    """The data as arrays: {split: token ids} and {split: class ids}, and the vectors of the tokens."""
    splits = {"train": "train", "test": "test", "out of scope": "oos_test"}
    texts = [text for split in splits.values() for text, _ in requests[split]]
    ends = np.cumsum([len(requests[split]) for split in splits.values()])
    tokens, vectors = (from_scratch if scratch else pretrained)(texts)
    vectors[0] = 0.0  # what padding adds to a mixed sentence
    intents = sorted({intent for _, intent in requests["train"]})
    labels = {name: np.array([intents.index(intent) for _, intent in requests[name]]) for name in ("train", "test")}
    return dict(zip(splits, np.split(tokens, ends[:-1]), strict=True)), labels, vectors


def sample_batches(labels, size, seed, steps):
    """The rows of `size` requests of each class, in the order of training, for all steps one after another."""
    generator = np.random.default_rng(seed)
    # The larger samples of a seed contain its smaller ones.
    sample = [generator.permutation(np.flatnonzero(labels == c))[:size] for c in range(CLASSES)]
    length = steps * BATCH_SIZE
    epochs = -(-length // (size * CLASSES))
    return np.concatenate([generator.permutation(np.concatenate(sample)) for _ in range(epochs)])[:length]


def without_unknown(tokens, rows):
    """The tokens, with 1 for those that do not occur in the training rows."""
    known = np.append(np.unique(tokens["train"][rows]), 0)
    return {name: np.where(np.isin(ids, known), ids, 1) for name, ids in tokens.items()}


class Convolution(layers.Layer):
    """A convolution over three tokens, then the maximum over those that are not padding."""

    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv1D(128, 3, padding="same", activation="relu")

    def build(self, shape):
        self.convolution.build(shape)

    def call(self, x, mask=None):
        mask = ops.expand_dims(ops.cast(mask, x.dtype), -1)
        return ops.max(self.convolution(x * mask) * mask, axis=1)  # after a ReLU nothing is less than 0

    def compute_mask(self, x, mask=None):
        return None


def network(encoder, method, vectors, trainable, alpha, seed, pairing="random"):
    """Token ids in, logits out. The network of a method is the plain one, with an `EmbeddingMixup` in one place."""
    mixup = kmix.EmbeddingMixup(alpha, pairing=pairing, seed=seed)
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(*vectors.shape, mask_zero=True, weights=[vectors], trainable=trainable)(inputs)
    if method == "wordMixup":
        x = mixup(x)
    x = (Convolution() if encoder == "CNN" else layers.GlobalAveragePooling1D())(x)
    if method == "senMixup":
        x = mixup(x)
    x = layers.Dense(512, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def train(model, x, y):
    """Train a model, with mixing if it has a mixing layer."""
    mixes = any(isinstance(layer, kmix.EmbeddingMixup) for layer in model.layers)
    trainer = kmix.MixTrainer(model) if mixes else model
    trainer.compile(keras.optimizers.Adam(LEARNING_RATE), kmix.losses.SoftLabelCrossentropy(from_logits=True))
    trainer.fit(x, y, batch_size=BATCH_SIZE, shuffle=False, verbose=0)


def evaluate(model, tokens, labels):
    """Scores in percent, and the model's confidence for requests in scope and out of scope."""
    x = np.concatenate([tokens["test"], tokens["out of scope"]])
    probabilities = ops.convert_to_numpy(ops.softmax(model.predict(x, batch_size=500, verbose=0)))
    confidence, in_scope = probabilities.max(axis=-1), np.arange(len(x)) < len(labels)
    return {
        "accuracy": 100 * np.mean(probabilities[in_scope].argmax(axis=-1) == labels),
        "ece": 100 * float(kmix.metrics.ExpectedCalibrationError()(labels, probabilities[in_scope])),
        "auroc": 100 * roc_auc_score(in_scope, confidence),
        "in scope": confidence[in_scope],
        "out of scope": confidence[~in_scope],
    }


def train_all(console, data, sizes, seeds, steps, scratch):
    """Train every network with every method. Returns {(encoder, size, method): [results of `evaluate`, by seed]}."""
    tokens, labels, vectors = data
    alpha = kmix.schedules.Join([ALPHA, 0.0], boundaries=[steps // 2])
    runs = {(encoder, size, method): [] for encoder in ENCODERS for size in sizes for method in METHODS}
    with Progress(console=console) as progress:
        task = progress.add_task("", total=seeds * len(runs))
        for seed in range(seeds):
            for (encoder, size, method), results in runs.items():
                progress.update(task, description=f"seed {seed}: {encoder:4}, {size:2} per class, {method:9}")
                rows = sample_batches(labels["train"], size, seed, steps)
                read = without_unknown(tokens, rows) if scratch else tokens
                keras.utils.set_random_seed(seed)  # the same initial weights for every method
                model = network(encoder, method, vectors, scratch, alpha, seed)
                train(model, read["train"][rows], labels["train"][rows])
                results.append(evaluate(model, read, labels["test"]))
                plain = runs[encoder, size, "plain"][seed]
                results[-1]["gain"] = results[-1]["accuracy"] - plain["accuracy"]
                progress.advance(task)
    return runs


def mean_and_spread(results, score):
    """Mean and standard deviation of one score over the seeds."""
    values = [result[score] for result in results]
    return np.mean(values), np.std(values, ddof=min(1, len(values) - 1))


def print_tables(console, runs, sizes, seeds, steps):
    for encoder, title in ENCODERS.items():
        table = Table("per class", "method", *SCORES.values())
        table.title = f"{title}: {steps} steps of {BATCH_SIZE} requests, {seeds} seed(s)"
        table.caption = "percent, mean ± standard deviation; gain: accuracy above plain training, seed by seed"
        for size in sizes:
            for method in METHODS:
                values = [mean_and_spread(runs[encoder, size, method], score) for score in SCORES]
                cells = [f"{mean:.1f} ± {spread:.1f}" if seeds > 1 else f"{mean:.1f}" for mean, spread in values]
                table.add_row(str(size), method, *cells)
            table.add_section()
        console.print(table)


def draw(runs, sizes, path):
    """The scores against the number of examples, and how confident the networks are in scope and out of scope."""
    figure = Figure(figsize=(18, 7.5), layout="constrained")
    axes = figure.subplots(len(ENCODERS), len(SCORES) + 1)
    for row, (encoder, title) in zip(axes, ENCODERS.items(), strict=True):
        for ax, (score, label) in zip(row, SCORES.items(), strict=False):
            draw_score(ax, runs, encoder, sizes, score)
            ax.set_title(f"{label} (%)")
        draw_confidence(row[-1], runs, encoder, sizes[0])
        row[0].set_ylabel(title, fontsize="large")
    for ax, other in axes.T:  # the same scale for both encoders
        ax.sharey(other)
        ax.autoscale(axis="y")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS))
    figure.savefig(path, dpi=100)


def draw_score(ax, runs, encoder, sizes, score):
    for shift, (method, color) in zip((0.96, 1.0, 1.04), METHODS.items(), strict=True):  # side by side
        values = [mean_and_spread(runs[encoder, size, method], score) for size in sizes]
        mean, spread = np.transpose(values)
        ax.errorbar(shift * np.array(sizes), mean, spread, color=color, marker="o", capsize=3, label=method)
    ax.set(xscale="log", xlim=(0.8 * sizes[0], 1.25 * sizes[-1]), xlabel="examples per class")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
    ax.grid(axis="y", alpha=0.3)


def draw_confidence(ax, runs, encoder, size):
    """Histograms: requests in scope upwards, out of scope downwards."""
    bins = np.linspace(0, 1, 21)
    for method, color in METHODS.items():
        for scope, sign in (("in scope", 1), ("out of scope", -1)):
            values = np.concatenate([result[scope] for result in runs[encoder, size, method]])
            share = sign * 100 * np.histogram(values, bins)[0] / len(values)
            ax.stairs(share, bins, color=color, fill=method == "plain", alpha=0.4 if method == "plain" else 1, lw=1.8)
    ax.axhline(0, color="black", lw=0.8)
    ax.text(0.02, 0.97, "in scope", transform=ax.transAxes, va="top")
    ax.text(0.98, 0.03, "out of scope", transform=ax.transAxes, ha="right")
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f} %")
    ax.set(title=f"Confidence, {size} per class", xlabel="largest probability", xlim=(0, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data_full.json of CLINC150 (default: download it)")
    parser.add_argument("--scratch", action="store_true", help="train word vectors from scratch")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each run (default: 500)")
    parser.add_argument("--output", default="text_intents.png", help="the picture (default: text_intents.png)")
    parser.add_argument("--quick", action="store_true", help=f"1 seed, 20 steps, {SIZES[0]} examples per class")
    options = parser.parse_args()
    seeds, steps, sizes = (1, 20, SIZES[:1]) if options.quick else (options.seeds, options.steps, SIZES)

    console, start = Console(), time.time()
    data = vectorize(load_requests(options.data), options.scratch)
    runs = train_all(console, data, sizes, seeds, steps, options.scratch)
    print_tables(console, runs, sizes, seeds, steps)
    draw(runs, sizes, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
