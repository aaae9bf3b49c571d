"""In a data pipeline: parallel, prefetched, resumed, among other layers, on every backend."""

import gc

import keras
import numpy as np
import pytest
from helpers import tf, to_numpy

import kmix
from kmix._backend import xla
from kmix._backend.execution import Programs

pytestmark = pytest.mark.alike

CLASSES = 3


def data(batches=12, size=6, shape=(8, 8, 3), partial=0):
    rng = np.random.default_rng(0)
    count = batches * size - partial
    x = rng.normal(size=(count, *shape)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, rng.integers(0, CLASSES, count))).batch(size)


def layers(**kwargs):
    mixup = kmix.MixUp(0.5, num_classes=CLASSES, seed=1, **kwargs)
    cutmix = kmix.CutMix(num_classes=CLASSES, seed=2, data_format="channels_last", **kwargs)
    return {"mixup": mixup, "cutmix": cutmix, "choice": kmix.RandomChoice([mixup, cutmix], seed=3)}


def content(ds):
    return [to_numpy(batch) for batch in ds]


def as_bytes(batches):
    return [b"".join(leaf.tobytes() for leaf in keras.tree.flatten(batch)) for batch in batches]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixup", "cutmix", pytest.param("choice", marks=pytest.mark.xla)])
def test_parallel_runs_are_equal_byte_for_byte(kind):
    layer, ds = layers()[kind], data(partial=2)
    serial = content(ds.enumerate().map(layer.at_step))
    for _ in range(2):
        parallel = ds.enumerate().map(layer.at_step, num_parallel_calls=8, deterministic=True).prefetch(4)
        assert as_bytes(content(parallel)) == as_bytes(serial)
    for step, (batch, mixed) in enumerate(zip(content(ds), serial, strict=True)):
        for ours, theirs in zip(layer.at_step(step, batch), mixed, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    resumed = ds.skip(5).enumerate(start=5).map(layer.at_step)
    assert as_bytes(content(resumed)) == as_bytes(serial[5:])


def test_a_plain_map_never_repeats_a_plan():
    size, batches = 8, 4096
    layer = kmix.MixUp(1.0, seed=5)
    eye = np.eye(size, dtype="float32")
    ds = tf.data.Dataset.from_tensors((eye, eye)).repeat(batches)
    mixed = as_bytes(content(ds.map(lambda x, y: layer(x, y)[1], num_parallel_calls=8)))
    assert len(set(mixed)) == batches
    expected = {layer.at_step(step, (eye, eye))[1].round(3).tobytes() for step in range(20)}
    seen = {np.frombuffer(b, "float32").reshape(size, size).round(3).tobytes() for b in mixed}
    assert expected <= seen


@pytest.mark.slow
def test_the_layer_may_go_out_of_scope():
    ds = data().map(kmix.MixUp(0.5, num_classes=CLASSES))
    gc.collect()
    assert len(content(ds)) == 12


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.xla)])
def test_a_data_set_leaves_no_graph(jit_compile, monkeypatch):
    monkeypatch.setattr(xla, "PROGRAMS", Programs(limit=0))
    graph = type(tf.function(lambda: 0).get_concrete_function().graph)

    def graphs():
        gc.collect()
        return [each for each in gc.get_objects() if type(each) is graph]

    before = graphs()
    content(data(batches=1).map(layers(jit_compile=jit_compile)["mixup"]))
    assert [each.name for each in graphs() if not any(each is known for known in before)] == []


def test_alpha_reaches_a_prefetched_parallel_pipeline():
    layer = kmix.MixUp(0.5, num_classes=CLASSES)
    ds = data().repeat()
    clean, batches = iter(ds), iter(ds.map(layer, num_parallel_calls=2).prefetch(2))
    to_numpy(next(batches)), next(clean)
    layer.alpha = 0.0
    for _ in range(20):
        mixed, (x, _) = to_numpy(next(batches)), to_numpy(next(clean))
    np.testing.assert_array_equal(mixed[0], x)


@pytest.mark.fast("mixup-shape1")
@pytest.mark.parametrize("shape", [(None, None, None, 3), (None, None, None, None), (6, 8, 8, 3)])
@pytest.mark.parametrize("kind", ["mixup", "cutmix", "choice"])
def test_unknown_static_shapes(kind, shape):
    layer, ds = layers()[kind], data(2)
    vague = ds.map(lambda x, y: (tf.ensure_shape(tf.numpy_function(lambda v: v, [x], "float32"), shape), y))
    expected = content(ds.enumerate().map(layer.at_step))
    for ours, theirs in zip(content(vague.enumerate().map(layer.at_step)), expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_unknown_rank():
    ds = data(2)
    vague = ds.map(lambda x, y: (tf.numpy_function(lambda v: v, [x], "float32"), y))
    layer = layers()["mixup"]
    expected = content(ds.enumerate().map(layer.at_step))
    for ours, theirs in zip(content(vague.enumerate().map(layer.at_step)), expected, strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
    with pytest.raises(ValueError, match="rank of its inputs to be known"):
        vague.map(layers()["cutmix"])
    labels = ds.map(lambda x, y: (x, tf.numpy_function(lambda v: v, [y], "int64")))
    with pytest.raises(ValueError, match="rank of labels must be known"):
        labels.map(layer)


@pytest.mark.slow
def test_sizes_that_differ_only_at_run_time():
    def shorten(x, y):
        return x, tf.numpy_function(lambda v: v[:-1], [tf.one_hot(y, CLASSES)], "float32")

    for layer in (kmix.MixUp(), kmix.CutMix()):
        wrong = data(1).map(shorten).map(lambda x, y: (x, tf.ensure_shape(y, (None, CLASSES)))).map(layer)
        with pytest.raises(tf.errors.InvalidArgumentError, match="same batch size"):
            content(wrong)


def test_ids_out_of_range_are_seen_when_the_graph_runs():
    ds = data(1).map(lambda x, y: (x, y + 1)).map(layers()["mixup"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_classes=3"):
        content(ds)


def test_tuples_of_three_and_dictionaries():
    ds = data(2)
    layer = layers()["mixup"]
    x, y, w = content(ds.map(lambda x, y: (x, y, tf.ones(tf.shape(y)))).map(layer))[0]
    assert (x.shape, y.shape, w.shape) == ((6, 8, 8, 3), (6, CLASSES), (6,))
    mixed = content(ds.map(lambda x, y: {"images": x, "labels": y}).map(layer))[0]
    assert {name: array.shape for name, array in mixed.items()} == {"images": x.shape, "labels": y.shape}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unbuilt state")  # Keras builds a pipeline before it calls its layers.
@pytest.mark.parametrize("kind", ["mixup", "cutmix", "choice"])
def test_in_a_pipeline_of_keras_layers(kind):
    """Before and after Keras' own augmentation."""
    soft = data(2).map(lambda x, y: {"images": x, "labels": tf.one_hot(y, CLASSES)})
    flip, brightness = keras.layers.RandomFlip(seed=1), keras.layers.RandomBrightness(0.1, seed=1)
    mixed = content(soft.map(keras.layers.Pipeline([flip, layers()[kind], brightness]), num_parallel_calls=2))
    labels = np.concatenate([batch["labels"] for batch in mixed])
    assert labels.shape == (12, CLASSES)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    assert ((labels > 0).sum(axis=1) > 1).any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unbuilt state")  # Keras builds a pipeline before it calls its layers.
def test_class_ids_that_keras_layers_cast_to_float_are_refused():
    ids = data(2).map(lambda x, y: {"images": x, "labels": y})
    first = keras.layers.Pipeline([layers()["mixup"], keras.layers.RandomFlip()])
    assert content(ids.map(first))[0]["labels"].shape == (6, CLASSES)
    after = keras.layers.Pipeline([keras.layers.RandomFlip(), layers()["mixup"]])
    # On TensorFlow Keras warns of it first, since it builds the pipeline by calling it.
    with pytest.raises((ValueError, UserWarning), match="cast labels to float"):
        ids.map(after)


def test_batches_of_four_parts_are_refused():
    four = data(1).map(lambda x, y: (x, y, tf.ones(tf.shape(y)), y))
    for function in (layers()["mixup"], lambda *batch: layers()["cutmix"](*batch)):
        with pytest.raises(ValueError, match="4 parts"):
            four.map(function)
    with pytest.raises(ValueError, match="4 parts"):
        four.enumerate().map(layers()["choice"].at_step)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixup", "cutmix", "choice"])
def test_between_keras_cv_layers(kind):
    keras_cv = pytest.importorskip("keras_cv", reason="the extra `cv` is not installed (make test-all does)")
    soft = data(2).map(lambda x, y: {"images": tf.abs(x) * 255, "labels": tf.one_hot(y, CLASSES)})
    ds = soft.map(keras_cv.layers.RandomFlip()).map(layers()[kind]).map(keras_cv.layers.Grayscale(3))
    mixed = content(ds)[0]
    assert mixed["images"].shape == (6, 8, 8, 3)
    np.testing.assert_allclose(mixed["labels"].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "choice"])
def test_sequential_as_an_augmenter(kind):
    x, y = content(data(1))[0]
    augment = keras.Sequential([keras.layers.RandomFlip(), layers()[kind]])
    mixed = to_numpy(augment({"images": x, "labels": y}, training=True))
    assert mixed["labels"].shape == (6, CLASSES)
    assert ((mixed["labels"] > 0).sum(axis=1) > 1).any()


def test_the_layer_of_a_trainer():
    """Its alpha is a weight of the trainer, which the graph of a data set cannot read."""
    layer, ds = layers()["mixup"], data(2)
    trainer = kmix.MixTrainer(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]), mixer=layer)
    trainer.alpha = 0.0
    mixed = ds.enumerate().map(layer.at_step)
    for (x, _), (given, _) in zip(content(mixed), content(ds), strict=True):
        np.testing.assert_array_equal(x, given)
    trainer.alpha = 0.9
    step, (x, y) = 1, content(ds)[1]
    np.testing.assert_allclose(content(mixed)[step][0], layer.at_step(step, (x, y))[0], atol=1e-5)


def test_under_a_distribution_strategy():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        layer = kmix.MixUp(0.5, num_classes=CLASSES, seed=1)
        ds = data(2).map(layer)
    assert len(content(ds)) == 2


@pytest.mark.slow
@pytest.mark.xla
def test_fused_and_plain_ops_agree():
    """A batch of known spatial size runs through one XLA program, others through plain ops."""
    x, y = content(data(1))[0]
    for layer in layers().values():
        eager = layer.at_step(tf.constant(0), (tf.constant(x), tf.constant(y)))
        graph = tf.function(layer.at_step)(tf.constant(0), (tf.constant(x), tf.constant(y)))
        for a, b in zip(to_numpy(eager), to_numpy(graph), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.xla
def test_compiles_with_xla():
    x, y = content(data(1))[0]
    for layer in (layers()["mixup"], layers()["cutmix"]):
        compiled = tf.function(layer.at_step, jit_compile=True)
        mixed = to_numpy(compiled(tf.constant(0), (tf.constant(x), tf.constant(y))))
        np.testing.assert_allclose(mixed[1], layer.at_step(0, (x, y))[1], atol=1e-5)
