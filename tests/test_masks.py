"""Segmentation masks against plain NumPy: pasted as images are, or blended as one-hot labels; and their loss."""

import keras
import numpy as np
import pytest
from contract import PROMISES
from helpers import at_step, every_path, to_native, to_numpy
from oracle import cutmix, mixup, softmax

import kmix
from kmix.targets import Labels, SegmentationMasks

CLASSES, N = 4, 6
GENERATOR = np.random.default_rng(0)


def scene(n=N, height=9, width=12, dtype="uint8", channel=False, ignored=0.0):
    """Images, and masks of class ids, some of them 255."""
    generator = np.random.default_rng(height * width)
    images = generator.random((n, height, width, 3), dtype="float32")
    masks = generator.integers(CLASSES, size=(n, height, width, *(1,) * channel)).astype(dtype)
    return images, np.where(generator.random(masks.shape) < ignored, 255, masks).astype(dtype)


def mixer(kind="CutMix", num_classes=None, ignore_class=None, **settings):
    where = {} if kind == "MixUp" else {"data_format": "channels_last"}
    alpha = {} if kind == "Mosaic" else {"alpha": 1.0}
    target = SegmentationMasks(num_classes, ignore_class=ignore_class)
    return getattr(kmix, kind)(**{"seed": 2, "target": target, **where, **alpha, **settings})


def one_hot(masks):
    """Rows of zeros for 255."""
    return (masks[..., None] == np.arange(CLASSES)).astype("float64")


def test_a_thousand_masks_are_pasted_like_images_of_their_ids():
    generator, layer = np.random.default_rng(1), mixer()
    for step in range(125):
        size = tuple(generator.integers(9, 65, 2))
        masks = generator.integers(256, size=(8, *size)).astype("uint8")
        plan = layer.plan(step, 8, spatial_shape=size)
        images = np.repeat(masks[..., None], 3, axis=-1)
        mixed, pasted = layer.at_step(step, (images, masks))
        np.testing.assert_array_equal(pasted, mixed[..., 0])
        np.testing.assert_array_equal(pasted, cutmix(masks[..., None], plan.box, plan.permutation)[..., 0])


@pytest.mark.in_turn
@pytest.mark.fast("*-native")
@every_path
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_a_pasted_mask_keeps_dtype_and_shape(dtype, path):
    for channel in (False, True):
        images, masks = scene(dtype=dtype, channel=channel)
        plan = mixer().plan(3, N, spatial_shape=(9, 12))
        _, mixed = at_step(path, mixer(), 3, (images, masks))
        expected = cutmix(masks.reshape(N, 9, 12, 1), plan.box, plan.permutation)
        assert mixed.dtype == masks.dtype
        np.testing.assert_array_equal(mixed, expected.reshape(masks.shape))


@pytest.mark.fast("*numpy", "*native", "255-tfdata")
@every_path
@pytest.mark.parametrize("ignore", [None, 255, 0])
def test_a_blend_is_that_of_one_hot_labels(ignore, path):
    images, masks = scene(ignored=0.3 if ignore else 0.0)
    hot = one_hot(masks) * (masks != ignore)[..., None]
    layer = mixer("MixUp", num_classes=CLASSES, ignore_class=ignore)
    plan, weights = layer.plan(3, N), np.linspace(0.5, 2, N).astype("float32")
    _, mixed = at_step(path, layer, 3, (images, masks))
    np.testing.assert_allclose(mixed, mixup(hot, plan.lam, plan.permutation), atol=1e-6)
    _, mixed, w = at_step(path, layer, 3, (images, masks, weights))
    total = mixup(weights, plan.lam, plan.permutation)
    weighted = mixup(hot * weights[:, None, None, None], plan.lam, plan.permutation)
    np.testing.assert_allclose(mixed, weighted / total[:, None, None, None], atol=1e-6)
    np.testing.assert_allclose(w, total, rtol=1e-6)


def test_weights_of_pixels_are_pasted_or_blended():
    images, masks = scene()
    weights = GENERATOR.random((N, 9, 12)).astype("float32")
    plan = mixer().plan(0, N, spatial_shape=(9, 12))
    _, _, w = mixer().at_step(0, (images, masks, weights))
    np.testing.assert_array_equal(w, cutmix(weights[..., None], plan.box, plan.permutation)[..., 0])
    layer = mixer("MixUp", num_classes=CLASSES)
    plan = layer.plan(0, N)
    _, mixed, w = layer.at_step(0, (images, masks, weights))
    np.testing.assert_allclose(w, mixup(weights, plan.lam, plan.permutation), rtol=1e-5)
    weighted = mixup(one_hot(masks) * weights[..., None], plan.lam, plan.permutation)
    np.testing.assert_allclose(mixed * w[..., None], weighted, atol=1e-5)
    _, _, w = mixer("Mosaic").at_step(0, (weights[..., None], masks, weights))
    np.testing.assert_array_equal(w, mixer("Mosaic").at_step(0, (weights[..., None], masks))[0][..., 0])


def test_a_mosaic_moves_masks_with_the_images():
    masks = scene()[1]
    mixed, moved = mixer("Mosaic").at_step(1, (masks[..., None], masks))
    np.testing.assert_array_equal(moved, mixed[..., 0])
    assert (moved != masks).any()


BATCHES = {
    "a dictionary": (
        lambda: kmix.CutMix(1.0, num_classes=CLASSES, data_format="channels_last", seed=1),
        lambda images, masks: {"images": images, "segmentation_masks": masks, "labels": np.arange(N) % CLASSES},
    ),
    "a blended dictionary": (
        lambda: kmix.MixUp(
            1.0, target={"labels": Labels(CLASSES), "segmentation_masks": SegmentationMasks(CLASSES)}, seed=1
        ),
        lambda images, masks: {"images": images, "segmentation_masks": masks, "labels": np.arange(N) % CLASSES},
    ),
    "a structure": (
        lambda: kmix.CutMix(
            1.0,
            target={"class": Labels(CLASSES), "mask": "segmentation_masks"},
            data_format="channels_last",
            seed=1,
        ),
        lambda images, masks: (images, {"class": np.arange(N) % CLASSES, "mask": masks}),
    ),
    "weights of pixels": (mixer, lambda images, masks: (images, masks, images[..., 0])),
    "a choice": (
        lambda: kmix.RandomChoice(
            [
                mixer("CutMix", num_classes=CLASSES),
                mixer("MixUp", num_classes=CLASSES),
                mixer("Mosaic", num_classes=CLASSES),
            ],
            seed=1,
        ),
        lambda images, masks: (images, masks),
    ),
    "channels first": (
        lambda: kmix.CutMix(1.0, target="segmentation_masks", data_format="channels_first", seed=1),
        lambda images, masks: (images.transpose(0, 3, 1, 2), masks[:, None]),
    ),
    "sequences": (
        lambda: kmix.CutMix(1.0, target="segmentation_masks", data_format="channels_last", seed=1),
        lambda images, masks: (images[:, 0], masks[:, 0]),
    ),
}


@pytest.mark.in_turn
@pytest.mark.fast("sequences")
@pytest.mark.parametrize("name", BATCHES)
def test_masks_keep_the_promises(name):
    make, form = BATCHES[name]
    batch = form(*scene())
    for promise in PROMISES:
        # The other targets have no masks to count.
        if promise.__name__ not in ("check_once", *(["check_second_batch"] if name == "a choice" else [])):
            promise(make(), batch)


@pytest.mark.parametrize("weighted", [False, True])
def test_soft_masks_with_the_classes_first(weighted):
    """Also where nothing but their shape says so: a MixUp has no `data_format`."""
    images, masks = scene()
    soft = one_hot(masks).transpose(0, 3, 1, 2).astype("float32")
    images, weights = images.transpose(0, 3, 1, 2), GENERATOR.random((N, 9, 12)).astype("float32")
    batch = (images, soft, weights) if weighted else (images, soft)
    cut, blended = mixer(data_format="channels_first"), mixer("MixUp")
    plan = cut.plan(0, N, spatial_shape=(9, 12))
    expected = cutmix(soft, plan.box, plan.permutation, "channels_first")
    np.testing.assert_array_equal(cut.at_step(0, batch)[1], expected)
    plan, weights = blended.plan(0, N), weights[:, None] if weighted else 1.0
    total = mixup(weights, plan.lam, plan.permutation) if weighted else 1.0
    expected = mixup(soft * weights, plan.lam, plan.permutation) / total
    for given in (batch, to_native(batch)):
        mixed = to_numpy(blended.at_step(0, given))
        np.testing.assert_allclose(mixed[1], expected, atol=1e-5)
        if weighted:
            np.testing.assert_allclose(mixed[2], total[:, 0], rtol=1e-5)
    choice = kmix.RandomChoice([cut, blended], seed=0)
    steps = [choice.plan(step, N, spatial_shape=(9, 12)).choice for step in range(4)]
    assert {*steps} == {0, 1}
    for step, chosen in enumerate(steps):
        np.testing.assert_array_equal(choice.at_step(step, batch)[1], choice.layers[chosen].at_step(step, batch)[1])


SHAPES = {
    "images without channels": (lambda images: images[..., 0], lambda ids, soft: ids),
    "images without channels, soft": (lambda images: images[..., 0], lambda ids, soft: soft),
    "channels first": (lambda images: images.transpose(0, 3, 1, 2), lambda ids, soft: ids),
    "channels first, ids with a channel": (lambda images: images.transpose(0, 3, 1, 2), lambda ids, soft: ids[:, None]),
    "channels first, classes last": (lambda images: images.transpose(0, 3, 1, 2), lambda ids, soft: soft),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_blend_takes_images_of_any_layout(name):
    (images, masks), (of_images, of_masks) = scene(), SHAPES[name]
    layer, soft = mixer("MixUp", num_classes=CLASSES), one_hot(masks)
    plan = layer.plan(0, N)
    _, mixed = layer.at_step(0, (of_images(images), of_masks(masks, soft.astype("float32"))))
    np.testing.assert_allclose(mixed, mixup(soft, plan.lam, plan.permutation), atol=1e-6)


@pytest.mark.fast("native")
@every_path
def test_two_masks_with_different_classes(path):
    images, masks = scene()
    parts = GENERATOR.integers(7, size=masks.shape).astype("int16")
    parts[0, 0] = -1
    for form in (tuple, list):
        target = form([SegmentationMasks(CLASSES), SegmentationMasks(7, ignore_class=-1)])
        layer = mixer("MixUp", target=target)
        plan = layer.plan(1, N)
        _, mixed = at_step(path, layer, 1, (images, (masks, parts)))
        hot = (parts[..., None] == np.arange(7)).astype("float64")
        np.testing.assert_allclose(mixed[0], mixup(one_hot(masks), plan.lam, plan.permutation), atol=1e-5)
        np.testing.assert_allclose(mixed[1], mixup(hot, plan.lam, plan.permutation), atol=1e-5)
    layer = mixer(target=target)
    plan = layer.plan(1, N, spatial_shape=(9, 12))
    for ours, given in zip(at_step(path, layer, 1, (images, (masks, parts)))[1], (masks, parts), strict=True):
        np.testing.assert_array_equal(ours, cutmix(given[..., None], plan.box, plan.permutation)[..., 0])


def test_a_dictionary_with_masks_alone_is_a_batch():
    images, masks = scene()
    plan = mixer().plan(0, N, spatial_shape=(9, 12))
    mixed = mixer().at_step(0, {"images": images, "segmentation_masks": masks})
    expected = cutmix(masks[..., None], plan.box, plan.permutation)[..., 0]
    np.testing.assert_array_equal(mixed["segmentation_masks"], expected)


def images_of(shape=(N, 9, 12, 3)):
    return np.zeros(shape, "float32")


REFUSED = {
    "another size": (lambda: mixer()(images_of(), np.zeros((N, 9, 11), "uint8")), "spatial sizes of the inputs"),
    "no number of classes": (lambda: mixer("MixUp")(*scene()), r"SegmentationMasks\(num_classes\)"),
    "ids beyond it": (lambda: mixer("MixUp", num_classes=2)(*scene()), "ids outside it"),
    "an id to ignore": (
        lambda: mixer("MixUp", num_classes=CLASSES)(*scene(ignored=0.5)),
        "ignore_class=255",
    ),
    "float ids in a blend": (
        lambda: mixer("MixUp", num_classes=CLASSES)(images_of(), np.zeros((N, 9, 12), "float32")),
        "axis for the classes",
    ),
    "soft masks beyond 1": (lambda: mixer("MixUp")(images_of(), 3 * np.ones((N, 9, 12, 2), "float32")), r"in \[0, 1\]"),
    "classes given twice": (lambda: kmix.CutMix(num_classes=3, target=SegmentationMasks(3)), "one of them"),
    "no classes": (lambda: mixer("MixUp", num_classes=0), "num_classes"),
    "ids of colours": (lambda: mixer()(images_of(), np.zeros((N, 9, 12, 3), "uint8")), r"\(B, H, W, 1\)"),
    "not named": (
        lambda: kmix.CutMix(1.0, data_format="channels_last")(images_of(), np.zeros((N, 9, 12, 2), "float32")),
        "SegmentationMasks",
    ),
    "flattened": (lambda: mixer()(images_of(), np.zeros((N, 108), "uint8")), "spatial sizes of the inputs"),
    "of half the resolution": (
        lambda: mixer("MixUp")(images_of((N, 8, 12, 3)), np.zeros((N, 4, 6, 2), "float32")),
        "spatial sizes of the inputs",
    ),
    "classes first, channels last": (
        lambda: mixer()(images_of(), np.zeros((N, 4, 9, 12), "float32")),
        "channels_first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_mask_is_refused(name):
    function, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        function()


# The loss and the accuracy.


def loss_by_hand(y, logits, weights, smoothing=0.0, entropy=False, reduction="mean"):
    """The mean of the cross-entropies of the pixels, each counted by the sum of its label."""
    log_p, mass = np.log(softmax(logits)), y.sum(axis=-1)
    smooth = y * (1 - smoothing) + smoothing * mass[..., None] / y.shape[-1]
    rows = -(smooth * log_p).sum(axis=-1)
    if entropy:
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = rows + np.nan_to_num(smooth * np.log(smooth / mass[..., None])).sum(axis=-1)
    rows = rows * weights
    total = {"mean": mass.sum(), "sum": 1.0, "mean_with_sample_weight": (mass * weights).sum()}[reduction]
    return rows.sum() / total


@pytest.mark.parametrize("form", ["ids", "a channel", "soft"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_ignores_a_class(form, weighted):
    masks = scene(ignored=0.4)[1]
    logits = GENERATOR.normal(size=(N, 9, 12, CLASSES)).astype("float32")
    y = one_hot(masks)
    if form == "soft":
        y = mixup(y, np.linspace(0, 1, N), np.roll(np.arange(N), 1)).astype("float32")
    given = {"ids": masks, "a channel": masks[..., None], "soft": y}[form]
    weights = GENERATOR.random((N,)).astype("float32") if weighted else np.ones(N)
    passed = weights if weighted else None
    for settings in (
        {},
        {"label_smoothing": 0.1},
        {"subtract_entropy": True},
        {"reduction": "sum"},
        {"reduction": "mean_with_sample_weight"},
    ):
        loss = kmix.losses.SoftLabelCrossentropy(from_logits=True, ignore_class=255, **settings)
        expected = loss_by_hand(
            y,
            logits.astype("float64"),
            weights[:, None, None],
            settings.get("label_smoothing", 0.0),
            settings.get("subtract_entropy", False),
            settings.get("reduction", "mean"),
        )
        ours = float(to_numpy(loss(to_native(given), to_native(logits), passed)))
        assert ours == pytest.approx(expected, rel=1e-5)
    if not weighted:
        plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
        if form == "ids":
            ours = kmix.losses.SoftLabelCrossentropy(from_logits=True, ignore_class=255)(given, logits)
            np.testing.assert_allclose(to_numpy(ours), to_numpy(plain(given, logits)), rtol=1e-5)


def test_the_gradient_of_the_loss_ignores_a_class():
    masks, kernel = scene(ignored=0.4)[1], GENERATOR.normal(size=(3, CLASSES)).astype("float32")
    images = scene()[0]
    model = keras.Sequential([keras.Input((9, 12, 3)), keras.layers.Dense(CLASSES, use_bias=False)])
    model.layers[-1].set_weights([kernel])
    model.compile(keras.optimizers.SGD(1.0), kmix.losses.SoftLabelCrossentropy(from_logits=True, ignore_class=255))
    model.train_on_batch(images, masks)
    y = one_hot(masks)
    gradient = (softmax((images @ kernel).astype("float64")) * y.sum(-1, keepdims=True) - y) / y.sum()
    expected = kernel - np.einsum("bhwi,bhwc->ic", images, gradient)
    np.testing.assert_allclose(model.layers[-1].get_weights()[0], expected, atol=1e-5)


def test_the_accuracy_ignores_a_class():
    masks = scene(ignored=0.4)[1]
    logits = GENERATOR.normal(size=(N, 9, 12, CLASSES)).astype("float32")
    known, right = masks != 255, logits.argmax(axis=-1) == masks
    weights = GENERATOR.random(N).astype("float32")
    for given in (masks, one_hot(masks).astype("float32")):
        metric = kmix.metrics.SoftLabelAccuracy(ignore_class=255)
        assert float(metric(given, logits)) == pytest.approx(right[known].mean(), rel=1e-5)
        metric.reset_state()
        share = (right * weights[:, None, None])[known].sum() / (known * weights[:, None, None]).sum()
        assert float(metric(given, logits, weights)) == pytest.approx(share, rel=1e-5)


def test_nothing_to_learn_from_is_a_loss_of_zero_and_other_ids_are_nan():
    logits = np.zeros((1, 2, 2, CLASSES), "float32")
    loss = kmix.losses.SoftLabelCrossentropy(from_logits=True, ignore_class=255)
    assert float(loss(np.full((1, 2, 2), 255), logits)) == 0
    assert np.isnan(float(loss(np.full((1, 2, 2), 254), logits)))
    assert loss.get_config()["ignore_class"] == 255
    with pytest.raises(ValueError, match="ignore_class"):
        kmix.losses.SoftLabelCrossentropy(multi_label=True, ignore_class=255)


def test_weights_of_images_count_for_their_pixels():
    """Keras would align `(B,)` with the last axis of the losses."""
    masks = scene(n=12, height=9, width=12)[1]
    logits = GENERATOR.normal(size=(12, 9, 12, CLASSES)).astype("float32")
    weights = GENERATOR.random(12).astype("float32")
    rows = -np.take_along_axis(np.log(softmax(logits.astype("float64"))), masks[..., None].astype(int), -1)[..., 0]
    ours = float(kmix.losses.SoftLabelCrossentropy(from_logits=True)(masks, logits, weights))
    assert ours == pytest.approx((rows * weights[:, None, None]).mean(), rel=1e-5)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CutMix", "MixUp", "RandomChoice", "Mosaic"])
def test_a_trainer_learns_masks(kind):
    settings = {"num_classes": CLASSES, "ignore_class": 255}
    mix = (
        kmix.RandomChoice([mixer("CutMix", **settings), mixer("MixUp", **settings)], seed=1)
        if kind == "RandomChoice"
        else mixer(kind, **settings)
    )
    keras.utils.set_random_seed(0)
    masks = scene(n=32, ignored=0.1)[1]
    images = np.where(masks == 255, 0, masks)[..., None].astype("float32") / CLASSES
    model = keras.Sequential(
        [
            keras.Input((9, 12, 1)),
            keras.layers.Conv2D(16, 1, activation="relu"),
            keras.layers.Conv2D(CLASSES, 1),
        ]
    )
    trainer = kmix.MixTrainer(model, mix)
    loss = kmix.losses.SoftLabelCrossentropy(from_logits=True, ignore_class=255)
    trainer.compile(
        keras.optimizers.Adam(0.02), loss, metrics=[kmix.metrics.SoftLabelAccuracy(ignore_class=255, name="accuracy")]
    )
    before = trainer.evaluate(images, masks, verbose=0, return_dict=True)
    trainer.fit(images, masks, batch_size=8, epochs=15, verbose=0)
    after = trainer.evaluate(images, masks, verbose=0, return_dict=True)
    assert after["loss"] < 0.8 * before["loss"]
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    expected = float(to_numpy(plain(masks, model.predict(images, verbose=0))))
    assert after["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras' own sparse loss of images fails on PyTorch")
def test_a_sparse_loss_takes_masks_that_are_pasted():
    images, masks = scene()
    model = keras.Sequential([keras.Input((9, 12, 3)), keras.layers.Dense(CLASSES, activation="softmax")])
    trainer = kmix.MixTrainer(model, mixer())
    trainer.compile("sgd", "sparse_categorical_crossentropy")
    loss = trainer.train_on_batch(images, masks)
    assert np.isfinite(loss)


def over_union():
    return keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False, name="iou")


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "sparse_categorical_crossentropy"},
        {"loss": kmix.losses.SoftLabelCrossentropy(), "metrics": [over_union()]},
        {"loss": kmix.losses.SoftLabelCrossentropy(), "weighted_metrics": ["sparse_categorical_accuracy"]},
    ],
)
@pytest.mark.parametrize("mix_losses", [False, True])
def test_what_reads_class_ids_takes_no_blended_masks(settings, mix_losses):
    model = keras.Sequential([keras.Input((9, 12, 3)), keras.layers.Dense(CLASSES, activation="softmax")])
    trainer = kmix.MixTrainer(model, mixer("MixUp", num_classes=CLASSES), mix_losses=mix_losses)
    with pytest.raises(ValueError, match="Blended masks"):
        trainer.compile("sgd", **settings)


@pytest.mark.slow
# Keras' own MeanIoU asks JAX for int64.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_over_union_of_keras_takes_masks_that_are_pasted():
    images, masks = scene()
    model = keras.Sequential([keras.Input((9, 12, 3)), keras.layers.Dense(CLASSES, activation="softmax")])
    trainer, metric = kmix.MixTrainer(model, mixer()), over_union()
    trainer.compile(keras.optimizers.SGD(0.0), kmix.losses.SoftLabelCrossentropy(), metrics=[over_union()])
    logs = trainer.train_on_batch(images, masks, return_dict=True)
    plan = trainer.plan(0, N, spatial_shape=(9, 12))
    pasted = cutmix(masks[..., None], plan.box, plan.permutation)[..., 0]
    metric.update_state(pasted, model.predict(cutmix(images, plan.box, plan.permutation), verbose=0))
    assert logs["iou"] == pytest.approx(float(metric.result()), abs=1e-6)
