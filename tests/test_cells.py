"""Every mixer with every kind of target: it keeps the promises, or says why not. A page shows the table."""

import pathlib
import re

import keras
import numpy as np
import pytest
from contract import PROMISES

import kmix
from kmix.targets import BoundingBoxes, InstanceMasks, Keypoints, LabelPairs, SegmentationMasks

N, CLASSES, SIZE = 6, 5, (8, 6)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (N, *SIZE, 3)).astype("float32")
IDS = np.arange(N, dtype="int32") % CLASSES
MASKS = GENERATOR.integers(0, 3, (N, *SIZE, 1)).astype("uint8")
SOFT_MASKS = np.eye(3, dtype="float32")[MASKS[..., 0]]
CORNERS = np.sort(GENERATOR.uniform(0, SIZE[1], (N, 4, 2, 2)), axis=2).reshape(N, 4, 4).astype("float32")
BOXES = {"boxes": CORNERS, "labels": np.array([[0, 1, 2, -1]] * N, "float32")}
OBJECTS = {"masks": GENERATOR.random((N, 3, *SIZE)) < 0.5, "labels": np.array([[0, 1, -1]] * N, "int32")}
POINTS = GENERATOR.uniform(0, SIZE, (N, 4, 3, 2))[..., ::-1]
POINTS = np.concatenate([POINTS, GENERATOR.integers(0, 3, (N, 4, 3, 1))], axis=-1).astype("float32")
PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "methods" / "targets.md").read_text()


@keras.saving.register_keras_serializable(package="cells")
def own(y, plan):
    """A target mixed by hand: here, left alone."""
    return y


MIXERS = {
    "MixUp": lambda **settings: kmix.MixUp(1.0, seed=1, **settings),
    "CutMix": lambda **settings: kmix.CutMix(1.0, data_format="channels_last", seed=1, **settings),
    "EmbeddingMixup": lambda **settings: kmix.EmbeddingMixup(1.0, seed=1, **settings),
    "AudioMix": lambda **settings: kmix.AudioMix(1.0, seed=1, **settings),
    "Mosaic": lambda **settings: kmix.Mosaic(data_format="channels_last", seed=1, **settings),
    "RandomChoice": lambda **settings: kmix.RandomChoice(
        [MIXERS["CutMix"](**settings), MIXERS["MixUp"](**settings)], seed=3
    ),
}
# By the name in the table: the settings of the layer, and the target.
TARGETS = {
    "class ids": ({"num_classes": CLASSES}, IDS),
    "pairs of class ids, `LabelPairs`": ({"target": LabelPairs(CLASSES)}, IDS),
    "soft or multi-hot labels": ({}, np.eye(CLASSES, dtype="float32")[IDS]),
    "values to regress": ({}, np.linspace(-1, 1, N).astype("float32")),
    '`"union"`': ({"target": "union"}, np.eye(CLASSES, dtype="float32")[IDS]),
    '`"keep"`': ({"target": "keep"}, IDS),
    "a callable": ({"target": own}, IDS),
    "masks of class ids": ({"target": SegmentationMasks(3)}, MASKS),
    "soft masks": ({"target": "segmentation_masks"}, SOFT_MASKS),
    "bounding boxes": ({"target": BoundingBoxes("xyxy")}, BOXES),
    "instance masks": ({"target": InstanceMasks()}, OBJECTS),
    "keypoints": ({"target": Keypoints(hidden=1)}, POINTS),
    "keypoints with their boxes": (
        {"target": BoundingBoxes("xyxy", keypoints=Keypoints("xy"))},
        {**BOXES, "keypoints": POINTS},
    ),
}
REFUSED = {
    ("Mosaic", "pairs of class ids, `LabelPairs`"): "with 3 partners",
}


@pytest.mark.in_turn
@pytest.mark.fast("CutMix-masks*")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_the_cell_keeps_its_promises_or_says_why_not(mixer, target):
    settings, y = TARGETS[target]
    if (mixer, target) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[mixer, target]):
            MIXERS[mixer](**settings)
        return
    layer, x = MIXERS[mixer](**settings), IMAGES[..., 0] if mixer == "AudioMix" else IMAGES
    for promise in PROMISES:
        if promise.__name__ not in ("check_once", *(["check_second_batch"] if mixer == "Mosaic" else [])):
            promise(layer, (x, y))


def test_the_page_shows_the_table():
    header = ["target", *(f"`{name}`" for name in MIXERS)]
    rows = [header, ["---"] * len(header)]
    for target in TARGETS:
        rows.append([target, *("no" if (mixer, target) in REFUSED else "yes" for mixer in MIXERS)])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    shown = re.search(r"\| target \|.*?(?=\n\n)", PAGE, re.DOTALL)
    assert shown is not None, f"The page lacks the table:\n{table}"
    assert shown[0] == table, f"The page should show\n{table}"
