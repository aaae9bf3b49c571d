"""Two processes of two devices each, on JAX. test_devices.py runs it twice, once as each process."""

import os

import keras
import numpy as np
import pytest
import steps

N = 8
PROCESS = int(os.environ.get("KMIX_PROCESS", "0"))


@pytest.fixture(scope="module", autouse=True)
def devices():
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(os.environ["KMIX_ADDRESS"], num_processes=2, process_id=PROCESS)
    names = keras.distribution.list_devices()
    assert (len(names), len(jax.local_devices())) == (4, 2)
    # Each process feeds its own part of the batch.
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names, auto_shard_dataset=False))
    yield
    jax.distributed.shutdown()


def mine(array):
    return np.split(array, 2)[PROCESS]


@pytest.mark.parametrize(("way", "within"), [("mixer", "batch"), ("places", "shard"), ("mixer", 4), ("placed", 2)])
def test_processes_train_on_one_global_batch(way, within):
    x, y, w = steps.batch(N)
    trainer = steps.trainer_of(way, within=within)
    expected = steps.weights_of(trainer)
    steps.fit(trainer, mine(x), mine(y), mine(w))
    for number in range(4):
        expected, _ = steps.step(way, expected, x, y, w, trainer.plan(number, N))
    steps.assert_close(steps.weights_of(trainer), expected)
