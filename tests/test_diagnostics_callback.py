"""`kmix.callbacks.Diagnostics`: what it logs, against the same figures by hand, and that it changes nothing."""

import csv

import keras
import numpy as np
import pytest
from helpers import tf

import kmix
from kmix.callbacks import AlphaScheduler, Diagnostics

CLASSES, SIZE = 5, 96


def data(seed=0, shape=(6, 6, 1)):
    generator = np.random.default_rng(seed)
    return generator.random((SIZE, *shape), dtype="float32"), generator.integers(0, CLASSES, SIZE)


def network(shape=(6, 6, 1)):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Flatten(), keras.layers.Dense(16, activation="relu", name="hidden")]
    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(CLASSES, activation="softmax")])


def trainer(**settings):
    model = kmix.MixTrainer(network(), **{"mixer": kmix.MixUp(0.4, seed=1), **settings})
    model.compile(keras.optimizers.SGD(0.5), kmix.losses.SoftLabelCrossentropy())
    return model


def watch(**settings):
    (x, y), held_out = data(), data(1)
    return Diagnostics(x[:40], y[:40], **{"validation_data": held_out, **settings})


def test_the_figures():
    model, (x, y), held_out = trainer(), data(), data(1)
    logs = model.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[watch()]).history
    p, held = (model.model.predict(part, verbose=0) for part in (x[:40], held_out[0]))
    accuracy = np.mean(p.argmax(axis=1) == y[:40])
    np.testing.assert_allclose(logs["clean_accuracy"][-1], accuracy, atol=1e-6)
    np.testing.assert_allclose(
        logs["accuracy_gap"][-1], accuracy - np.mean(held.argmax(axis=1) == held_out[1]), atol=1e-6
    )
    error = kmix.metrics.ExpectedCalibrationError()(held_out[1], held)
    np.testing.assert_allclose(logs["val_ece"][-1], float(error), atol=1e-6)
    # The second epoch has the steps 3, 4 and 5.
    plans = [model.plan(step, 40) for step in (3, 4, 5)]
    np.testing.assert_allclose(logs["lam_mean"][-1], np.mean([plan.lam.mean() for plan in plans]), atol=1e-6)
    one_hot = np.eye(CLASSES)[y[:40]]
    mixed = [p.lam[:, None] * one_hot + (1 - p.lam[:, None]) * one_hot[p.permutation] for p in plans]
    entropy = -np.mean([np.sum(m * np.log(np.where(m > 0, m, 1)), axis=1).mean() for m in mixed])
    np.testing.assert_allclose(logs["label_entropy"][-1], entropy, atol=1e-6)
    assert logs["alpha"] == [pytest.approx(0.4)] * 2
    assert all(seconds > 0 for seconds in logs["diagnostics_seconds"])


@pytest.mark.slow
def test_training_is_as_without_it():
    found = []
    for callbacks in ([], [watch()]):
        model = trainer()
        model.fit(*data(), batch_size=32, epochs=2, verbose=0, callbacks=callbacks)
        found.append([model.get_weights(), int(model.step)])
    for one, other in zip(*(weights for weights, _ in found), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0][1] == found[1][1] == 6


@pytest.mark.slow
def test_logs_of_every_second_epoch_reach_other_callbacks(tmp_path):
    path = tmp_path / "log.csv"
    schedule = kmix.schedules.Linear(0.0, 1.0, 4)
    model = trainer()
    callbacks = [AlphaScheduler(model, schedule), watch(every=2), keras.callbacks.CSVLogger(str(path))]
    logs = model.fit(*data(), batch_size=32, epochs=4, verbose=0, callbacks=callbacks).history
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    np.testing.assert_allclose([float(row["val_ece"]) for row in rows], logs["val_ece"])
    assert logs["val_ece"][0] == logs["val_ece"][1] != logs["val_ece"][2] == logs["val_ece"][3]
    # With an alpha of 0, lam is 1.
    assert logs["lam_mean"][0] == 1.0 > logs["lam_mean"][2]
    assert logs["label_entropy"][0] == 0.0 < logs["label_entropy"][2]


@pytest.mark.slow
def test_a_layer_in_a_pipeline_and_a_plain_model():
    layer, model = kmix.MixUp(kmix.schedules.Linear(0.0, 1.0, 6), num_classes=CLASSES, seed=1), network()
    model.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    ds = tf.data.Dataset.from_tensor_slices(data()).batch(32)
    mixed = kmix.data.Numbering()(ds).map(layer.at_step)
    logs = model.fit(mixed, epochs=2, verbose=0, callbacks=[watch(mixer=layer)]).history
    assert logs["alpha"] == [pytest.approx(2 / 6), pytest.approx(5 / 6)]
    lam = [layer.plan(step, 40).lam.mean() for step in (3, 4, 5)]
    np.testing.assert_allclose(logs["lam_mean"][-1], np.mean(lam), atol=1e-6)
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    logs = model.fit(*data(), verbose=0, callbacks=[watch(validation_data=None)]).history
    assert set(logs) == {"loss", "clean_accuracy", "diagnostics_seconds"}


def test_the_inputs_have_the_key_of_the_layer():
    (x, y), layer = data(), kmix.MixUp(0.4, num_classes=CLASSES, inputs_key="image", seed=1)
    ds = tf.data.Dataset.from_tensor_slices({"image": x, "labels": y}).batch(8)
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    settings = {"mixer": layer, "batch_size": 40}
    logs = []
    for clean, held_out in (((ds.take(5),), ds), ((x[:40], y[:40]), (x, y))):
        callback = Diagnostics(*clean, validation_data=held_out, **settings)
        callback.set_model(model)
        callback.on_epoch_begin(0)
        callback.on_train_batch_end(0)
        callback.on_epoch_end(0, found := {})
        logs.append({**found, "diagnostics_seconds": None})
    assert logs[0] == logs[1]
    assert {"val_ece", "lam_mean", "label_entropy"} <= set(logs[0])


@pytest.mark.in_turn
@pytest.mark.fast("settings0")
@pytest.mark.parametrize(
    "settings",
    [
        {"mixer": kmix.CutMix(seed=1, data_format="channels_last")},
        {
            "mixer": kmix.RandomChoice(
                [kmix.MixUp(0.4, seed=1), kmix.CutMix(seed=1, data_format="channels_last")], seed=2
            )
        },
        {"mixer": kmix.EmbeddingMixup(0.4, seed=1), "places": ["hidden"]},
        {"mixer": kmix.EmbeddingMixup(0.4, include_clean=True, seed=1), "places": ["hidden"]},
        {"mixer": kmix.MixUp(0.4, include_clean=True, seed=1)},
        {"mixer": kmix.MixUp(0.4, seed=1), "mix_losses": True},
    ],
)
def test_every_way_to_mix(settings):
    logs = trainer(**settings).fit(*data(), batch_size=32, verbose=0, callbacks=[watch()]).history
    assert 0 < logs["lam_mean"][0] <= 1
    assert logs["label_entropy"][0] > 0


@pytest.mark.slow
def test_pictures_for_tensorboard(tmp_path):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer().fit(*data(), batch_size=32, epochs=2, verbose=0, callbacks=[watch(log_dir=tmp_path)])
    events = loading.EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["images"]) == ["mixed batch", "reliability"]
    for tag in events.Tags()["images"]:
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == [0, 1]
        image = tf.image.decode_png(pictures[0].encoded_image_string).numpy()
        assert image.shape[:2] == (pictures[0].height, pictures[0].width)
        # Something is drawn.
        assert image.std() > 10


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"every": 0}, ValueError, "every"),
        ({"num_bins": None}, TypeError, "num_bins"),
        ({"batch_size": -1}, ValueError, "batch_size"),
        ({"from_logits": "abc"}, TypeError, "from_logits"),
        ({"log_dir": 3}, TypeError, "PathLike"),
        ({"mixer": 0.2}, TypeError, "mixing layer or a MixTrainer"),
        ({"validation_data": (data()[0], {"a": data()[1], "b": data()[1]})}, ValueError, "one output"),
        ({"validation_data": (data()[0], np.ones((SIZE, CLASSES)))}, ValueError, "not for tags"),
        ({"validation_data": (data()[0], data()[1][:3])}, ValueError, "a label for each"),
    ],
)
def test_wrong_arguments(settings, error, match):
    with pytest.raises(error, match=match):
        watch(**settings)


def test_wrong_data_sets():
    samples = tf.data.Dataset.from_tensor_slices(data())
    for data_set, match in ((samples, "single samples"), (samples.batch(9).repeat(), "an end")):
        with pytest.raises(ValueError, match=match):
            watch(validation_data=data_set)


def test_validation_data_may_be_a_data_set_and_weighed():
    (x, y), weights = data(1), np.where(np.arange(SIZE) % 2, 3.0, 0.0)
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    p, counted = model.predict(x, verbose=0), weights > 0
    accuracy = np.mean(model.predict(data()[0][:40], verbose=0).argmax(axis=1) == data()[1][:40])
    error = kmix.metrics.ExpectedCalibrationError()(y[counted], p[counted])
    held_out = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(7)
    for given in ((x, y, weights), held_out):
        callback = watch(validation_data=given)
        callback.set_model(model)
        callback.on_train_begin()
        callback.on_epoch_end(0, logs := {})
        np.testing.assert_allclose(logs["val_ece"], float(error), atol=1e-6)
        held = accuracy - np.mean(p.argmax(axis=1)[counted] == y[counted])
        np.testing.assert_allclose(logs["accuracy_gap"], held, atol=1e-6)


def outputs_of(*activations):
    inputs = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(inputs)
    outputs = [keras.layers.Dense(CLASSES, activation=name)(flat) for name in activations]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda: outputs_of(None), "from_logits"),
        (lambda: outputs_of("sigmoid"), "of its own, as of tags"),
        (lambda: outputs_of("softmax", "softmax"), "one output"),
    ],
)
def test_wrong_outputs_are_refused_before_the_first_epoch(model, match):
    model, (x, y) = model(), data()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    epochs = []
    begins = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    labels = y if len(model.outputs) == 1 else [y, y]
    with pytest.raises(ValueError, match=match):
        model.fit(x, labels, verbose=0, callbacks=[watch(), begins])
    assert epochs == []


def test_logits_are_read_as_such():
    model = outputs_of(None)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert "val_ece" in model.fit(*data(), verbose=0, callbacks=[watch(from_logits=True)]).history
