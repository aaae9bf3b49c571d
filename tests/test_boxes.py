"""Bounding boxes against pixels: each box is painted, and what shows of it in the mixed picture is found again."""

import keras
import numpy as np
import pytest
from contract import PROMISES
from helpers import at_step, every_path, tf, to_native, to_numpy

import kmix
from kmix._backend import xla
from kmix._backend.execution import Programs
from kmix.targets import BoundingBoxes, Labels, SegmentationMasks
from kmix.targets.box_formats import FORMATS

N = 8
# Boxes are painted on a grid this much finer than the pixels.
FINE = 4


def scene(generator, height, width, most=12):
    """Corners `(y0, x0, y1, x1)`, some beyond the borders, and labels, -1 for padding.

    The corners lie on whole pixels, or on quarters of them.
    """
    unit = generator.choice([1, FINE])
    height, width = unit * height, unit * width
    corners = np.full((N, most, 4), -1.0)
    labels = np.full((N, most), -1)
    for i in range(N):
        for j in range(generator.integers(0, most + 1)):
            top, left = generator.integers(-4, height + 2), generator.integers(-4, width + 2)
            bottom = min(height + 3, top + generator.integers(1, height + 1))
            right = min(width + 3, left + generator.integers(1, width + 1))
            corners[i, j] = np.array([top, left, bottom, right]) / unit
            labels[i, j] = generator.integers(0, 9)
    # A real box may stand after padding, which may hold anything.
    order = generator.permutation(most)
    padding = (labels < 0)[..., None] & (generator.random() < 0.5)
    return np.where(padding, 0, corners)[:, order], labels[:, order]


def written(corners, name, height, width):
    """Boxes in a format."""
    top, left, bottom, right = np.moveaxis(corners.astype("float64"), -1, 0)
    if name.startswith("rel_"):
        top, bottom, left, right, name = top / height, bottom / height, left / width, right / width, name[4:]
    middle, across = (top + bottom) / 2, (left + right) / 2
    found = {
        "xyxy": (left, top, right, bottom),
        "yxyx": (top, left, bottom, right),
        "xywh": (left, top, right - left, bottom - top),
        "center_xywh": (across, middle, right - left, bottom - top),
        "center_yxhw": (middle, across, bottom - top, right - left),
    }[name]
    return np.stack(found, axis=-1).astype("float32")


def read(boxes, name, height, width):
    """Corners of boxes in a format."""
    first, second, third, fourth = np.moveaxis(boxes.astype("float64"), -1, 0)
    if name.startswith("rel_"):
        first, second, third, fourth, name = first * width, second * height, third * width, fourth * height, name[4:]
        if name == "yxyx":
            first, second, third, fourth = (
                first / width * height,
                second / height * width,
                third / width * height,
                fourth / height * width,
            )
    return np.stack(
        {
            "xyxy": lambda: (second, first, fourth, third),
            "yxyx": lambda: (first, second, third, fourth),
            "xywh": lambda: (second, first, second + fourth, first + third),
            "center_xywh": lambda: (
                second - fourth / 2,
                first - third / 2,
                second + fourth / 2,
                first + third / 2,
            ),
            "center_yxhw": lambda: (
                first - third / 2,
                second - fourth / 2,
                first + third / 2,
                second + fourth / 2,
            ),
        }[name](),
        axis=-1,
    )


def paint(corners, height, width):
    """A box on the fine grid."""
    canvas = np.zeros((FINE * height, FINE * width), bool)
    top, left, bottom, right = (FINE * np.clip(corners, 0, [height, width, height, width])).astype(int)
    canvas[top:bottom, left:right] = True
    return canvas


def found_again(canvas, pixels, visibility=0.1):
    """The corners of what shows of a box of so many pixels; None if too little does."""
    if canvas.sum() == 0 or canvas.sum() < visibility * pixels - 1e-9:
        return None
    rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) / FINE


def shown(corners, labels, plan, height, width):
    """For each mixed picture, the corners and labels of the boxes that show, in order."""
    pictures = []
    for i in range(N):
        boxes = []
        for source, moved, window in sources(plan, i, height, width):
            for box, label in zip(corners[source], labels[source], strict=True):
                if label >= 0 and plan.lam[i] == 1 and source == i and window.all():
                    # Nothing is mixed: even a box outside of the image stays.
                    boxes.append((*np.clip(box, 0, [height, width, height, width]), label))
                elif label >= 0:
                    canvas = paint(box, height, width)
                    again = found_again(moved(canvas) & window, canvas.sum())
                    boxes += [] if again is None else [(*again, label)]
        pictures.append(boxes)
    return pictures


def sources(plan, i, height, width):
    """The images that show in picture `i`: index, how their pixels move, and where on the fine grid they show."""
    if plan.region is None:
        window = paint(plan.box[i], height, width)
        return [(i, np.array, ~window), (plan.permutation[i], np.array, window)]
    # The centre is where the window of the sample itself ends.
    parts, (cy, cx) = [], FINE * plan.region.window[i, 0, 2:]
    for quadrant, source in enumerate([i, *plan.partners[:, i]]):
        window = np.zeros((FINE * height, FINE * width), bool)
        rows, columns = (slice(0, cy), slice(cy, None))[quadrant // 2], (slice(0, cx), slice(cx, None))[quadrant % 2]
        window[rows, columns] = True
        parts.append((source, lambda canvas, cy=cy, cx=cx: np.roll(canvas, (cy, cx), (0, 1)), window))
    return parts


def assert_shown(mixed, expected, name, height, width, key="labels"):
    """The boxes of a mixed batch are those expected, real ones first, then padding of -1."""
    boxes, labels = mixed["boxes"], mixed[key]
    for i, picture in enumerate(expected):
        count = len(picture)
        assert (labels[i, :count] >= 0).all()
        np.testing.assert_array_equal(labels[i, count:], -1)
        np.testing.assert_array_equal(boxes[i, count:], -1)
        np.testing.assert_array_equal(labels[i, :count], [box[4] for box in picture])
        if picture:
            corners = read(boxes[i, :count], name, height, width)
            # A box that nothing touched may reach beyond the image.
            corners = np.clip(corners, 0, [height, width, height, width])
            np.testing.assert_allclose(corners, [box[:4] for box in picture], atol=1e-3)


def layer(kind, name="xyxy", others=None, **settings):
    """A mixer of boxes. `others` says what other keys of a dictionary batch are."""
    where = {} if kind == "MixUp" else {"data_format": "channels_last"}
    own = {key: settings.pop(key) for key in ("max_boxes", "min_visibility", "weights", "keep") if key in settings}
    target = BoundingBoxes(name, **own)
    target = target if others is None else {"bounding_boxes": target, **others}
    return getattr(kmix, kind)(seed=5, target=target, **where, **settings)


def applied(plan):
    """A plan without what it draws for a sample that is its own partner, which is not mixed."""
    if plan.partners is not None:
        return plan
    own = plan.permutation == np.arange(len(plan.permutation))
    box = None if plan.box is None else np.where(own[:, None], 0, plan.box)
    return plan._replace(lam=np.where(own, 1, plan.lam), box=box)


def batches(count, seed=0):
    generator = np.random.default_rng(seed)
    for step in range(count):
        height, width = generator.integers(9, 65, 2)
        yield step, FORMATS[step % 9], height, width, *scene(generator, height, width)


@pytest.mark.fast("CutMix")
@pytest.mark.alike
@pytest.mark.parametrize("kind", ["CutMix", "Mosaic"])
def test_a_thousand_scenes_show_what_their_pixels_show(kind):
    for step, name, height, width, corners, labels in batches(125):
        mixer = layer(kind, name, rate=0.9)
        plan = applied(mixer.plan(step, N, spatial_shape=(height, width)))
        batch = (
            np.zeros((N, height, width, 1), "uint8"),
            {
                "boxes": written(corners, name, height, width),
                "labels": labels.astype("float32"),
            },
        )
        mixed = mixer.at_step(step, batch)[1]
        expected = shown(corners, labels, plan, height, width)
        assert mixed["boxes"].shape == (N, (4 if kind == "Mosaic" else 2) * 12, 4)
        assert_shown(mixed, expected, name, height, width)


@pytest.mark.fast("*numpy")
@every_path
@pytest.mark.parametrize("kind", ["CutMix", "Mosaic"])
def test_every_path_shows_the_same_boxes(kind, path):
    for step, name, _, _, _, _ in batches(9):
        corners, labels = scene(np.random.default_rng(step), 20, 30)
        mixer = layer(kind, name)
        plan = applied(mixer.plan(step, N, spatial_shape=(20, 30)))
        batch = np.zeros((N, 20, 30, 1), "uint8"), {"boxes": written(corners, name, 20, 30), "classes": labels}
        mixed = at_step(path, mixer, step, (batch[0], {**batch[1], "classes": labels.astype("int32")}))[1]
        assert mixed["classes"].dtype == np.int32
        assert_shown(mixed, shown(corners, labels, plan, 20, 30), name, 20, 30, "classes")


@pytest.mark.slow
@pytest.mark.alike
def test_a_thousand_blends_have_the_boxes_of_both():
    for step, name, height, width, corners, labels in batches(125):
        assert_blended("numpy", step, name, height, width, corners, labels)


@pytest.mark.fast("numpy", "native")
@every_path
def test_a_blend_has_the_boxes_of_both(path):
    for step, name in enumerate(FORMATS[::3]):
        assert_blended(path, step, name, 20, 30, *scene(np.random.default_rng(3), 20, 30))


def assert_blended(path, step, name, height, width, corners, labels):
    boxes = written(corners, name, height, width)
    mixer = layer("MixUp", name, alpha=0.2, weights=True, rate=0.7)
    batch = np.zeros((N, height, width, 1), "float32"), {"boxes": boxes, "labels": labels.astype("float32")}
    mixed = at_step(path, mixer, step, batch)[1]
    plan = applied(mixer.plan(step, N))
    for i, (lam, j) in enumerate(zip(plan.lam, plan.permutation, strict=True)):
        own, partner = (labels[i] >= 0) & (lam > 0), (labels[j] >= 0) & (lam < 1)
        count = own.sum() + partner.sum()
        np.testing.assert_array_equal(mixed["boxes"][i, :count], np.concatenate([boxes[i][own], boxes[j][partner]]))
        np.testing.assert_array_equal(mixed["labels"][i, :count], np.concatenate([labels[i][own], labels[j][partner]]))
        np.testing.assert_array_equal(mixed["labels"][i, count:], -1)
        weights = np.concatenate([np.full(own.sum(), lam), np.full(partner.sum(), 1 - lam)])
        np.testing.assert_allclose(mixed["weights"][i, :count], weights, atol=1e-5)
        np.testing.assert_array_equal(mixed["weights"][i, count:], 0)


@pytest.mark.parametrize("number", [3, 60])
def test_max_boxes_takes_the_first_real_ones(number):
    corners, labels = scene(np.random.default_rng(4), 20, 30)
    boxes = {"boxes": written(corners, "xyxy", 20, 30), "labels": labels}
    x = np.zeros((N, 20, 30, 1), "float32")
    for kind in ("MixUp", "CutMix"):
        every = layer(kind).at_step(0, (x, boxes))[1]
        some = layer(kind, max_boxes=number).at_step(0, (x, boxes))[1]
        assert some["boxes"].shape == (N, number, 4)
        first = min(number, 24)
        np.testing.assert_array_equal(some["labels"][:, :first], every["labels"][:, :first])
        np.testing.assert_array_equal(some["boxes"][:, :first], every["boxes"][:, :first])
        np.testing.assert_array_equal(some["labels"][:, first:], -1)


@pytest.mark.alike
def test_min_visibility_decides_which_cut_boxes_stay():
    for visibility in (0.0, 0.5, 1.0):
        for step, name, height, width, corners, labels in batches(9, seed=7):
            mixer = layer("CutMix", name, min_visibility=visibility)
            plan = applied(mixer.plan(step, N, spatial_shape=(height, width)))
            boxes = {"boxes": written(corners, name, height, width), "labels": labels}
            mixed = mixer.at_step(step, (np.zeros((N, height, width, 1), "uint8"), boxes))[1]
            counts = np.zeros(N, int)
            for i in range(N):
                for source, _, window in sources(plan, i, height, width):
                    for box, label in zip(corners[source], labels[source], strict=True):
                        canvas = paint(box, height, width)
                        seen = (canvas & window).sum()
                        if plan.lam[i] == 1 and window.all():
                            counts[i] += bool(label >= 0)
                            continue
                        counts[i] += bool(label >= 0 and seen and seen >= visibility * canvas.sum() - 1e-6)
            np.testing.assert_array_equal((mixed["labels"] >= 0).sum(axis=1), counts)


def test_untouched_boxes_keep_their_bits():
    generator = np.random.default_rng(0)
    boxes = generator.uniform(0, 5, (N, 6, 4)).astype("float32")
    for name in FORMATS:
        mixer = layer("CutMix", name, rate=0.0)
        mixed = mixer(np.zeros((N, 9, 9, 1), "float32"), {"boxes": boxes, "labels": np.ones((N, 6), "int64")})[1]
        np.testing.assert_array_equal(mixed["boxes"][:, :6], boxes)
        assert mixed["labels"].dtype == np.int64


@pytest.mark.slow
@pytest.mark.alike
def test_an_unknown_number_of_boxes_in_tf_data():
    corners, labels = scene(np.random.default_rng(3), 20, 30)
    boxes = written(corners, "xyxy", 20, 30)
    batch = {"images": np.zeros((N, 20, 30, 1), "float32"), "bounding_boxes": {"boxes": boxes, "labels": labels}}
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), batch)
    spec["bounding_boxes"] = {
        "boxes": tf.TensorSpec((None, None, 4), "float32"),
        "labels": tf.TensorSpec((None, None), "int64"),
    }
    ds = tf.data.Dataset.from_generator(lambda: iter([batch]), output_signature=spec)
    for settings in ({}, {"max_boxes": 7}, {"max_boxes": 50}):
        mixed = next(iter(ds.map(layer("CutMix", others={}, **settings))))
        expected = layer("CutMix", others={}, **settings)(batch)
        for ours, other in zip(*map(tf.nest.flatten, (mixed, expected)), strict=True):
            np.testing.assert_allclose(ours.numpy(), other, atol=1e-4)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.xla("everywhere")
@pytest.mark.parametrize("kind", ["CutMix", "MixUp", "Mosaic"])
def test_padded_batches_of_several_widths_share_a_program(kind, monkeypatch):
    made, program = [], xla._Program
    monkeypatch.setattr(xla, "PROGRAMS", Programs())
    monkeypatch.setattr(xla, "_Program", lambda *arguments: made.append(program(*arguments)) or made[-1])
    mixer = layer(kind, weights=True)

    def batches():
        for step, width in enumerate([12, 0, 1, 16, 17, 40]):
            corners, labels = scene(np.random.default_rng(step), 20, 30, width)
            boxes = {"boxes": written(corners, "xyxy", 20, 30), "labels": labels.astype("float32")}
            yield np.full((N, 20, 30, 1), step, "uint8" if kind != "MixUp" else "float32"), boxes

    x, _ = next(batches())
    spec = (
        tf.TensorSpec(x.shape, x.dtype),
        {
            "boxes": tf.TensorSpec((N, None, 4), "float32"),
            "labels": tf.TensorSpec((N, None), "float32"),
        },
    )
    ds = tf.data.Dataset.from_generator(batches, output_signature=spec)
    for step, (mixed, batch) in enumerate(zip(ds.enumerate().map(mixer.at_step), batches(), strict=True)):
        expected = mixer.at_step(step, batch)
        for ours, other in zip(*map(tf.nest.flatten, (mixed, expected)), strict=True):
            np.testing.assert_allclose(ours.numpy(), other, atol=1e-4)
    assert len(made) == 1


@pytest.mark.slow
@every_path
def test_padding_may_hold_anything_and_there_may_be_no_boxes(path):
    x = np.zeros((N, 20, 30, 1), "float32")
    boxes = np.full((N, 2, 4), np.nan, "float32")
    boxes[:, 1] = 2, 3, 9, 8
    labels = np.array([[-1, 4]] * N, "int32")
    for kind in ("CutMix", "MixUp", "Mosaic"):
        mixed = at_step(path, layer(kind, max_boxes=11), 0, (x, {"boxes": boxes, "labels": labels}))[1]
        assert np.isfinite(mixed["boxes"]).all()
        assert {*mixed["labels"].ravel()} == {-1, 4}
        none = {"boxes": boxes[:, :0], "labels": labels[:, :0]}
        mixed = at_step(path, layer(kind, max_boxes=3), 0, (x, none))[1]
        np.testing.assert_array_equal(mixed["boxes"], np.full((N, 3, 4), -1))
        assert at_step(path, layer(kind), 0, (x, none))[1]["labels"].shape == (N, 0)


@pytest.mark.slow
@pytest.mark.alike
def test_everything_at_once_with_sizes_that_are_not_known():
    """Masks, boxes, labels and weights in tf.data, where no size is static: as on NumPy arrays."""
    generator = np.random.default_rng(0)
    batch = {
        **detection_batch(),
        "segmentation_masks": generator.integers(0, 4, (N, 20, 30)).astype("uint8"),
        "sample_weight": np.linspace(1, 2, N).astype("float32"),
    }
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec((None,) * a.ndim, a.dtype), batch)
    spec["images"] = tf.TensorSpec((None, None, None, 3), "float32")
    spec["bounding_boxes"]["boxes"] = tf.TensorSpec((None, None, 4), "float32")
    ds = tf.data.Dataset.from_generator(lambda: iter([batch] * 3), output_signature=spec)
    others = {"labels": Labels(3), "segmentation_masks": SegmentationMasks(4)}
    mixers = [layer(kind, others=others) for kind in ("CutMix", "Mosaic", "MixUp")]
    for mixer in (*mixers, kmix.RandomChoice(mixers, seed=4)):
        for step, mixed in enumerate(ds.enumerate().map(mixer.at_step)):
            expected = mixer.at_step(step, batch)
            for ours, other in zip(*map(tf.nest.flatten, (mixed, expected)), strict=True):
                np.testing.assert_allclose(ours.numpy().astype("float64"), other.astype("float64"), atol=1e-4)


def detection_batch():
    corners, labels = scene(np.random.default_rng(3), 20, 30)
    boxes = {"boxes": written(corners, "xyxy", 20, 30), "labels": labels.astype("float32")}
    images = np.random.default_rng(1).random((N, 20, 30, 3)).astype("float32")
    return {"images": images, "bounding_boxes": boxes, "labels": np.arange(N) % 3}


OTHERS = {"labels": Labels(3)}
BATCHES = {
    "CutMix": lambda: layer("CutMix", others=OTHERS),
    "MixUp": lambda: layer("MixUp", others=OTHERS, weights=True),
    "Mosaic": lambda: layer("Mosaic", others=OTHERS, max_boxes=20),
    "a choice": lambda: kmix.RandomChoice([layer(kind, others=OTHERS) for kind in ("CutMix", "MixUp")], seed=0),
}


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", BATCHES)
def test_a_dictionary_with_boxes_keeps_the_promises(name):
    for promise in PROMISES:
        # A sample of a second batch is no sample's own, see below.
        if promise.__name__ not in ("check_once", "check_second_batch"):
            promise(BATCHES[name](), detection_batch())


@pytest.mark.parametrize("path", ["numpy", "native"])
def test_boxes_of_a_second_batch(path):
    corners, labels = scene(np.random.default_rng(3), 20, 30)
    x = np.zeros((N, 20, 30, 1), "float32")
    given = [{"boxes": written(corners, "xyxy", 20, 30), "labels": labels.astype("int32")}]
    given.append({"boxes": given[0]["boxes"] + 1, "labels": np.where(labels < 0, labels, labels + 9).astype("int32")})
    mixer, to = layer("MixUp"), to_native if path == "native" else lambda batch: batch
    mixed = to_numpy(mixer.at_step(0, to((x, given[0])), partner=to((x, given[1]))))[1]
    for i, j in enumerate(mixer.plan(0, N).permutation):
        real = [boxes["labels"][k] >= 0 for boxes, k in zip(given, (i, j), strict=True)]
        for name in ("boxes", "labels"):
            expected = np.concatenate([given[0][name][i][real[0]], given[1][name][j][real[1]]])
            np.testing.assert_array_equal(mixed[name][i, : len(expected)], expected)
            np.testing.assert_array_equal(mixed[name][i, len(expected) :], -1)


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("after", ["RandomFlip", "RandomCrop", "Resizing", "MaxNumBoundingBoxes"])
def test_keras_layers_take_mixed_boxes_and_give_boxes_to_mix(after):
    keras_layer = {
        "RandomFlip": lambda: keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy", seed=1),
        "RandomCrop": lambda: keras.layers.RandomCrop(16, 16, bounding_box_format="xyxy", seed=1),
        "Resizing": lambda: keras.layers.Resizing(40, 60, bounding_box_format="xyxy"),
        "MaxNumBoundingBoxes": lambda: keras.layers.MaxNumBoundingBoxes(20, bounding_box_format="xyxy"),
    }[after]()
    batch = detection_batch()
    del batch["labels"]
    ds = tf.data.Dataset.from_tensors(batch)
    mixed = to_numpy(next(iter(ds.map(layer("CutMix", others={})))))
    augmented = to_numpy(next(iter(ds.map(layer("CutMix", others={})).map(lambda batch: keras_layer(batch)))))
    # Keras' crop keeps the labels of boxes that it crops away.
    if after != "RandomCrop":
        assert_valid(augmented["bounding_boxes"], augmented["images"].shape)
    if after in ("RandomFlip", "Resizing"):
        count = (mixed["bounding_boxes"]["labels"] >= 0).sum()
        assert (augmented["bounding_boxes"]["labels"] >= 0).sum() == count
    other = to_numpy(next(iter(ds.map(lambda batch: keras_layer(batch)).map(layer("CutMix", others={})))))
    assert (other["bounding_boxes"]["labels"] >= 0).any()
    if after != "RandomCrop":
        assert_valid(other["bounding_boxes"], other["images"].shape)


def assert_valid(boxes, shape):
    """Real boxes show something within the image; padding is padding."""
    real = boxes["labels"] >= 0
    assert real.any()
    left, top, right, bottom = np.moveaxis(np.clip(boxes["boxes"][real], 0, [shape[2], shape[1]] * 2), -1, 0)
    assert (right > left).all()
    assert (bottom > top).all()


def test_a_pipeline_of_keras():
    pytest.importorskip("tensorflow", reason="Keras' image layers need TensorFlow")
    batch, flip = detection_batch(), keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy", seed=1)
    # Keras' layers would cast them to float.
    del batch["labels"]
    layers = [flip, layer("CutMix", others={})]
    # Keras builds a pipeline by tracing it, unless its layers are built.
    for each in layers:
        each(to_native(batch))
    mixed = to_numpy(keras.layers.Pipeline(layers)(to_native(batch), training=True))
    assert mixed["bounding_boxes"]["boxes"].shape == (N, 24, 4)
    assert_valid(mixed["bounding_boxes"], mixed["images"].shape)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CutMix", "MixUp", "Mosaic"])
def test_a_trainer_passes_mixed_boxes_to_the_loss(kind):
    batch = detection_batch()
    x, y = batch["images"], batch["bounding_boxes"]
    inputs = keras.Input((20, 30, 3))
    features = keras.layers.Flatten()(inputs)
    outputs = {
        "boxes": keras.layers.Reshape((12, 4))(keras.layers.Dense(48)(features)),
        "labels": keras.layers.Dense(12)(features),
    }
    model = keras.Model(inputs, outputs)
    # As many boxes as the model predicts, and as the data has.
    mixer = layer(kind, max_boxes=12)
    trainer = kmix.MixTrainer(model, mixer)
    trainer.compile(keras.optimizers.SGD(0.0), {"boxes": "mae", "labels": "mae"})

    def expected(x, y):
        predictions = to_numpy(model(x, training=False))
        return sum(np.abs(predictions[key] - y[key]).mean() for key in predictions)

    assert np.isclose(trainer.evaluate(x, y, verbose=0, return_dict=True)["loss"], expected(x, y), rtol=1e-4)
    for step in range(2):
        loss = trainer.train_on_batch(x, y, return_dict=True)["loss"]
        assert np.isclose(loss, expected(*mixer.at_step(step, (x, y))), rtol=1e-4)


def images(*shape):
    return np.zeros(shape or (2, 8, 8, 3), "float32")


def boxes(*shape, labels=None, **more):
    shape = shape or (2, 3, 4)
    return {"boxes": np.zeros(shape, "float32"), "labels": np.zeros(shape[:2]) if labels is None else labels, **more}


REFUSED = {
    "no format": (lambda: kmix.MixUp()(images(), boxes()), r"BoundingBoxes\("),
    "no format in a dictionary": (
        lambda: kmix.MixUp()({"images": images(), "bounding_boxes": boxes()}),
        r'"bounding_boxes": kmix.targets.BoundingBoxes\("xyxy"\)',
    ),
    "a name without a format": (lambda: kmix.MixUp(target="bounding_boxes"), r'BoundingBoxes\("xyxy"\)'),
    "an unknown format": (lambda: BoundingBoxes("xxyy"), "format"),
    "corners of three": (lambda: layer("MixUp")(images(), boxes(2, 3, 3)), r"\(B, N, 4\)"),
    "without a batch axis": (lambda: layer("MixUp")(images(), boxes(2, 4, labels=np.zeros(2))), r"\(B, N, 4\)"),
    "too few labels": (lambda: layer("MixUp")(images(), boxes(labels=np.zeros((2, 2)))), "one label"),
    "too few flags": (lambda: layer("MixUp", keep=["flag"])(images(), boxes(flag=np.zeros((2, 2)))), "one row"),
    "no labels": (lambda: layer("MixUp")(images(), {"boxes": np.zeros((2, 3, 4))}), "boxes and their labels"),
    "unsigned labels": (lambda: layer("MixUp")(images(), boxes(labels=np.zeros((2, 3), "uint8"))), "int32"),
    **{
        f"{dtype} boxes": (
            lambda dtype=dtype: layer("CutMix")(images(), {**boxes(), "boxes": np.ones((2, 3, 4), dtype)}),
            "int32",
        )
        for dtype in ("uint8", "uint16", "bool")
    },
    "strings": (lambda: layer("MixUp", keep=["name"])(images(), boxes(name=np.full((2, 3), "cat"))), "are numbers"),
    "another key": (lambda: layer("MixUp")(images(), boxes(ids=np.zeros((2, 3)))), r"keep=\['ids'\]"),
    "a key that is not there": (lambda: layer("MixUp", keep=["ids"])(images(), boxes()), r"no \['ids'\]"),
    "sequences": (lambda: layer("CutMix")(images(2, 8, 3), boxes()), r"\(B, H, W, C\)"),
    "weights of boxes": (lambda: layer("MixUp")(images(), boxes(), np.ones((2, 3))), "Sample weights"),
    "no boxes at all": (lambda: layer("MixUp", max_boxes=0), "max_boxes"),
    "a share beyond 1": (lambda: layer("MixUp", min_visibility=2), "min_visibility"),
    "ragged": (
        lambda: layer("MixUp")(
            images(),
            {"boxes": tf.ragged.constant([[[0.0] * 4]], inner_shape=(4,)), "labels": tf.ragged.constant([[1]])},
        ),
        r"to_tensor\(-1\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_boxes_are_refused(name):
    function, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        function()


# A sample that is its own partner.


def own_partners(kind, n):
    """A layer, and a step whose plan would mix a sample with itself; the other samples of that step."""
    mixer = layer(kind)
    for step in range(100):
        plan = mixer.plan(step, n, spatial_shape=(20, 30))
        own = plan.permutation == np.arange(n)
        if own.any() and (plan.lam[own] < 0.9).all():
            return mixer, step, own
    raise AssertionError


@pytest.mark.in_turn
@pytest.mark.fast("*numpy", "1-CutMix-native")
@every_path
@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
@pytest.mark.parametrize("n", [1, N])
def test_a_sample_that_is_its_own_partner_keeps_its_boxes(n, kind, path):
    corners, labels = scene(np.random.default_rng(3), 20, 30)
    y = {"boxes": written(corners, "xyxy", 20, 30)[:n], "labels": labels[:n].astype("int32")}
    x = np.random.default_rng(1).random((n, 20, 30, 3)).astype("float32")
    mixer, step, own = own_partners(kind, n)
    mixed_x, mixed = at_step(path, mixer, step, (x, y))
    for i in np.flatnonzero(own):
        real = y["labels"][i] >= 0
        np.testing.assert_array_equal(mixed["boxes"][i, : real.sum()], y["boxes"][i][real])
        np.testing.assert_array_equal(mixed["labels"][i, : real.sum()], y["labels"][i][real])
        np.testing.assert_array_equal(mixed["labels"][i, real.sum() :], -1)
        np.testing.assert_array_equal(mixed_x[i], x[i])


@pytest.mark.parametrize("kind", ["MixUp", "CutMix", "a choice"])
def test_no_partner_in_a_batch_of_one_row(kind):
    """The last batch of an epoch, also where no sample may be its own partner."""
    pairing = kmix.pairing.RandomPairs(allow_self=False)
    make = lambda kind: layer(kind, weights=True, pairing=pairing)
    mixer = kmix.RandomChoice([make("MixUp"), make("CutMix")], seed=1) if kind == "a choice" else make(kind)
    y = {"boxes": np.array([[[2, 3, 9, 8], [1, 1, 4, 19]]], "float32"), "labels": np.array([[4, 7]], "int32")}
    for step in range(6):
        mixed = mixer.at_step(step, (np.zeros((1, 20, 30, 1), "float32"), y))[1]
        np.testing.assert_array_equal(mixed["boxes"], np.concatenate([y["boxes"], np.full((1, 2, 4), -1)], axis=1))
        np.testing.assert_array_equal(mixed["labels"], [[4, 7, -1, -1]])
        np.testing.assert_array_equal(mixed["weights"], [[1, 1, 0, 0]])


# Rows of zeros.


@pytest.mark.parametrize("name", ["xyxy", "center_xywh", "rel_xyxy"])
@pytest.mark.parametrize("kind", ["MixUp", "CutMix", "Mosaic"])
def test_rows_of_zeros_take_no_place(kind, name):
    """`padded_batch` pads with zeros, and 0 is a class."""
    corners, labels = scene(np.random.default_rng(4), 20, 30, most=5)
    given = written(corners, name, 20, 30)
    padded = {"boxes": np.where((labels < 0)[..., None], 0, given), "labels": np.maximum(labels, 0)}
    x = np.zeros((N, 20, 30, 1), "float32")
    for number in (None, 4):
        # Every sample is mixed.
        mixer = layer(kind, name, max_boxes=number, pairing=kmix.pairing.RandomPairs(allow_self=False))
        plan = mixer.plan(0, N, spatial_shape=(20, 30))
        mixed = mixer.at_step(0, (x, padded))[1]
        expected = mixer.at_step(0, (x, {"boxes": given, "labels": labels}))[1]
        for i in np.flatnonzero((plan.lam > 0) & (plan.lam < 1)):
            np.testing.assert_array_equal(mixed["labels"][i], expected["labels"][i])
            np.testing.assert_array_equal(mixed["boxes"][i], expected["boxes"][i])


# Entries that move with their box.


def tracks(labels):
    """Entries of each box: a track id, whether it is difficult, a colour, and its number as unsigned."""
    number = np.arange(labels.size).reshape(labels.shape)
    return {
        "track": number.astype("int32"),
        "difficult": number % 3 == 0,
        "colour": np.stack([number, number + 0.5], axis=-1).astype("float32"),
        "sign": (number % 251).astype("uint8"),
    }


def assert_moved(mixed, labels):
    """The entries of each mixed box are those of the box with its track id; padding is padding."""
    given = {name: entry.reshape(-1, *entry.shape[2:]) for name, entry in tracks(labels).items()}
    real = mixed["labels"] >= 0
    assert real.any()
    number = mixed["track"][real]
    np.testing.assert_array_equal(mixed["labels"][real], labels.reshape(-1)[number])
    for name, padding in {"track": -1, "difficult": False, "colour": -1, "sign": 0}.items():
        assert mixed[name].dtype == given[name].dtype
        np.testing.assert_array_equal(mixed[name][real], given[name][number])
        np.testing.assert_array_equal(mixed[name][~real], padding)


def tracked(kind, **settings):
    make = lambda kind: layer(kind, keep=("track", "difficult", "colour", "sign"), **settings)
    if kind == "RandomChoice":
        return kmix.RandomChoice([make(kind) for kind in ("MixUp", "CutMix", "Mosaic")], seed=3)
    return make(kind)


KINDS = ("MixUp", "CutMix", "Mosaic", "RandomChoice")


@pytest.mark.fast("*numpy", "RandomChoice-native")
@every_path
@pytest.mark.parametrize("kind", KINDS)
def test_entries_move_with_their_box(kind, path):
    corners, labels = scene(np.random.default_rng(6), 20, 30)
    y = {"boxes": written(corners, "xyxy", 20, 30), "labels": labels.astype("int32"), **tracks(labels)}
    x = np.zeros((N, 20, 30, 1), "float32")
    for step in range(2):
        mixed = at_step(path, tracked(kind), step, (x, y))[1]
        assert_moved(mixed, labels)


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("kind", KINDS)
def test_entries_of_an_unknown_number_of_boxes(kind):
    corners, labels = scene(np.random.default_rng(6), 20, 30)
    boxes = {"boxes": written(corners, "xyxy", 20, 30), "labels": labels.astype("int32"), **tracks(labels)}
    batch = {"images": np.zeros((N, 20, 30, 1), "float32"), "bounding_boxes": boxes}
    spec = {
        "images": tf.TensorSpec((N, 20, 30, 1), "float32"),
        "bounding_boxes": {name: tf.TensorSpec((N, None, *leaf.shape[2:]), leaf.dtype) for name, leaf in boxes.items()},
    }
    ds = tf.data.Dataset.from_generator(lambda: iter([batch] * 3), output_signature=spec)
    for settings in ({}, {"max_boxes": 15}):
        mixer = tracked(kind, others={}, **settings)
        for step, mixed in enumerate(ds.enumerate().map(mixer.at_step)):
            assert_moved(to_numpy(mixed)["bounding_boxes"], labels)
            expected = mixer.at_step(step, batch)
            for ours, other in zip(*map(tf.nest.flatten, (mixed, expected)), strict=True):
                assert ours.shape == other.shape
                np.testing.assert_allclose(ours.numpy().astype("float64"), other.astype("float64"), atol=1e-4)


def test_boxes_in_a_structure_of_labels():
    """A class and the boxes of each image; what belongs to the image alone; nested."""
    batch = detection_batch()
    y = {"class": batch["labels"], "objects": (batch["bounding_boxes"],), "id": np.arange(N)}
    mixer = kmix.CutMix(
        target={"class": Labels(3), "objects": [BoundingBoxes("xyxy")], "id": "keep"},
        data_format="channels_last",
        seed=5,
    )
    x, mixed = mixer.at_step(2, (batch["images"], y))
    alone = layer("CutMix").at_step(2, (batch["images"], batch["bounding_boxes"]))
    np.testing.assert_array_equal(x, alone[0])
    for name, entry in alone[1].items():
        np.testing.assert_array_equal(mixed["objects"][0][name], entry)
    lam = mixer.plan(2, N, spatial_shape=(20, 30)).lam
    permutation = mixer.plan(2, N, spatial_shape=(20, 30)).permutation
    hot = np.eye(3)[batch["labels"]]
    np.testing.assert_allclose(mixed["class"], lam[:, None] * hot + (1 - lam[:, None]) * hot[permutation], atol=1e-6)
    np.testing.assert_array_equal(mixed["id"], np.arange(N))
