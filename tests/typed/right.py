"""A user's file without an error for a type checker: the calls of README.md, schedules, NumPy's integers, targets."""

import keras
import numpy as np
import tensorflow as tf

import kmix

x, y = np.ones((8, 8, 8, 1), "float32"), np.arange(8) % 4
layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(name="flat"), keras.layers.Dense(4, activation="softmax")]
model = keras.Sequential(layers)
loss = kmix.losses.SoftLabelCrossentropy(label_smoothing=0.1)
model.compile("adam", loss=loss, metrics=[kmix.metrics.SoftLabelAccuracy()])

numbering = kmix.data.Numbering(np.int64(0))
mixup = kmix.MixUp(kmix.schedules.Cosine(0.4, 0.0, np.int64(1000)), num_classes=4, pairing="different_labels", seed=1)
ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
history = model.fit(numbering(ds).map(mixup.at_step), epochs=2, callbacks=[numbering], verbose=0)
cutmix = kmix.CutMix(lambda step: 0.1 * step, num_classes=4, data_format="channels_last", per="batch")
mixed = next(iter(ds.map(cutmix)))
for step in np.arange(2):
    mixed = mixup.at_step(step, (x, y, np.ones(8)), replica=np.int64(1))

rate = kmix.schedules.Join([kmix.schedules.Linear(0.0, 1.0, 5), 0.5, lambda step: 0.1], [5, np.int32(9)])
target = {"class": kmix.targets.Labels(4, class_weight={1: 2.0}), "id": "keep", "tags": [kmix.targets.Labels()]}
mosaic = kmix.Mosaic(target=target, rate=rate, pairing=kmix.pairing.RandomPairs(within=4), inputs_key=["a", "b"])
boxes = kmix.Mosaic(target={"labels": "union", "bounding_boxes": kmix.targets.BoundingBoxes("xyxy", keep=["track"])})
points = kmix.MixUp(1, target=lambda points, plan: points[plan.permutation])
choice = kmix.RandomChoice([mixup, kmix.CutMix(num_classes=4)], probabilities=[1, kmix.schedules.Constant(0.5)])
plan: kmix.MixPlan = choice.plan(np.int64(3), np.int64(8), spatial_shape=(8, 8), targets=y)
shares = [part.share for part in plan.without_own_partners().parts()]

trainer = kmix.MixTrainer(model, kmix.EmbeddingMixup(2.0), places=["input", "flat"], within="batch")
trainer.compile("adam", loss=loss, metrics=["accuracy"])
scheduler = kmix.callbacks.AlphaScheduler(trainer, kmix.schedules.Piecewise([0.2, 0.4], [10]), unit="epoch")
history = trainer.fit(x, y, callbacks=[scheduler, kmix.callbacks.Fingerprint(8, every=10)], verbose=0)
trainer.alpha = 0.3
report = [trainer.fingerprint(np.int64(2), 8) + 1, trainer.plan(np.int64(0), 8).lam, model.predict(x, verbose=0)]
warnings: list[str] = kmix.diagnostics.inspect(ds, batches=2, mixer=mixup).warnings
