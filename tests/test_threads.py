"""Layers and trainers that several threads use at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from helpers import assert_same_weights, data, ids, to_native, to_numpy

import kmix

THREADS = 32
X, Y = data(12, (6, 6, 3)), ids(12)
LAYERS = {
    "MixUp": lambda: kmix.MixUp(0.4, num_classes=3, seed=3),
    "CutMix": lambda: kmix.CutMix(num_classes=3, data_format="channels_last", seed=3),
    "Mosaic": lambda: kmix.Mosaic(num_classes=3, data_format="channels_last", seed=3),
    "RandomChoice": lambda: kmix.RandomChoice([LAYERS["MixUp"](), LAYERS["CutMix"]()], seed=3),
}
either = pytest.mark.parametrize("convert", [lambda batch: batch, to_native], ids=["numpy", "native"])


def at_once(function, values):
    """Results of calls in threads that start together."""
    start = threading.Barrier(THREADS)

    def call(value):
        start.wait()
        return function(value)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(call, values))


def assert_equal(one, other):
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        np.testing.assert_array_equal(a, b)


@either
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_calls_of_one_layer_at_once(make, convert):
    layer, batch = make(), convert((X, Y))
    expected = [to_numpy(make().at_step(step, batch)) for step in range(THREADS)]
    assert_equal(at_once(lambda step: to_numpy(layer.at_step(step, batch)), range(THREADS)), expected)


@either
def test_counted_calls_at_once_have_each_number_once(convert):
    layer, batch = LAYERS["MixUp"](), convert((X, Y))
    made = at_once(lambda _: to_numpy(layer(*batch)), range(THREADS))
    expected = [to_numpy(layer.at_step(step, batch)) for step in range(THREADS)]
    order = lambda mixed: mixed[0].tobytes()
    assert len(set(map(order, expected))) > THREADS // 2
    assert_equal(sorted(made, key=order), sorted(expected, key=order))


def test_alpha_that_another_thread_sets_is_one_of_those_that_were_set():
    layer, alphas, seen_enough = LAYERS["MixUp"](), (0.2, 4.0), threading.Event()
    expected = [kmix.MixUp(alpha, num_classes=3, seed=3).at_step(0, (X, Y))[0].tobytes() for alpha in alphas]
    layer.alpha = alphas[0]

    def change():
        for i in range(10_000):
            if seen_enough.is_set():
                return
            layer.alpha = alphas[i % 2]

    setter = threading.Thread(target=change)
    setter.start()
    seen = {each[0].tobytes() for each in at_once(lambda _: layer.at_step(0, (X, Y)), range(THREADS))}
    seen_enough.set()
    setter.join()
    assert seen <= set(expected)


def trainer_of(mixer, seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    return kmix.MixTrainer(model, mixer)


@pytest.mark.parametrize("shared", [False, True], ids=["a mixer each", "one mixer"])
def test_trainers_in_two_threads_train_as_one_after_the_other(shared):
    def trainers():
        mixer = LAYERS["MixUp"]()
        made = [trainer_of(mixer if shared else LAYERS["MixUp"](), seed) for seed in (1, 2)]
        for trainer in made:
            trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
        return made

    def fit(trainer):
        trainer.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0)

    one_by_one, together = trainers(), trainers()
    for trainer in one_by_one:
        fit(trainer)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(fit, together))
    for one, other in zip(one_by_one, together, strict=True):
        assert int(one.step) == int(other.step) == 9
        assert_same_weights(one, other)
