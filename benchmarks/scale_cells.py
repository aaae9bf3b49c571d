"""One way to mix or train a global batch on several devices: `scale.py` runs each in processes of its own.

    RANK=0 python benchmarks/scale_cells.py '{"call": "in_numpy", "parts": 4}' out

A cell mixes 8 global batches of 128 rows within groups of 16. The class of a row is its number in the global batch, so
a mixed label tells the lam and the partner of its row: the plan that was used, whatever code drew it. A cell that
trains also has the weights after the last step.
"""

import json
import math
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kmix

BATCH, GROUP, STEPS, SHAPE = 128, 16, 8, (8, 8, 1)
PROCESS = int(os.environ.get("RANK", "0"))


def batch(step):
    """A global batch: images, and the numbers of the rows."""
    return np.random.default_rng((1, step)).normal(size=(BATCH, *SHAPE)).astype("float32"), np.arange(BATCH)


def mixer(within=GROUP):
    """Blends some batches and pastes others."""
    settings = {"num_classes": BATCH, "pairing": kmix.pairing.RandomPairs(within=within)}
    layers = [kmix.MixUp(0.7, seed=1, **settings), kmix.CutMix(1.0, seed=2, data_format="channels_last", **settings)]
    return kmix.RandomChoice(layers, seed=3)


# Pipelines.


def in_numpy(parts):
    """Each part of the batch by itself, from its first row on."""
    layer, rows = mixer(), BATCH // parts
    labels = []
    for step in range(STEPS):
        x, y = batch(step)
        cuts = range(0, BATCH, rows)
        mixed = [layer.at_step(step, (x[i : i + rows], y[i : i + rows]), first_row=i) for i in cuts]
        labels.append(np.concatenate([labels for _, labels in mixed]))
    return labels, []


def in_tf_data(parts):
    """Parts in a parallel map."""
    import tensorflow as tf

    layer, rows = mixer(), BATCH // parts
    x, y = (np.concatenate(arrays) for arrays in zip(*map(batch, range(STEPS)), strict=True))
    ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(rows, drop_remainder=True).enumerate()

    def mix(i, part):
        return layer.at_step(i // parts, part, first_row=i % parts * rows)

    mixed = [labels for _, labels in ds.map(mix, num_parallel_calls=4).as_numpy_iterator()]
    return np.split(np.concatenate(mixed), STEPS), []


# Training.


class SeenLabels(keras.metrics.Metric):
    """Keeps the labels of the last step. `rows` are those of a replica."""

    def __init__(self, rows):
        super().__init__(name="seen_labels")
        self.labels = self.add_variable((rows, BATCH), "zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.labels.assign(keras.ops.cast(y_true, "float32"))

    def reset_state(self):
        """Keep them, also after the step."""

    def result(self):
        return keras.ops.zeros(())

    def held(self):
        """The labels of this process, those of one replica after those of another."""
        labels = self.labels.value
        replicas = getattr(labels, "values", None)
        return np.concatenate([*map(whole, replicas)]) if isinstance(replicas, tuple) else whole(labels)


def trainer_of(mixing, shape=SHAPE, metrics=()):
    """A compiled trainer of a small network, the same in every process; a bare model without a mixing layer."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="tanh", name="hidden"),
            keras.layers.Dense(BATCH, name="top"),
        ]
    )
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(0, 0.1, weight.shape).astype("float32") for weight in model.weights])
    trainer = model if mixing is None else kmix.MixTrainer(model, mixing)
    loss = kmix.losses.SoftLabelCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.Adam(1e-3), loss, metrics=list(metrics))
    return trainer


def trained(rows, processes=1, prepare=lambda model: None):
    """The labels that each step has seen in this process, and the weights after them. A replica has so many rows."""
    seen, labels = SeenLabels(rows), []
    trainer = trainer_of(mixer(), metrics=[seen])
    prepare(trainer.model)
    for step in range(STEPS):
        x, y = (np.split(array, processes)[PROCESS] for array in batch(step))
        trainer.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
        labels.append(seen.held())
    return labels, [whole(weight.value) for weight in trainer.model.weights]


def whole(tensor):
    """A tensor of the backend as NumPy, also if other processes hold parts of it."""
    if getattr(tensor, "is_fully_addressable", True):
        return keras.ops.convert_to_numpy(tensor)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tensor, tiled=True)


def on_jax(processes=1, model_parallel=False):
    """`keras.distribution` on all devices of all processes, each of which feeds its own rows."""
    import jax

    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(os.environ["ADDRESS"], num_processes=processes, process_id=PROCESS)
    devices = keras.distribution.list_devices()
    settings = {"auto_shard_dataset": False}
    distribution = keras.distribution.DataParallel(devices=devices, **settings)
    if model_parallel:
        mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
        layouts = keras.distribution.LayoutMap(mesh)
        layouts["hidden/kernel"], layouts["top/kernel"] = (None, "model"), ("model", None)
        distribution = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch", **settings)
    keras.distribution.set_distribution(distribution)
    return trained(BATCH, processes)


def on_mirrored(replicas):
    """`tf.distribute.MirroredStrategy`."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    with tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]).scope():
        return trained(BATCH // replicas)


def on_torch():
    """A process that `torchrun` started: all average their gradients."""
    import torch

    torch.distributed.init_process_group("gloo")
    processes = torch.distributed.get_world_size()

    def averaged(parameter):
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= processes

    def average_gradients(model):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(averaged)

    result = trained(BATCH // processes, processes, average_gradients)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return result


# What devices send each other.


def bytes_of(shapes):
    """The bytes of all arrays in the text of a type of XLA, such as `(f32[32,128]{1,0}, f32[])`."""
    found = re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", shapes)
    return sum(int(bits) // 8 * math.prod(int(size) for size in sizes.split(",") if size) for bits, sizes in found)


def moved(trainer, x, y):
    """The bytes that a device receives in a compiled training step, by the kind of message."""
    import jax

    def laid(array):
        return jax.device_put(array, keras.distribution.distribution().get_data_layout(array.shape).backend_layout)

    trainer.fit(x, y, batch_size=BATCH, verbose=0)
    variables = trainer.trainable_variables, trainer.non_trainable_variables, trainer.optimizer.variables
    state = [[variable.value for variable in group] for group in (*variables, trainer.metrics_variables)]
    text = jax.jit(trainer.train_step).lower(state, (laid(x), laid(y))).compile().as_text()
    received: dict[str, int] = {}
    for shapes, kind in re.findall(rf" = (.*) ({'|'.join(KINDS)})(?:-start)?\(", text):
        received[kind] = received.get(kind, 0) + bytes_of(shapes)
    return received


KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def messages():
    """What a step on all devices moves: without mixing, and by mixer and by where partners come from."""
    distribution = keras.distribution.DataParallel(devices=keras.distribution.list_devices())
    keras.distribution.set_distribution(distribution)
    x, y = np.ones((BATCH, *IMAGES), "float32"), np.arange(BATCH)
    found = {"no mixing": moved(trainer_of(None, IMAGES), x, y)}
    for name in ("MixUp", "CutMix", "Mosaic"):
        for within in ("batch", "shard", GROUP):
            pairing = kmix.pairing.RandomPairs(within=within)
            layer = getattr(kmix, name)(num_classes=BATCH, pairing=pairing, seed=1)
            found[f"{name}, `within={within!r}`"] = moved(trainer_of(layer, IMAGES), x, y)
    return found


IMAGES = (32, 32, 3)


def main():
    """Run a cell, and write what it found."""
    settings, out = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
    call = settings.pop("call")
    if call == "messages":
        out.with_suffix(".json").write_text(json.dumps(messages()))
        return
    labels, weights = globals()[call](**settings)
    named = {f"weight_{i}": weight for i, weight in enumerate(weights)}
    np.savez(out.with_name(f"{out.name}_{PROCESS}.npz"), labels=np.stack(labels), **named)


if __name__ == "__main__":
    main()
