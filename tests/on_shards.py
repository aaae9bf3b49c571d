"""Four devices under `keras.distribution` on JAX. Run by test_devices.py, in a process of its own."""

import keras
import numpy as np
import pytest
import steps

N = 16


@pytest.fixture(scope="module", autouse=True)
def devices():
    names = keras.distribution.list_devices()
    assert len(names) == 4
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
    yield names
    keras.distribution.set_distribution(None)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("pairing", ["batch", "shard"])
@pytest.mark.parametrize("way", steps.WAYS)
def test_steps_on_the_global_batch(way, pairing, weighted):
    x, y, w = steps.batch(N)
    w = w if weighted else None
    trainer = steps.trainer_of(way, pairing=pairing)
    expected = steps.weights_of(trainer)
    history = steps.fit(trainer, x, y, w)
    for number in range(4):
        expected, accuracy = steps.step(way, expected, x, y, w, trainer.plan(number, N))
        assert history["accuracy"][number] == pytest.approx(accuracy)
    steps.assert_close(steps.weights_of(trainer), expected)
    assert int(trainer.step) == 4
