"""kmix with the layers, models and tuners of Keras, KerasCV, KerasHub and KerasTuner."""

import keras
import numpy as np
import pytest
from helpers import tf, to_native, to_numpy

import kmix

CLASSES, BATCH, SIZE = 3, 6, 16
X = np.random.default_rng(0).uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype("float32")
Y = np.arange(BATCH) % CLASSES
SOFT = kmix.losses.SoftLabelCrossentropy
EXTRA = "the group `neighbours` is not installed (make test-all does)"
pytestmark = pytest.mark.in_turn


def cutmix(**settings):
    return kmix.CutMix(1.0, seed=2, **{"num_classes": CLASSES, **settings})


def dictionary(x, y):
    return {"images": x, "labels": y}


def assert_mixed(ds, layer=None):
    """Assert that `ds`, which yields a batch and the same batch mixed, was mixed as NumPy arrays are."""
    (given, mixed), *_ = to_numpy(list(ds))
    expected = (layer or cutmix()).at_step(0, given)
    for ours, other in zip(keras.tree.flatten(mixed), keras.tree.flatten(expected), strict=True):
        assert ours.dtype == other.dtype
        np.testing.assert_allclose(ours, other, atol=1e-4)
    return given


def with_mixed(ds, layer=None):
    """Each batch, and the same mixed, in tf.data."""
    layer = layer or cutmix()
    return ds.map(lambda *batch: (_whole(batch), layer.at_step(0, _whole(batch))))


def _whole(batch):
    return batch if len(batch) > 1 else batch[0]


def batches():
    return tf.data.Dataset.from_tensors((X, Y))


# Keras' own preprocessing layers, before and after.

AUGMENT = {
    "RandAugment": lambda: keras.layers.RandAugment((0, 255), num_ops=1),
    "AugMix": lambda: keras.layers.AugMix((0, 255), num_chains=1, chain_depth=1),
    "RandomErasing": lambda: keras.layers.RandomErasing(1.0),
    "RandomFlip": lambda: keras.layers.RandomFlip(),
    "RandomCrop": lambda: keras.layers.RandomCrop(12, 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENT)
def test_keras_augments_the_inputs_alone(name):
    """The labels never see Keras, and keep their dtype."""
    augment = AUGMENT[name]()
    given = assert_mixed(with_mixed(batches().map(lambda x, y: (augment(x), y))))
    assert given[1].dtype == Y.dtype
    assert given[0].shape[1:] == ((12, 12, 3) if name == "RandomCrop" else X.shape[1:])


CASTS = {
    "one-hot encoded first": (
        lambda x, y: dictionary(x, tf.one_hot(y, CLASSES)),
        lambda batch: batch,
        {"num_classes": None},
    ),
    "cast back": (dictionary, lambda batch: {**batch, "labels": tf.cast(batch["labels"], "int32")}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASTS)
def test_keras_layers_on_dictionaries(name):
    """In tf.data they cast class ids to float, which kmix refuses."""
    before, after, settings = CASTS[name]
    augment = keras.layers.Pipeline([AUGMENT["RandomFlip"](), AUGMENT["RandomErasing"]()])
    with pytest.raises(ValueError, match=r"cast labels to float.*lambda x, y: \(augment\(x\), y\)"):
        batches().map(dictionary).map(augment).map(cutmix())
    assert_mixed(with_mixed(batches().map(before).map(augment).map(after), cutmix(**settings)), cutmix(**settings))


def test_keras_layers_after_kmix():
    layer = cutmix()
    mixed = batches().map(lambda x, y: layer.at_step(0, dictionary(x, y)))
    augment = keras.layers.RandomFlip("horizontal", seed=1)
    ((before, after),) = to_numpy(list(mixed.map(lambda batch: (batch, augment(batch)))))
    np.testing.assert_array_equal(before["labels"], after["labels"])
    for image, flipped in zip(before["images"], after["images"], strict=True):
        assert any(np.allclose(flipped, other, atol=1e-4) for other in (image, image[:, ::-1]))


# KerasCV.


@pytest.mark.slow
def test_keras_cv_before_and_after():
    keras_cv = pytest.importorskip("keras_cv", reason="the extra `cv` is not installed (make test-all does)")
    layers = keras_cv.layers
    before = [layers.RandAugment((0, 255), augmentations_per_image=1), layers.RandomFlip()]
    soft = batches().map(lambda x, y: dictionary(x, tf.one_hot(y, CLASSES)))
    for layer in before:
        soft = soft.map(layer)
    mixer = cutmix(num_classes=None)
    assert_mixed(with_mixed(soft, mixer), mixer)
    cutout = layers.RandomCutout(0.5, 0.5)
    out = to_numpy(next(iter(soft.map(mixer).map(cutout))))
    assert out["images"].shape == X.shape
    np.testing.assert_allclose(out["labels"].sum(axis=1), 1, atol=1e-5)
    # KerasCV, too, casts class ids.
    with pytest.raises(ValueError, match="cast labels to float"):
        batches().map(dictionary).map(layers.RandomFlip()).map(cutmix())


# Models.


def first_loss(model, loss, x, y):
    """The loss of a batch, in training and before any step."""
    return to_numpy(loss(to_native(y), model(to_native(x), training=True)))


def fit_one_batch(trainer, x, y, steps=2):
    history = trainer.fit(x, y, batch_size=len(y), shuffle=False, epochs=steps, verbose=0)
    assert int(keras.ops.convert_to_numpy(trainer.step)) == steps
    assert np.isfinite(history.history["loss"]).all()
    return history.history["loss"]


def assert_fits(model, layer, x, y, **compiled):
    """Assert that the model itself trains on a pipeline that mixes."""
    model.compile("adam", **compiled)
    train = tf.data.Dataset.from_tensors((x, y)).map(layer)
    assert np.isfinite(model.fit(train, verbose=0).history["loss"][0])


def assert_trains(model, loss, x=X, y=Y):
    """Assert that the trainer's first loss is that of the batch mixed by hand, and that a pipeline trains, too."""
    mix = cutmix()
    expected = first_loss(model, loss, *mix.at_step(0, (x, y)))
    trainer = kmix.MixTrainer(model, mix)
    trainer.compile("adam", loss, metrics=["accuracy"])
    assert fit_one_batch(trainer, x, y)[0] == pytest.approx(expected, rel=2e-3)
    # KerasHub would add a metric for class ids, unless metrics are given.
    assert_fits(model, mix, x, y, loss=loss, metrics=[kmix.metrics.SoftLabelAccuracy()])


@pytest.mark.slow
def test_keras_applications():
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=CLASSES)
    x = np.random.default_rng(1).normal(size=(BATCH, 32, 32, 3)).astype("float32")
    trainer = kmix.MixTrainer(model, kmix.MixUp(0.4), places=["input", "conv_pw_3_relu"])
    trainer.compile("adam", SOFT(), metrics=["accuracy"])
    fit_one_batch(trainer, x, Y, steps=3)


@pytest.fixture
def hub():
    return pytest.importorskip("keras_hub", reason=EXTRA).models


def encoder(hub, stages=2, size=SIZE):
    return hub.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64] * stages,
        stackwise_num_blocks=[1] * stages,
        stackwise_num_strides=[1] + [2] * (stages - 1),
        block_type="basic_block",
        image_shape=(size, size, 3),
    )


@pytest.mark.slow
def test_keras_hub_image_classifier(hub):
    model = hub.ImageClassifier(backbone=encoder(hub), num_classes=CLASSES, preprocessor=None)
    assert_trains(model, SOFT(from_logits=True), X / 255)


def blend(plan, part):
    lam = plan.lam.reshape((-1,) + (1,) * (part.ndim - 1))
    return lam * part + (1 - lam) * part[plan.permutation]


def logits_of_mixed(model, place, plan, x):
    """The logits of a text classifier whose layer `place` gives mixed outputs, by hand."""
    backbone = model.backbone
    if place == "classifier_dropout":
        # The layer after it is linear, so mixing its inputs mixes the logits.
        return blend(plan, to_numpy(model(to_native(x))))
    layer = backbone.get_layer(place.split("/")[1])
    embedded = blend(plan, to_numpy(keras.Model(backbone.inputs, layer.output)(to_native(x))))
    united = x["padding_mask"] | x["padding_mask"][plan.permutation]
    encoded = backbone.get_layer("transformer_layer_0")(to_native(embedded), padding_mask=to_native(united))
    return model.get_layer("logits")(backbone.get_layer("pooled_dense")(encoded[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["classifier_dropout", "{}/embeddings_layer_norm"])
def test_keras_hub_text_classifier(hub, place):
    """The padding mask that the encoder sees is the union of the partners'."""
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    backbone = hub.BertBackbone(vocabulary_size=50, dropout=0.0, **sizes)
    model = hub.BertTextClassifier(backbone=backbone, num_classes=CLASSES, preprocessor=None, dropout=0.0)
    ids = np.random.default_rng(0).integers(1, 50, (BATCH, 12)).astype("int32")
    mask = (np.arange(12) < np.arange(3, 3 + BATCH)[:, None]).astype("int32")
    x = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}
    place, loss = place.format(backbone.name), SOFT(from_logits=True)
    trainer = kmix.MixTrainer(model, kmix.EmbeddingMixup(1.0, seed=1), places=[place])
    trainer.compile("adam", loss, metrics=["accuracy"])
    plan = trainer.plan(0, BATCH)
    expected = loss(to_native(blend(plan, np.eye(CLASSES, dtype="float32")[Y])), logits_of_mixed(model, place, plan, x))
    assert fit_one_batch(trainer, x, Y)[0] == pytest.approx(to_numpy(expected), rel=1e-5)


@pytest.mark.slow
def test_keras_hub_image_segmenter(hub):
    """Masks, blended as one-hot labels in the training step, and pasted in the pipeline."""
    backbone = hub.DeepLabV3Backbone(
        image_encoder=encoder(hub),
        spatial_pyramid_pooling_key="P3",
        upsampling_size=2,
        dilation_rates=[1],
        low_level_feature_key="P2",
        projection_filters=4,
    )
    model = hub.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=CLASSES, preprocessor=None)
    mask = np.random.default_rng(1).integers(0, CLASSES, X.shape[:3])
    masks, loss = kmix.targets.SegmentationMasks(CLASSES), SOFT(from_logits=True)
    layer = kmix.MixUp(0.4, seed=1, target=masks)
    expected = first_loss(model, loss, *layer.at_step(0, (X / 255, mask)))
    trainer = kmix.MixTrainer(model, layer)
    trainer.compile("adam", loss)
    assert fit_one_batch(trainer, X / 255, mask)[0] == pytest.approx(expected, rel=2e-3)
    cutmix = kmix.CutMix(1.0, data_format="channels_last", target=masks)
    assert_fits(model, cutmix, X / 255, mask, loss=loss, metrics=[kmix.metrics.SoftLabelAccuracy()])


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="long on JAX, and mixed in tf.data")
def test_keras_hub_object_detector(hub):
    """Boxes, mixed in the pipeline: the model has a training step of its own."""
    backbone = hub.RetinaNetBackbone(image_encoder=encoder(hub, 3, 32), min_level=3, max_level=4, use_p5=False)
    model = hub.RetinaNetObjectDetector(
        backbone=backbone,
        num_classes=CLASSES,
        bounding_box_format="xyxy",
        pre_logits_num_conv_layers=1,
        preprocessor=None,
    )
    images = np.random.default_rng(1).random((2, 32, 32, 3)).astype("float32")
    boxes = np.array([[[2, 2, 20, 20], [5, 5, 30, 30]]] * 2, "float32")
    y = {"boxes": boxes, "labels": np.array([[0, 2]] * 2)}
    settings = {"target": kmix.targets.BoundingBoxes("xyxy"), "seed": 1}
    for layer in (kmix.MixUp(0.4, **settings), kmix.CutMix(1.0, data_format="channels_last", **settings)):
        assert_fits(
            model,
            layer,
            images,
            y,
            box_loss=keras.losses.Huber(reduction="sum"),
            classification_loss=keras.losses.BinaryFocalCrossentropy(from_logits=True, reduction="sum"),
        )
    with pytest.raises(TypeError, match=r"overrides.*Mix in the pipeline"):
        kmix.MixTrainer(model, layer)


# KerasTuner.


@pytest.mark.slow
def test_keras_tuner_searches_alpha(tmp_path):
    tuners = pytest.importorskip("keras_tuner", reason=EXTRA)

    class Mixed(tuners.HyperModel):
        def build(self, hp):
            layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES, activation="softmax")]
            model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers])
            trainer = kmix.MixTrainer(model, kmix.MixUp(hp.Float("alpha", 0.1, 1.0)))
            trainer.compile("adam", SOFT(), metrics=["accuracy"])
            return trainer

    tuner = tuners.RandomSearch(Mixed(), "val_accuracy", max_trials=2, directory=tmp_path, seed=1)
    tuner.search(X / 255, Y, validation_data=(X / 255, Y), epochs=1, verbose=0)
    alphas = [trial.hyperparameters["alpha"] for trial in tuner.oracle.trials.values()]
    assert len(set(alphas)) == 2
    best = tuner.get_best_models()[0]
    assert best.alpha == pytest.approx(tuner.get_best_hyperparameters()[0]["alpha"])
    assert np.isfinite(best.evaluate(X / 255, Y, verbose=0)[0])
