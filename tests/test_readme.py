"""The code in the README runs as written."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import kmix


class Batches(keras.utils.PyDataset):
    num_batches = 2

    def __getitem__(self, index):
        return np.full((8, 8, 8, 1), index, "float32"), np.arange(8)


README = (pathlib.Path(kmix.__file__).parent.parent / "README.md").read_text()


@pytest.mark.slow
def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grain = pytest.importorskip("grain", reason="grain is not installed")
    rng = np.random.default_rng(0)
    images, ids = rng.random((256, 8, 8, 1)).astype("float32"), rng.integers(0, 10, 256)
    data = tf.data.Dataset.from_tensor_slices((images, ids))
    layers = [keras.Input((8, 8, 1)), keras.layers.Dense(4, name="block1"), keras.layers.Dense(4, name="block2")]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    names = {"train": data, "validation": data.take(128), "model": model}
    names["grain_dataset"] = grain.MapDataset.source(list(zip(images, ids, strict=True)))
    names["torch_loader"] = [[images[:8], ids[:8]]]
    names["torch_dataset"] = list(zip(images, ids, strict=True))
    names["py_dataset"] = Batches()
    names.update(x=images[:8], y=ids[:8], sample_weight=np.ones(8, "float32"))
    names.update(x_train=images, y_train=ids, x_val=images[:8], y_val=ids[:8])
    names.update(masks=rng.integers(0, 21, (8, 8, 8), "int32"), values=rng.random(8).astype("float32"))
    names.update(boxes=np.array([[[1, 2, 6, 7]]] * 8, "float32"), box_labels=np.zeros((8, 1), "float32"))
    names.update(tasks=np.where(rng.random((8, 3)) < 0.5, np.nan, 1.0).astype("float32"))
    names.update(x_test=images[:8], y_test=ids[:8], other_images=1 - images[:8])
    names.update({f"{kind}_{seed}": model for kind in ("model", "trainer") for seed in "abc"})
    names.update(batch=(images[:8], ids[:8]), other_batch=(images[8:16], ids[8:16]))
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        names.update(x=images[:8], y=ids[:8], images=images[:8])
        if "set_distribution" in block and keras.backend.backend() != "jax":
            continue  # Keras distributes only on JAX.
        if "from torch" in block and keras.backend.backend() != "torch":
            continue  # JAX warns when a loader forks, and PyTorch is an extra.
        exec(re.sub(r"epochs=\d+", "epochs=1", block), names)
        if "set_distribution" in block:
            keras.distribution.set_distribution(None)
    assert names["x"].shape == (8, 8, 8, 1)


def test_the_targets_of_make_exist():
    makefile = (pathlib.Path(kmix.__file__).parent.parent / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test", "test-all", "compare", "speed"} <= named
    for target in named:
        assert re.search(rf"^{target}:|\.PHONY:.* {target}", makefile, flags=re.MULTILINE), target
