"""Kills of trainings that save: a training that is killed again and again ends like one that never was.

KERAS_BACKEND=jax python tests/faults.py                # 20 kills: SIGKILL at a random moment, also within a save
KERAS_BACKEND=jax python tests/faults.py --kills 60 --seed 1
KERAS_BACKEND=tensorflow python tests/faults.py --service   # kill a worker of the tf.data service
"""

import argparse
import functools
import json
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
from helpers import data, free_address, ids, network, tf

import kmix
from kmix import _files

SAMPLES, SIZE, EPOCHS = 24, 8, 80
X, Y = data(SAMPLES, (5,)), ids(SAMPLES)
STEPS = EPOCHS * SAMPLES // SIZE
SERVED = 400


def compiled(model):
    model.compile(keras.optimizers.Adam(0.01), kmix.losses.SoftLabelCrossentropy())
    return model


def mixup():
    return kmix.MixUp(0.4, num_classes=3, seed=3)


def batch(step):
    rows = slice(step * SIZE % SAMPLES, step * SIZE % SAMPLES + SIZE)
    return X[rows], Y[rows]


def tell(number):
    """Tell the parent process, which kills at one of these numbers."""
    print("at", number, flush=True)


def by_backup(folder):
    """`fit` with `BackupAndRestore`."""
    trainer = compiled(kmix.MixTrainer(network(hidden=(4,)), mixup()))
    told = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: tell(epoch))
    callbacks = [keras.callbacks.BackupAndRestore(f"{folder}/backup", delete_checkpoint=False), told]
    trainer.fit(X, Y, batch_size=SIZE, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)
    return trainer


def by_save(folder):
    """`save` after each step, `load_model` to go on."""
    path = folder / "trainer.keras"
    trainer = (
        keras.saving.load_model(path) if path.exists() else compiled(kmix.MixTrainer(network(hidden=(4,)), mixup()))
    )
    for step in range(int(trainer.step), STEPS):
        tell(step)
        trainer.train_on_batch(*batch(step))
        trainer.save(path)
    return trainer


def by_numbering(folder):
    """A loop over a `Numbering`, whose state is saved with the weights."""
    path, model, numbering = folder / "state.npz", compiled(network(hidden=(4,))), kmix.data.Numbering()
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    if path.exists():
        with np.load(path) as saved:
            numbering.load_state_dict(json.loads(str(saved["numbering"])))
            for i, variable in enumerate(variables):
                variable.assign(saved[str(i)])
    first = numbering.state_dict()["step"]
    mixer = mixup()
    for step, each in numbering([batch(step) for step in range(first, STEPS)]):
        tell(step)
        model.train_on_batch(*mixer.at_step(step, each))
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
        arrays = {str(i): keras.ops.convert_to_numpy(variable) for i, variable in enumerate(variables)}
        with _files.written_whole(path) as partial:
            np.savez(partial, numbering=json.dumps(numbering.state_dict()), **arrays)
    return model


TRAININGS = {"BackupAndRestore": by_backup, "save and load_model": by_save, "Numbering": by_numbering}


def child(name, folder):
    """Train, go on from what is in the folder, and write the final weights."""
    trained = TRAININGS[name](folder)
    np.savez(folder / "end.npz", *trained.get_weights())


def run(name, folder, rng=None):
    """Run a training in a process of its own; with `rng`, kill it at a random moment. Whether it was killed."""
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        if rng is not None:
            for _ in range(rng.integers(1, 12)):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{name} ended with {process.returncode}:\n{errors}")
    return process.returncode != 0


def weights(folder):
    with np.load(folder / "end.npz") as end:
        return list(end.values())


def killed_and_not(name, kills, seed):
    """Train in one go, and again with kills: `(weights of the one, of the other, how often it was killed)`."""
    rng, killed = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        whole, broken = pathlib.Path(whole), pathlib.Path(broken)
        run(name, whole)
        for _ in range(kills):
            killed += run(name, broken, rng)
        run(name, broken)
        return weights(whole), weights(broken), killed


def serve(dispatcher, address, ready):
    """Work for a dispatcher of the tf.data service, in a process of its own."""
    service = tf.data.experimental.service
    port = int(address.rpartition(":")[2])
    config = service.WorkerConfig(dispatcher, worker_address=address, port=port, heartbeat_interval_ms=100)
    worker = service.WorkerServer(config)
    ready.set()
    worker.join()


def started(dispatcher, address):
    """A worker process that takes work."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=serve, args=(dispatcher, address, ready), daemon=True)
    worker.start()
    ready.wait()
    return worker


def of_the_service(killed_at=100):
    """Kill one of two workers of the tf.data service and start it again: `(numbers that arrive, those mixed wrong)`."""
    service = tf.data.experimental.service
    dispatcher, mixer, addresses = service.DispatchServer(), mixup(), [free_address(), free_address()]
    start = functools.partial(started, dispatcher.target.partition("://")[2])
    workers = list(map(start, addresses))
    cycle = SAMPLES // SIZE
    x, y = tf.reshape(X, (cycle, SIZE, -1)), tf.reshape(Y, (cycle, SIZE))
    numbered = lambda n: (n, mixer.at_step(n, (tf.gather(x, n % cycle), tf.gather(y, n % cycle))))
    ds = tf.data.Dataset.range(SERVED).map(numbered)
    arrived, wrong = [], []
    for n, mixed in ds.apply(service.distribute("distributed_epoch", dispatcher.target)):
        arrived.append(int(n))
        pairs = zip(mixed, mixer.at_step(int(n), batch(int(n))), strict=True)
        if not all(np.allclose(*pair, atol=1e-6) for pair in pairs):
            wrong.append(int(n))
        if len(arrived) == killed_at:
            workers[0].kill()
            workers[0].join()
            workers.append(start(addresses[0]))
    for worker in workers:
        worker.kill()
    return arrived, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--service", action="store_true", help="a worker of the tf.data service alone")
    parser.add_argument("--child", choices=TRAININGS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder)
        return
    if options.service:
        arrived, wrong = of_the_service()
        repeated = len(arrived) - len(set(arrived))
        print(f"tf.data service: {len(arrived)} of {SERVED} batches arrive, {repeated} twice, {len(wrong)} mixed wrong")
        sys.exit(bool(repeated or wrong))
    differ = False
    for i, name in enumerate(TRAININGS):
        kills = options.kills // len(TRAININGS) + (i < options.kills % len(TRAININGS))
        one, other, killed = killed_and_not(name, kills, options.seed + i)
        equal = all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
        differ |= not equal
        print(f"{keras.backend.backend()}, {name}: {killed} kills, {'equal' if equal else 'NOT equal'}", flush=True)
    sys.exit(differ)


if __name__ == "__main__":
    main()
