"""Copy-Paste: a segmentation network on few small scenes, into which objects of other scenes are pasted.

    python examples/instance_paste.py                      # prints a table, draws instance_paste.png
    python examples/instance_paste.py --quick              # two seeds, few epochs: only to check that it runs
    KERAS_BACKEND=jax python examples/instance_paste.py    # or torch

The scenes and the network are those of `segmentation.py`, which has more of them to train on. Here, a batch also holds
the mask of each object. CopyPaste pastes some of them along their outlines, CutMix pastes boxes; the masks of class
ids, which the network learns, follow both. In a checkout, run `pip install ".[tensorflow,examples]"`.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import scene_scores
import scenes
import segmentation
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

import kmix

# Nothing was tuned: rates and alpha are usual ones, the network and its learning rate are those of `segmentation.py`,
# and the epochs are what a few minutes allow. A seed sets the scenes, the initial weights, the order and the mixing.
TRAIN_SIZE, TEST_SIZE, BATCH_SIZE = 60, 200, 20
METHODS = {"none": "#666666", "CutMix": "#d55e00", "CopyPaste": "#0072b2"}
MARKERS = dict(zip(METHODS, "oDs", strict=True))
SHOWN, SHOWN_STEPS = 8, {"CutMix": 79, "CopyPaste": 1}  # scene and batches in the picture


def split_scenes(seed):
    """Batches to train on, and images and masks of other scenes to test on."""
    number = TRAIN_SIZE + TEST_SIZE
    images, masks, _, labels = scenes.generate(number, seed)
    objects = {"masks": scenes.instances(number, seed), "labels": labels}
    batch = {"images": images, "segmentation_masks": masks, "instances": objects}
    return rows(batch, slice(TRAIN_SIZE)), images[TRAIN_SIZE:], masks[TRAIN_SIZE:]


def rows(batch, index):
    """Some of the samples of a batch."""
    return keras.tree.map_structure(lambda leaf: leaf[index], batch)


def mixing_of(method):
    """The mixing layer of a method."""
    layers = {"none": kmix.MixUp(0.0, target={"segmentation_masks": "keep"}), "CutMix": kmix.CutMix(1.0, seed=0)}
    return {**layers, "CopyPaste": kmix.CopyPaste(rate=0.8, instance_rate=0.5, seed=0)}[method]


def compiled_model(epochs):
    """The network, compiled once for all runs, and its state before training."""
    model = segmentation.network()
    decay = keras.optimizers.schedules.CosineDecay(segmentation.LEARNING_RATE, epochs * TRAIN_SIZE // BATCH_SIZE)
    model.compile(keras.optimizers.Adam(decay), kmix.losses.SoftLabelCrossentropy())
    model.optimizer.build(model.trainable_variables)
    return model, model.get_state_tree(value_format="numpy_array")


def train(model, untrained, batch, layer, seed, epochs):
    """Train anew: the same initial weights and order for every method."""
    model.set_state_tree(untrained)
    keras.utils.set_random_seed(seed)
    model.set_weights(segmentation.network().get_weights())
    order = np.random.default_rng(seed)
    for epoch in range(epochs):
        for number, index in enumerate(order.permutation(TRAIN_SIZE).reshape(-1, BATCH_SIZE)):
            step = 1_000_000 * seed + epoch * TRAIN_SIZE // BATCH_SIZE + number
            mixed = layer.at_step(step, rows(batch, index))
            model.train_on_batch(mixed["images"], mixed["segmentation_masks"])


def train_all(console, seeds, epochs):
    """Returns {method: scores (seeds, training and test, 2)}."""
    scores = {method: np.zeros((seeds, 2, len(segmentation.SCORES))) for method in METHODS}
    model, untrained = compiled_model(epochs)
    with Progress(console=console) as progress:
        task = progress.add_task("", total=len(METHODS) * seeds)
        for seed in range(seeds):
            batch, x_test, y_test = split_scenes(seed)
            x, y = batch["images"], batch["segmentation_masks"]
            for method in METHODS:
                progress.update(task, description=f"{method:9} seed {seed}")
                train(model, untrained, batch, mixing_of(method), seed, epochs)
                scores[method][seed] = [segmentation.evaluate(model, *part) for part in ((x, y), (x_test, y_test))]
                progress.advance(task)
    return scores


def draw(scores, path):
    """A scene, mixed in two ways, with the outlines of its objects, and the scores, seed by seed."""
    figure = Figure(figsize=(11, 8.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    batch = rows(split_scenes(0)[0], slice(BATCH_SIZE))
    shown = {"a training scene": batch}
    shown |= {f"{method}, batch {step}": mixing_of(method).at_step(step, batch) for method, step in SHOWN_STEPS.items()}
    for ax, (title, mixed) in zip(top.subplots(1, len(shown)), shown.items(), strict=True):
        objects = rows(mixed["instances"], SHOWN)
        ax.imshow(mixed["images"][SHOWN])
        for mask in objects["masks"][objects["labels"] >= 0]:
            ax.contour(mask, levels=[0.5], colors="black", linewidths=3)
            ax.contour(mask, levels=[0.5], colors="white", linewidths=1.5)
        ax.set(title=title, xticks=[], yticks=[])
    titles = [f"{name}: {word} is better" for name, word in zip(segmentation.SCORES, ("higher", "lower"), strict=True)]
    scene_scores.draw(bottom, scores, titles, METHODS, MARKERS)
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, 2 or more (default: 5)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of each run (default: 60)")
    parser.add_argument("--output", default="instance_paste.png", help="the picture (default: instance_paste.png)")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 1 epoch")
    options = parser.parse_args()
    seeds, epochs = (2, 1) if options.quick else (options.seeds, options.epochs)

    console, start = Console(), time.time()
    scores = train_all(console, seeds, epochs)
    title = f"{TRAIN_SIZE} scenes to train on, {TEST_SIZE} to test on, {seeds} seeds, {epochs} epochs"
    scene_scores.print_tables(console, scores, segmentation.SCORES, (1, 3), title)
    draw(scores, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
