"""What masks and boxes cost in a tf.data pipeline, and a Mosaic, next to CutMix of the images alone; and a CopyPaste.

    python benchmarks/targets.py            # only printed
    python benchmarks/targets.py --save     # written to RESULTS.md

Batches of 128 x 224 x 224 x 3 float32 images in memory, with class ids; with uint8 masks of one channel; with 20
boxes a picture. The rounds are interleaved, as in `speed.py`, whose memory limit is the first row. KerasCV stands
next to kmix where it can do the same. A CopyPaste of 32 x 512 x 512 x 3 uint8 images with masks of 20 objects stands
next to the memory that it must at least move: the masks joined with those of the partners, and the images of these.
"""

import argparse
import os
import random
import statistics

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import results
import tensorflow as tf
from speed import KMIX, keras_cv, memory_pass, run_pipeline, source

import kmix

SHAPE, CLASSES, BOXES = (128, 224, 224, 3), 1000, 20
OBJECTS = (32, 20, 512, 512)
LIMIT, IMAGES, JOINED = "memory limit", "CutMix", "masks joined with those of the partners"
# What a row may cost, as a multiple of another.
BOUNDS = {
    "CutMix, masks": (IMAGES, 1.4),
    "CutMix, boxes": (IMAGES, 1.1),
    "Mosaic": (LIMIT, 1.3),
    "CopyPaste, objects": (JOINED, 2.0),
}


def make_batch(kind):
    """Images with class ids, and masks or boxes."""
    generator, size = np.random.default_rng(0), SHAPE[1]
    batch = {
        "images": generator.random(SHAPE, dtype="float32"),
        "labels": generator.integers(CLASSES, size=SHAPE[0]),
    }
    if "masks" in kind:
        batch["segmentation_masks"] = generator.integers(20, size=(*SHAPE[:3], 1)).astype("uint8")
    if "boxes" in kind:
        corners = np.sort(generator.uniform(0, size, (SHAPE[0], BOXES, 2, 2)), axis=2).astype("float32")
        classes = generator.integers(20, size=(SHAPE[0], BOXES)).astype("float32")
        batch["bounding_boxes"] = {"boxes": corners.reshape(SHAPE[0], BOXES, 4), "labels": classes}
    return batch


def make_objects():
    """Images, and ellipses of 30 to 160 pixels as the masks of objects."""
    generator, (size, most, height, width) = np.random.default_rng(0), OBJECTS
    masks = np.zeros(OBJECTS, bool)
    for mask in masks.reshape(-1, height, width):
        high, wide = generator.integers(30, 160, 2)
        top, left = generator.integers(height - high), generator.integers(width - wide)
        rows, columns = np.ogrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
        mask[top : top + high, left : left + wide] = rows**2 + columns**2 <= 1
    images = generator.integers(0, 256, (size, height, width, 3)).astype("uint8")
    return {"images": images, "instances": {"masks": masks, "labels": generator.integers(80, size=(size, most))}}


def join(batch):
    """The memory that a CopyPaste must move: all masks of two images, and the images of the partners."""
    order = np.random.default_rng(0).permutation(OBJECTS[0])
    masks = batch["instances"]["masks"]
    return tf.concat([masks, tf.gather(masks, order)], 1), tf.gather(batch["images"], order)


def layer(kind):
    """The mixer of a row."""
    name = kind.split(",")[0]
    settings = {"num_classes": CLASSES, "target": {"bounding_boxes": kmix.targets.BoundingBoxes("xyxy")}}
    return getattr(kmix, name)(data_format="channels_last", **settings)


def pipelines():
    """By name: a data set of mixed batches."""
    images = make_batch("")
    found = {LIMIT: source((images["images"], images["labels"]), LIMIT).map(memory_pass("CutMix", images["images"]), 2)}
    for kind in ("CutMix", "CutMix, masks", "CutMix, boxes", "Mosaic", "Mosaic, masks", "Mosaic, boxes"):
        found[kind] = source(make_batch(kind), KMIX).map(layer(kind), 2)
    objects = source(make_objects(), KMIX)
    found[JOINED] = objects.map(join, 2)
    found["CopyPaste, objects"] = objects.map(kmix.CopyPaste(data_format="channels_last"), 2)
    if keras_cv:
        one_hot = {"images": images["images"], "labels": np.eye(CLASSES, dtype="float32")[images["labels"]]}
        for name in ("CutMix", "Mosaic"):
            mixer = getattr(keras_cv.layers, name)()
            found[f"KerasCV's {name}"] = source(one_hot, KMIX).map(lambda batch, mixer=mixer: mixer(batch), 2)
    return found


def main():
    """Measure and print, or write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    data = pipelines()
    times = {name: [] for name in data}
    for _ in range(options.rounds + 1):
        for name in random.sample(list(data), len(data)):
            times[name].append(run_pipeline(data[name], 10 if "KerasCV" not in name else 2))
    times = {name: values[1:] for name, values in times.items()}
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name, values in times.items():
        other, bound = BOUNDS.get(name, (None, None))
        wanted = f"{median[name] / median[other]:.2f} of {other} (at most {bound})" if other else ""
        rows.append([name, f"{median[name]:.1f} ({min(values):.1f} to {max(values):.1f})", wanted])
    text = f"""## Masks, boxes and Mosaic in tf.data: `make targets`

{results.machine("keras", "keras-cv", "tensorflow", "numpy")}.

Milliseconds per batch of {" x ".join(map(str, SHAPE))} float32 images, two parallel calls: medians of {options.rounds}
interleaved rounds (minimum to maximum). Masks are uint8 with one channel; {BOXES} boxes a picture. The
objects of a CopyPaste are masks of {" x ".join(map(str, OBJECTS))} booleans with uint8 images.

{results.table(["batch", "milliseconds", "as a multiple"], rows)}
"""
    print(text)
    if options.save:
        results.write_section("targets", text)


if __name__ == "__main__":
    main()
