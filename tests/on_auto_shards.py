"""Two processes on JAX that read the same data, of which Keras gives each its rows.

test_devices.py runs it twice, once as each process.
"""

import os

import keras
import numpy as np
import pytest
import steps

import kmix

N, BATCHES = 8, 4


@pytest.fixture(scope="module", autouse=True)
def devices():
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    process = int(os.environ["KMIX_PROCESS"])
    keras.distribution.initialize(os.environ["KMIX_ADDRESS"], num_processes=2, process_id=process)
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
    yield
    jax.distributed.shutdown()


def batches():
    """Batches that differ."""
    x, y, _ = steps.batch(N * BATCHES)
    return list(zip(np.split(x, BATCHES), np.split(y, BATCHES), strict=True))


def dataset():
    import tensorflow as tf

    x, y = (np.concatenate(arrays) for arrays in zip(*batches(), strict=True))
    # TensorFlow knows the size of numbered batches if none is cut short.
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(N, drop_remainder=True)


def bare():
    """A compiled model without mixing."""
    return steps.compiled(steps.trainer_of("mixer").model)


def expected(weights, plan, epochs=2):
    """The weights after training on the global batches, each with its own plan."""
    for number in range(epochs * BATCHES):
        weights, _ = steps.step("mixer", weights, *batches()[number % BATCHES], None, plan(number))
    return weights


# Of Keras, which does not know how many batches the rows of a process are.
ran_out = pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")


@ran_out
@pytest.mark.parametrize("within", ["batch", 4])
def test_numbered_tf_data(within):
    """Each process mixes the global batch, and keeps its rows."""
    pairing = kmix.pairing.RandomPairs(within=within)
    layer = kmix.MixUp(0.7, num_classes=steps.CLASSES, pairing=pairing, seed=3)
    numbering, model = kmix.data.Numbering(), bare()
    wanted = expected(model.get_weights(), lambda number: layer.plan(number, N))
    train = numbering(dataset()).map(layer.at_step)
    for _ in range(2):
        model.fit(train, callbacks=[numbering], verbose=0)
    steps.assert_close(model.get_weights(), wanted)
    assert numbering.state_dict()["step"] == 2 * BATCHES
    # In one `fit`, too.
    model.fit(train, epochs=2, callbacks=[numbering], verbose=0)
    assert numbering.state_dict()["step"] == 4 * BATCHES


@ran_out
@pytest.mark.parametrize("within", ["batch", 4])
def test_in_the_training_step(within):
    trainer = steps.trainer_of("mixer", within=within)
    wanted = expected(steps.weights_of(trainer), lambda number: trainer.plan(number, N))
    trainer.fit(dataset(), epochs=2, verbose=0)
    steps.assert_close(steps.weights_of(trainer), wanted)


class Batches(keras.utils.PyDataset):
    num_batches = BATCHES

    def __getitem__(self, index):
        return batches()[index]


def both(plan, first):
    """The plan of a step that trains on two batches, each with its own number."""
    one, other = plan(first), plan(first + 1)
    lam = np.concatenate([one.lam, other.lam])
    return one._replace(lam=lam, permutation=np.concatenate([one.permutation, other.permutation + N]))


def test_a_numbered_py_dataset():
    """From Keras 3.16 on, each process takes whole batches in turn."""
    layer, numbering, model = kmix.MixUp(0.7, num_classes=steps.CLASSES, seed=3), kmix.data.Numbering(), bare()
    mixed = numbering(Batches()).map(layer.at_step)
    fit = lambda: model.fit(mixed, shuffle=False, callbacks=[numbering], verbose=0)
    if not hasattr(keras.distribution.distribution(), "num_data_shards"):
        with pytest.raises(ValueError, match=r"tf\.data"):
            fit()
        return
    wanted, given = model.get_weights(), batches()
    for number in range(0, 2 * BATCHES, 2):
        pair = (np.concatenate(arrays) for arrays in zip(*(given[(number + i) % BATCHES] for i in (0, 1)), strict=True))
        plan = both(lambda n: layer.plan(n, N), number)
        wanted, _ = steps.step("mixer", wanted, *pair, None, plan)
    fit()
    fit()
    steps.assert_close(model.get_weights(), wanted)
    assert numbering.state_dict()["step"] == 2 * BATCHES
