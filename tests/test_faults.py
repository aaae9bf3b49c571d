"""Faults from outside: killed processes, a full disk, data that end too soon, errors in what a user wrote."""

import contextlib
import functools
import os
import resource
import subprocess
import sys

import faults
import keras
import numpy as np
import pytest
from helpers import data, ids, network

import kmix

X, Y = data(12, (5,)), ids(12)


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize("name", faults.TRAININGS)
def test_a_training_that_is_killed_ends_like_one_that_is_not(name):
    one, other, killed = faults.killed_and_not(name, kills=2, seed=0)
    assert killed == 2
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# A full disk.


@contextlib.contextmanager
def full_disk(after):
    """No file may become longer than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def trainer_of(units=4, **settings):
    trainer = kmix.MixTrainer(network(hidden=(units,)), kmix.MixUp(seed=3, **{"alpha": 0.4, **settings}))
    trainer.compile("adam", kmix.losses.SoftLabelCrossentropy(), run_eagerly=True)
    return trainer


def comparison():
    p = np.eye(3)[Y] * 0.8 + 0.2 / 3
    return kmix.diagnostics.compare({"plain": p, "MixUp": np.full((12, 3), 1 / 3)}, None, Y)


WRITERS = {
    "trainer.keras": lambda path: trainer_of(400).save(path),
    "page.html": lambda path: comparison().save_html(path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("before", [None, b"as it was"])
def test_a_full_disk_leaves_the_file_as_it_was(name, before, tmp_path):
    path = tmp_path / name
    if before is not None:
        path.write_bytes(before)
    with full_disk(after=4000), pytest.raises(OSError, match="File too large"):
        WRITERS[name](path)
    assert os.listdir(tmp_path) == [name] * (before is not None)
    assert before is None or path.read_bytes() == before
    WRITERS[name](path)
    assert os.listdir(tmp_path) == [name]
    assert path.stat().st_size > 4000


WEIGHTS = """
import sys; sys.path.insert(0, {tests!r})
import test_faults as t
with t.full_disk(after=4000):
    t.trainer_of(400).save_weights({path!r})
"""


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize("before", [None, 1, 3])
def test_a_full_disk_leaves_weights_as_they_were(before, tmp_path):
    """In a process of its own, since HDF5 may end one that cannot write."""
    path = tmp_path / "trainer.weights.h5"
    if before is not None:
        saved = trainer_of(400)
        saved.step.assign(before)
        saved.save_weights(path)
    code = WEIGHTS.format(tests=os.path.dirname(__file__), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode != 0
    assert b"File too large" in done.stderr
    assert path.exists() == (before is not None)
    if before is not None:
        resumed = trainer_of(400)
        resumed.load_weights(path)
        assert int(resumed.step) == before


# Data that end too soon.


@pytest.mark.filterwarnings("ignore:.*Your input ran out of data")
def test_data_that_end_within_an_epoch_are_counted():
    trainer, batches = trainer_of(), ((X[i : i + 4], Y[i : i + 4]) for i in (0, 4, 8))
    trainer.fit(batches, steps_per_epoch=5, epochs=1, verbose=0)
    expected = trainer_of()
    for i in (0, 4, 8):
        expected.train_on_batch(X[i : i + 4], Y[i : i + 4])
    assert int(trainer.step) == int(expected.step) == 3
    for a, b in zip(trainer.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# Errors in what a user wrote.


class OwnError(Exception):
    pass


class Switch:
    """Calls of a user's code fail while it is on."""

    on = False

    def check(self):
        if self.on:
            raise OwnError("of a user")


def own_schedule(switch):
    def schedule(step):
        switch.check()
        return 0.4

    return trainer_of(alpha=schedule), []


def own_target(switch):
    def target(y, plan):
        switch.check()
        return keras.ops.one_hot(y, 3)

    return trainer_of(target=target), []


def own_loss(switch):
    def loss(y, p):
        switch.check()
        return kmix.losses.SoftLabelCrossentropy()(y, p)

    trainer = trainer_of(num_classes=3)
    trainer.compile("adam", loss, run_eagerly=trainer.run_eagerly)
    return trainer, []


def own_callback(switch, hook):
    callback = keras.callbacks.LambdaCallback(**{hook: lambda *args, **settings: switch.check()})
    return trainer_of(), [callback]


OWN = {
    "schedule": own_schedule,
    "target": own_target,
    "loss": own_loss,
    "callback before": functools.partial(own_callback, hook="on_train_batch_begin"),
    "callback after": functools.partial(own_callback, hook="on_train_batch_end"),
}


@pytest.mark.parametrize("eagerly", [True, False])
@pytest.mark.parametrize("own", OWN)
def test_an_error_of_a_user_is_raised_and_nothing_is_lost(own, eagerly):
    """Neither the weights nor the step: training goes on as if the failed call had not been."""

    def fit(trainer, callbacks=(), n=12):
        trainer.fit(X[:n], Y[:n], batch_size=n, shuffle=False, verbose=0, callbacks=list(callbacks))

    def made():
        trainer, callbacks = OWN[own](switch)
        trainer.run_eagerly = eagerly
        return trainer, callbacks

    switch = Switch()
    (trainer, callbacks), (expected, _) = made(), made()
    for each in (trainer, expected):
        fit(each)
    switch.on = True
    # An error of a schedule is the cause of one that says at which step.
    with pytest.raises(ValueError if own == "schedule" else OwnError, match="of a user"):
        # Another size of the batch: a compiled step is traced anew.
        fit(trainer, callbacks, n=8)
    switch.on = False
    if own == "callback after":
        fit(expected, n=8)
    for _ in range(2):
        assert int(trainer.step) == int(expected.step)
        for a, b in zip(trainer.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        for each in (trainer, expected):
            fit(each)
