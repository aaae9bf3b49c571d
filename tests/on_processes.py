"""Two processes of two devices each, on JAX. test_devices.py runs it twice, once as each process."""

import os

import keras
import numpy as np
import pytest
import steps

import kmix

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


def test_processes_that_draw_different_plans_stop():
    x, y, w = steps.batch(N)
    watch = kmix.callbacks.Fingerprint(N)
    alike = steps.trainer_of("mixer", within=4)
    different = steps.compiled(kmix.MixTrainer(alike.model, kmix.MixUp(0.7, seed=PROCESS), within=4))
    logs = steps.fit(alike, mine(x), mine(y), mine(w), steps=2, callbacks=[watch])
    assert logs["fingerprint"] == [alike.fingerprint(step, N) for step in range(2)]
    with pytest.raises(ValueError, match=r"at step 0 in process 0, .* at step 0 in process 1"):
        steps.fit(different, mine(x), mine(y), mine(w), callbacks=[watch])
