"""What is a batch and what is not: dictionaries by name, inputs alone, waves of unequal length."""

import gc
import weakref
from collections import OrderedDict

import keras
import numpy as np
import pytest
from helpers import (
    assert_near,
    choice,
    cutmix,
    data,
    embedding,
    every_layer,
    ids,
    mixup,
    on,
    one_hot,
    raises,
    refused_by_all,
    tf,
    to_native,
    to_numpy,
)

SOFT = data(), one_hot(ids())


DICTIONARIES = {
    "the names of TFDS": {"image": data(), "label": one_hot(ids())},
    "images": {"images": data()},
    "one name right": {"images": data(), "label": one_hot(ids())},
    "labels": {"x": data(), "labels": one_hot(ids())},
    "weights": {"images": data(), "sample_weight": data(shape=())},
    "another order": OrderedDict(y=one_hot(ids()), x=data()),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_a_dictionary_without_images_or_labels_is_refused(name):
    found = [rf"\b{key}\b" for key in DICTIONARIES[name]]
    refused_by_all({}, DICTIONARIES[name], "inputs_key=", *found, r"\bimages\b", r"\blabels\b", good=SOFT)


@every_layer
def test_a_dictionary_without_labels_is_refused_in_training_too(make):
    for training in (None, True):
        raises(
            lambda training=training: make()({"image": data()}, training=training),
            r"\bimage\b",
            r"\bimages\b",
            r"\blabels\b",
        )


@every_layer
@pytest.mark.parametrize("batch", [data(), (data(),), {"images": data()}], ids=["tensor", "tuple", "dictionary"])
def test_inputs_alone_in_a_map_are_refused(make, batch):
    ds = tf.data.Dataset.from_tensors(batch)
    raises(lambda: next(iter(ds.map(make()))), "labels")
    raises(lambda: next(iter(ds.map(lambda *arguments: make()(*arguments)))), "labels")
    raises(lambda: next(iter(ds.enumerate().map(make().at_step))), "labels")


@every_layer
def test_inputs_alone_are_refused_but_for_a_tensor_of_the_backend(make):
    """A model may call a layer on such a tensor in inference."""
    x, y, layer = data(), one_hot(ids()), make()
    for batch in (x, tf.constant(x), to_native(x)):
        if keras.ops.is_tensor(batch):
            np.testing.assert_array_equal(to_numpy(layer(batch)), x)
        else:
            raises(lambda batch=batch: layer(batch), "together with their labels", errors=ValueError)
        np.testing.assert_array_equal(to_numpy(layer(batch, training=False)), x)
    for batch in ((x, y), [x, y], {"a": x}, to_native((x, y))):
        raises(lambda batch=batch: layer(batch), r"labels", errors=ValueError)
    np.testing.assert_array_equal(layer(x, y)[0], layer.at_step(0, (x, y))[0])


@on("tensorflow", why="other backends cannot run a model in tf.data")
@every_layer
def test_a_model_with_a_layer_may_be_mapped_over_inputs(make):
    x, inputs = data(), keras.Input((8, 8, 3))
    model = keras.Model(inputs, make()(inputs))
    ds = tf.data.Dataset.from_tensors(x)
    for function in (model, lambda x: model(x, training=False), tf.function(model)):
        np.testing.assert_array_equal(next(iter(ds.map(function))), x)
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)


@pytest.mark.parametrize("make", [mixup, embedding], ids=["MixUp", "EmbeddingMixup"])
@pytest.mark.parametrize("shapes", [[(100,), (80,)], [(100, 2), (80, 2)], [(5,), (7,), (9,)]], ids=str)
def test_a_list_of_waves_is_no_batch(make, shapes):
    waves = [np.ones(shape, "float32") for shape in shapes]
    y, layer = one_hot(ids(len(waves), 2), 2), make()
    for x, labels in ((waves, y), (tuple(waves), y), (to_native(waves), to_native(y))):
        for way in (
            lambda x=x, labels=labels: layer(x, labels),
            lambda x=x, labels=labels: layer.at_step(0, (x, labels)),
        ):
            raises(way, "pad", errors=ValueError)


@pytest.mark.parametrize("make", [mixup, embedding, cutmix], ids=["MixUp", "EmbeddingMixup", "CutMix"])
def test_an_array_of_waves_is_no_batch(make):
    waves = np.empty(2, object)
    waves[:] = [np.ones((100, 1), "float32"), np.ones((80, 1), "float32")]
    raises(lambda: make().at_step(0, (waves, one_hot(ids(2, 2), 2))), "pad", errors=(ValueError, TypeError))


def test_a_data_set_that_was_not_batched_is_told_so():
    ds = tf.data.Dataset.from_tensor_slices((data(), one_hot(ids())))
    raises(lambda: ds.map(mixup()), "batched")
    raises(lambda: mixup().at_step(0, next(iter(ds))), "batched")


@pytest.mark.fast("MixUp")
@pytest.mark.parametrize("make", [mixup, cutmix, choice], ids=["MixUp", "CutMix", "RandomChoice"])
def test_a_refused_batch_of_a_running_graph_is_not_counted(make):
    layer, x = make(num_classes=3), data()
    y = np.stack([ids(), ids() + 1, ids()])
    batches = iter(tf.data.Dataset.from_tensor_slices((np.stack([x] * 3), y)).map(layer))
    next(batches)
    raises(lambda: next(batches), "num_classes=3")
    assert_near(next(batches), to_numpy(layer.at_step(1, (x, ids()))))


@pytest.mark.in_turn
@pytest.mark.fast("mixup-*")
@pytest.mark.parametrize(
    "form", [lambda x, y, w: (x, y, w), lambda x, y, w: (x, {"a": y, "b": y}, {"b": w}), lambda x, y, w: (x, y)]
)
@pytest.mark.parametrize("make", [mixup, choice])
def test_batches_are_freed_without_the_collector(make, form):
    layer, alive = make(), []
    gc.collect()
    gc.disable()
    try:
        for step in range(5):
            y, w = np.eye(4, dtype="float32"), np.ones(4, "float32")
            alive += [weakref.ref(y), weakref.ref(w)]
            layer.at_step(step, form(np.ones((4, 8, 8, 1), "float32"), y, w))
            del y, w
        assert sum(each() is not None for each in alive) <= 2
    finally:
        gc.enable()
