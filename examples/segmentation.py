"""Segmentation of small scenes: a U-Net, trained plainly and with mixed images and masks.

    python examples/segmentation.py                      # prints a table, draws segmentation.png
    python examples/segmentation.py --quick              # two seeds, few epochs: only to check that it runs
    KERAS_BACKEND=jax python examples/segmentation.py    # or torch

The scenes are discs, squares and triangles on cluttered ground, from `scenes.py`. CutMix and Mosaic paste the masks
with the images, so that they stay class ids. MixUp blends them: each pixel then has a share of each class. In a
checkout, run `pip install ".[tensorflow,examples]"`.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import scene_scores
import scenes
from keras import layers
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.console import Console
from rich.progress import Progress
from sklearn.metrics import jaccard_score

import kmix

# Scenes, network and learning rate were designed on seeds 100 and 101; the runs here use the seeds from 0 on. The
# epochs are what a few minutes allow, and the alphas are usual ones. A seed sets the scenes, the initial weights, the
# order and the mixing. The test scenes of a run neither select nor stop anything in it.
TRAIN_SIZE, TEST_SIZE, BATCH_SIZE, LEARNING_RATE = 160, 200, 20, 8e-3
ALPHA = {"MixUp": 0.4, "CutMix": 1.0}
METHODS = {"none": "#666666", "MixUp": "#0072b2", "CutMix": "#d55e00", "Mosaic": "#009e73"}
MARKERS = dict(zip(METHODS, "oD^s", strict=True))
CLASSES = dict(zip(("ground", *scenes.NAMES), ("#222222", "#3a6fb0", "#e69f00", "#fff7c8"), strict=True))
SHOWN, SHOWN_STEPS = 8, {"MixUp": 42, "CutMix": 79, "Mosaic": 3}  # scene and batches in the picture
SCORES = ("mean IoU (%)", "NLL (nats)")


def split_scenes(seed):
    """Scenes to train on, and others to test on: images and masks."""
    images, masks, _, _ = scenes.generate(TRAIN_SIZE + TEST_SIZE, seed)
    return images[:TRAIN_SIZE], masks[:TRAIN_SIZE], images[TRAIN_SIZE:], masks[TRAIN_SIZE:]


def convolution(x, filters):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def network():
    """A U-Net with 40,000 weights: images in, a probability of each class at each pixel out."""
    image = keras.Input((scenes.SIZE, scenes.SIZE, 3))
    levels = [convolution(image, 8)]
    for filters in (16, 32, 64):
        levels.append(convolution(layers.MaxPooling2D()(levels[-1]), filters))
    x = levels.pop()
    while levels:
        fine = levels.pop()
        filters = fine.shape[-1]
        x = layers.UpSampling2D()(layers.Conv2D(filters, 1)(x))
        x = convolution(layers.Add()([x, fine]), filters)
    return keras.Model(image, layers.Conv2D(len(CLASSES), 1, activation="softmax")(x))


def mixing_of(method):
    """The mixing layer of a method."""
    settings = {"target": kmix.targets.SegmentationMasks(len(CLASSES)), "seed": 0}
    if method == "Mosaic":
        return kmix.Mosaic(**settings)
    return getattr(kmix, method)(ALPHA[method], **settings)


def compiled_trainer(method, epochs):
    """The network, what to fit, compiled once for all seeds, and its state before training."""
    model = network()
    trainer = model if method == "none" else kmix.MixTrainer(model, mixing_of(method))
    decay = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * TRAIN_SIZE // BATCH_SIZE)
    trainer.compile(keras.optimizers.Adam(decay), kmix.losses.SoftLabelCrossentropy())
    trainer.optimizer.build(model.trainable_variables)
    return model, trainer, trainer.get_state_tree(value_format="numpy_array")


def train(model, trainer, untrained, images, masks, seed, epochs):
    """Train anew: the same initial weights and order for every method."""
    trainer.set_state_tree(untrained)
    keras.utils.set_random_seed(seed)
    model.set_weights(network().get_weights())
    if isinstance(trainer, kmix.MixTrainer):
        trainer.step.assign(1_000_000 * seed)  # the number of a step decides how it is mixed
    trainer.fit(images, masks, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)


def evaluate(model, images, masks):
    """The scores on scenes that are not mixed."""
    probabilities = model.predict(images, batch_size=40, verbose=0)
    iou = jaccard_score(masks.ravel(), probabilities.argmax(axis=-1).ravel(), average="macro")
    true = np.take_along_axis(probabilities, masks[..., None], axis=-1)
    return 100 * iou, -np.mean(np.log(np.maximum(true, 1e-7)))


def train_all(console, seeds, epochs):
    """Returns {method: scores (seeds, training and test, 2)}."""
    scores = {method: np.zeros((seeds, 2, len(SCORES))) for method in METHODS}
    parts = [split_scenes(seed) for seed in range(seeds)]
    with Progress(console=console) as progress:
        task = progress.add_task("", total=len(METHODS) * seeds)
        for method in METHODS:
            model, *compiled = compiled_trainer(method, epochs)
            for seed in range(seeds):
                progress.update(task, description=f"{method:6} seed {seed}")
                x, y, x_test, y_test = parts[seed]
                train(model, *compiled, x, y, seed, epochs)
                scores[method][seed] = evaluate(model, x, y), evaluate(model, x_test, y_test)
                progress.advance(task)
    return scores


def draw(scores, path):
    """A scene, mixed in three ways, and the scores on the test scenes, seed by seed."""
    figure = Figure(figsize=(13, 9.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.45, 1])
    draw_mixed(top)
    titles = [f"{name}: {better} is better" for name, better in zip(SCORES, ("higher", "lower"), strict=True)]
    scene_scores.draw(bottom, scores, titles, METHODS, MARKERS)
    figure.savefig(path, dpi=100)


def draw_mixed(figure):
    """The images with the outlines of their masks, and the masks below: a mixture of the colours of the classes."""
    images, masks, _, _ = split_scenes(0)
    images, masks = images[:BATCH_SIZE], masks[:BATCH_SIZE]
    shown = {"a training scene": (images, masks)}
    for method, step in SHOWN_STEPS.items():
        shown[f"{method}, batch number {step}"] = mixing_of(method).at_step(step, (images, masks))
    colors = np.array([to_rgb(color) for color in CLASSES.values()])
    for column, (title, (mixed, mask)) in zip(figure.subplots(2, len(shown)).T, shown.items(), strict=True):
        shares = mask[SHOWN] if mask.ndim == 4 else np.eye(len(CLASSES))[mask[SHOWN]]
        column[0].imshow(mixed[SHOWN])
        column[1].imshow(shares @ colors)
        for share in np.moveaxis(shares, -1, 0)[1:]:
            column[0].contour(share, levels=[0.2], colors="black", linewidths=3)
            column[0].contour(share, levels=[0.2], colors="white", linewidths=1.5)
        column[0].set_title(title)
        for ax in column:
            ax.set(xticks=[], yticks=[])
    patches = [Patch(facecolor=color, edgecolor="black", label=name) for name, color in CLASSES.items()]
    figure.legend(handles=patches, ncols=len(CLASSES), loc="outside lower center")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, 2 or more (default: 5)")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each run (default: 50)")
    parser.add_argument("--output", default="segmentation.png", help="the picture (default: segmentation.png)")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 1 epoch")
    options = parser.parse_args()
    seeds, epochs = (2, 1) if options.quick else (options.seeds, options.epochs)

    console, start = Console(), time.time()
    scores = train_all(console, seeds, epochs)
    title = f"{TRAIN_SIZE} scenes to train on, {TEST_SIZE} to test on, {seeds} seeds, {epochs} epochs"
    scene_scores.print_tables(console, scores, SCORES, (1, 3), title)
    draw(scores, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
