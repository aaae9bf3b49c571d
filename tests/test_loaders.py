"""One batch, one seed and one step give the same bytes, whichever loader brings the batch."""

import importlib
import importlib.metadata
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import warnings

import keras
import loaders
import numpy as np
import pytest
from helpers import on, tf, to_numpy
from loaders import BATCHES, SIZE

import kmix

BACKEND = keras.backend.backend()
on_numpy = on("jax", why="alike on every backend, and Keras on NumPy imports JAX")
torch_workers = pytest.mark.skipif(BACKEND != "torch", reason="JAX and TensorFlow warn of a fork, and start slowly")

# What the table of the page on loaders shows: the package whose version it names, and the line.
LINES = {
    "NumPy, any iterable": (
        "numpy",
        "mixed = (mixup.at_step(step, batch) for step, batch in numbering(batches))",
    ),
    "tf.data": (
        "tensorflow",
        "mixed = numbering(ds.batch(128)).map(mixup.at_step, num_parallel_calls=8)",
    ),
    "tf.data service": (
        "tensorflow",
        "mixed = tf.data.Dataset.range(steps).map(lambda n: mixup.at_step(n, load(n))).apply(distribute)",
    ),
    "`keras.utils.PyDataset`": (
        "keras",
        "mixed = numbering(py_dataset).map(mixup.at_step)",
    ),
    "Grain": (
        "grain",
        "mixed = grain_dataset.batch(128).repeat(20).map_with_index(mixup.at_step).to_iter_dataset()",
    ),
    "PyTorch `DataLoader`": (
        "torch",
        "mixed = DataLoader(kmix.data.MixedBatches(dataset, mixup.at_step), sampler=numbering(sampler), "
        "batch_size=None, num_workers=2)",
    ),
    "Hugging Face `datasets`": (
        "datasets",
        'mixed = (mixup.at_step(n, batch) for n, batch in numbering(hf.with_format("numpy").iter(batch_size=128)))',
    ),
    "Ray Data": (
        "ray",
        'mixed = ray.data.range(steps).map(lambda row: mixup.at_step(row["id"], load(row["id"])))',
    ),
}


def mixer(**settings):
    """Blends some batches and pastes others."""
    ramp = kmix.schedules.Linear(0.2, 1.0, 10)
    settings = {"num_classes": 3, **settings}
    layers = [kmix.MixUp(ramp, seed=5, **settings), kmix.CutMix(1.0, seed=6, **settings)]
    return kmix.RandomChoice(layers, seed=7)


def parts(batch):
    """The inputs and labels of a batch in any form."""
    x, y = (batch["images"], batch["labels"]) if isinstance(batch, dict) else batch
    return to_numpy(x), to_numpy(y)


def assert_same_bytes(batches, steps=range(BATCHES), expected=None):
    """Assert that `batches`, in order, are those of the steps."""
    batches = list(batches)
    assert len(batches) == len(steps)
    layer = mixer()
    assert {layer.plan(step, SIZE, spatial_shape=(8, 8)).choice.item() for step in steps} == {0, 1}
    for step, batch in zip(steps, batches, strict=True):
        wanted = layer.at_step(step, loaders.images(step % BATCHES)) if expected is None else expected[step]
        for ours, other in zip(parts(batch), wanted, strict=True):
            assert ours.dtype == other.dtype
            assert ours.tobytes() == np.asarray(other).tobytes(), step


def run(name, **names):
    """What a line of the table makes of the names it uses."""
    line = LINES[name][1].replace("128", str(SIZE))
    names = {"kmix": kmix, "tf": tf, "numbering": kmix.data.Numbering(), "mixup": mixer(), **names}
    exec(line, names)
    return names["mixed"]


def in_tf_data():
    """The batches of a plain tf.data pipeline, as NumPy, and the same within rounding as NumPy's."""
    ds = tf.data.Dataset.from_tensor_slices((loaders.IMAGES, loaders.Y))
    batches = [to_numpy(batch) for batch in run("tf.data", ds=ds)]
    for step, batch in enumerate(batches):
        for ours, other in zip(batch, mixer().at_step(step, loaders.images(step)), strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-6)
    assert len(batches) == BATCHES
    return batches


def test_a_loop_over_numpy_batches():
    assert_same_bytes(run("NumPy, any iterable", batches=map(loaders.images, range(BATCHES))))


@pytest.mark.slow
@pytest.mark.alike
def test_tf_data_twice():
    """TensorFlow rounds a blend in its own way, and always in the same."""
    assert_same_bytes(in_tf_data(), expected=in_tf_data())


# Processes and threads.


def in_workers_of_grain(source):
    """A data set of Grain that two processes read."""
    import grain

    # Grain reads flags of absl, which a program with `absl.app` parses.
    pytest.importorskip("absl.flags").FLAGS.mark_as_parsed()
    return source.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=2))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=torch_workers)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_grain(workers):
    """An iterator whose state was saved goes on in the middle, bit for bit."""
    grain = pytest.importorskip("grain", reason="grain is not installed")
    source = run("Grain", grain_dataset=grain.MapDataset.source(loaders.Images()))
    if workers:
        source = in_workers_of_grain(source)
    batches = iter(source)
    taken = [next(batches) for _ in range(7)]
    state = batches.get_state()
    assert_same_bytes([*taken, *(next(batches) for _ in range(5))], range(12))
    resumed = iter(source)
    resumed.set_state(state)
    assert_same_bytes([next(resumed) for _ in range(5)], range(7, 12))


@pytest.mark.slow
@on_numpy
def test_grain_goes_on_with_another_number_of_processes():
    pytest.importorskip("grain", reason="grain is not installed")
    example = pathlib.Path(__file__).parent.parent / "examples" / "grain_elastic.py"
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    command = [sys.executable, str(example), "--trials", "2"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "Equal to the uninterrupted run: 2 of 2." in found.stdout, found.stderr


def torch_loader(dataset, workers, **names):
    data = pytest.importorskip("torch.utils.data")
    make = lambda *args, **kwargs: data.DataLoader(*args, **{**kwargs, "num_workers": workers})
    sampler = data.BatchSampler(data.SequentialSampler(dataset), SIZE, drop_last=True)
    return run("PyTorch `DataLoader`", DataLoader=make, dataset=dataset, sampler=sampler, **names)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=torch_workers)])
def test_pytorch(workers):
    assert_same_bytes(torch_loader(loaders.Images(), workers))


class Kept(keras.Model):
    """Keeps the batches that it is trained on."""

    def build(self, shape):
        self.kept = []

    def call(self, x):
        return x

    def train_step(self, data):
        self.kept.append(to_numpy(data[:2]))
        return {"loss": 0.0}


@pytest.mark.skipif(BACKEND == "jax", reason="its training step is a function without the model's state")
@pytest.mark.parametrize("processes", [None, False, pytest.param(True, marks=torch_workers)])
def test_py_dataset(processes):
    given = {} if processes is None else {"workers": 2, "use_multiprocessing": processes, "max_queue_size": 3}
    numbering = kmix.data.Numbering()
    train = run("`keras.utils.PyDataset`", py_dataset=loaders.ImageBatches(**given), numbering=numbering)
    assert_same_bytes([train[i] for i in range(BATCHES)])
    model = Kept()
    model.build((None, 8, 8, 3))
    model.compile(run_eagerly=True)
    model.fit(train, shuffle=False, callbacks=[numbering], verbose=0)
    assert_same_bytes(model.kept)


# Workers that train nothing.


def made_by(workers, numbers, killed_at=None):
    """The batches that worker processes make of these numbers, and how the processes ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kmix"])
    queue, made = context.SimpleQueue(), {}
    for number in [*numbers, *[None] * workers]:
        queue.put(number)
    pipes, processes = [], []
    for _ in range(workers):
        ours, theirs = context.Pipe(duplex=False)
        processes.append(context.Process(target=loaders.make_batches, args=(mixer(), queue, theirs, killed_at)))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    while pipes:
        for pipe in multiprocessing.connection.wait(pipes):
            try:
                number, batch = pipe.recv()
                made[number] = batch
            except EOFError:
                pipes.remove(pipe)
    for process in processes:
        process.join()
    return made, sorted(process.exitcode for process in processes)


@pytest.mark.slow
@pytest.mark.alike
def test_a_killed_worker_changes_nothing():
    numbers = range(3 * BATCHES)
    made, ends = made_by(2, numbers, killed_at=4)
    assert ends == [-signal.SIGKILL, 0]
    lost = set(numbers) - set(made)
    assert lost == {4}
    again, ends = made_by(1, lost)
    assert ends == [0]
    made.update(again)
    assert_same_bytes([made[number] for number in numbers], numbers)


@pytest.mark.slow
@torch_workers
def test_a_killed_worker_of_pytorch_is_heard_of_and_a_loop_goes_on(tmp_path):
    data, dataset = pytest.importorskip("torch.utils.data"), loaders.KillsOnce(3 * SIZE, tmp_path / "killed")
    loader, made = data.DataLoader(dataset, SIZE, num_workers=2, collate_fn=loaders.collate), []

    def go_on():
        # An epoch begins anew: leave out the batches that are there.
        rest = itertools.islice(loader, len(made), None)
        for step, batch in kmix.data.Numbering(start=len(made))(rest):
            made.append(mixer().at_step(step, batch))

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        go_on()
    go_on()
    assert_same_bytes(made)


@pytest.mark.slow
@torch_workers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_worker_of_grain_is_heard_of_and_a_saved_iterator_goes_on(tmp_path):
    grain = pytest.importorskip("grain", reason="grain is not installed")
    dataset = grain.MapDataset.source(loaders.KillsOnce(3 * SIZE, tmp_path / "killed"))
    source = in_workers_of_grain(run("Grain", grain_dataset=dataset))
    made, states = [], [iter(source).get_state()]

    def go_on():
        batches = iter(source)
        batches.set_state(states[-1])
        while len(made) < BATCHES:
            made.append(next(batches))
            states.append(batches.get_state())

    with pytest.raises(RuntimeError, match="terminated unexpectedly"):
        go_on()
    go_on()
    assert_same_bytes(made)


@pytest.mark.slow
@on_numpy
def test_workers_with_keras_on_numpy():
    layer, batch = mixer(), loaders.images(0)
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    found = subprocess.run(
        [sys.executable, "-c", loaders.ON_NUMPY],
        input=pickle.dumps((layer, batch)),
        stdout=subprocess.PIPE,
        check=True,
        env=environment,
    )
    ours = [layer.at_step(3, batch), mixer()(*batch), tuple(layer.plan(3, SIZE, spatial_shape=(8, 8)))]
    theirs = pickle.loads(found.stdout)
    keras.tree.assert_same_structure(theirs, ours)
    for one, other in zip(keras.tree.flatten(theirs), keras.tree.flatten(ours), strict=True):
        np.testing.assert_array_equal(one, other)


# Hugging Face `datasets`.


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """A data set from a local file."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the extra `neighbours` is not installed (make test-all does)")
    datasets.disable_progress_bars()
    columns = {"images": list(loaders.IMAGES), "labels": loaders.Y, "step": np.arange(len(loaders.Y)) // SIZE}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "data.parquet")
    return datasets.Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path))


def test_hugging_face_with_format(hugging_face):
    images = hugging_face.remove_columns("step")
    numbering = kmix.data.Numbering()
    epochs = [list(run("Hugging Face `datasets`", hf=images, numbering=numbering)) for _ in range(2)]
    assert_same_bytes(epochs[0] + epochs[1], range(2 * BATCHES))
    # Its columns are often called otherwise.
    other = images.rename_columns({"images": "image", "labels": "label"}).with_format("numpy")
    with pytest.raises(ValueError, match=r"images.*labels.*inputs_key"):
        mixer().at_step(0, next(other.iter(SIZE)))
    assert_same_bytes(
        mixer().at_step(step, (batch["image"], batch["label"])) for step, batch in enumerate(other.iter(SIZE))
    )
    named = mixer(num_classes=None, inputs_key="image", target={"label": kmix.targets.Labels(3)})
    by_name = (named.at_step(step, batch) for step, batch in enumerate(other.iter(SIZE)))
    assert_same_bytes((batch["image"], batch["label"]) for batch in by_name)


@pytest.mark.parametrize("in_place", [True, False], ids=["set_transform", "with_transform"])
def test_hugging_face_transforms(hugging_face, in_place):
    """A transform sees rows, not their numbers, so a column holds the number of the batch."""
    layer = mixer()

    def mix(rows):
        x, y = np.array(rows["images"], "float32"), np.array(rows["labels"])
        return dict(zip(("images", "labels"), layer.at_step(rows["step"][0], (x, y)), strict=True))

    if in_place:
        hugging_face.set_transform(mix)
    else:
        hugging_face = hugging_face.with_transform(mix)
    assert_same_bytes(hugging_face.iter(SIZE))
    assert_same_bytes(hugging_face[loaders.rows(step)] for step in range(BATCHES))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=torch_workers)])
def test_hugging_face_in_pytorch(hugging_face, workers):
    images = hugging_face.remove_columns("step").with_format("numpy")
    assert_same_bytes(torch_loader(images, workers))


def test_hugging_face_map(hugging_face):
    """Mixed once, and stored."""
    layer = mixer(target={"step": "keep"})
    mix = lambda batch, rows: layer.at_step(rows[0] // SIZE, batch)
    mapped = hugging_face.with_format("numpy").map(mix, batched=True, batch_size=SIZE, with_indices=True)
    assert_same_bytes(mapped.iter(SIZE))


# The tf.data service.


@pytest.fixture(scope="module")
def service():
    """A dispatcher and two workers."""
    made = tf.data.experimental.service
    dispatcher = made.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [made.WorkerServer(made.WorkerConfig(address, heartbeat_interval_ms=100)) for _ in range(2)]
    yield lambda mode="distributed_epoch": made.distribute(mode, dispatcher.target)
    del workers


def load(n):
    n %= BATCHES
    return tf.gather(loaders.IMAGES.reshape(BATCHES, SIZE, 8, 8, 3), n), tf.gather(loaders.Y.reshape(BATCHES, SIZE), n)


@pytest.mark.slow
@pytest.mark.alike
def test_tf_data_service(service):
    """The workers share the numbers of a range out among them, and send the batches in any order."""
    by_number = lambda n: (n, mixer_in_service.at_step(n, load(n)))
    mixer_in_service = mixer()
    served = {int(n): batch for n, batch in tf.data.Dataset.range(BATCHES).map(by_number).apply(service())}
    assert_same_bytes([served[step] for step in range(BATCHES)], expected=in_tf_data())
    lines = run("tf.data service", steps=BATCHES, load=load, distribute=service())
    known = {parts(batch)[0].tobytes() for batch in served.values()}
    assert {parts(batch)[0].tobytes() for batch in lines} == known
    assert len(known) == BATCHES


@pytest.mark.slow
@pytest.mark.alike
def test_what_does_not_number_the_batches_of_the_service(service):
    """Every worker would count its own batches."""
    ds = tf.data.Dataset.from_tensor_slices((loaders.IMAGES, loaders.Y)).batch(SIZE)
    numbers = [int(n) for n, _ in ds.enumerate().apply(service("parallel_epochs"))]
    assert sorted(numbers) == sorted(2 * [*range(BATCHES)])
    with pytest.raises(tf.errors.OpError, match="expected to contain"):
        list(kmix.data.Numbering()(ds).apply(service()))
    # What has arrived can be numbered, though in an order that is never the same.
    numbers = [int(n) for n, _ in kmix.data.Numbering()(ds.apply(service()))]
    assert numbers == [*range(len(numbers))]


# Ray.


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    data = importlib.import_module("ray.data")
    workers = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=workers)
        context = data.DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, True
    yield ray
    ray.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_ray(ray):
    def load(number):
        return dict(zip(("images", "labels"), loaders.images(number % BATCHES), strict=True))

    assert_same_bytes(run("Ray Data", ray=ray, steps=12, load=load).iter_rows(), range(12))
    layer = kmix.MixUp(0.5, num_classes=3)
    with pytest.raises(ray.exceptions.RayTaskError, match="worker process"):
        list(ray.data.range(1).map(lambda row: layer(load(row["id"]))).iter_rows())


def test_the_page_shows_the_lines_that_run():
    text = (pathlib.Path(__file__).parent.parent / "docs" / "guides" / "loaders.md").read_text()
    for name, (package, line) in LINES.items():
        assert f"| {name} | `{line.removeprefix('mixed = ')}` | {package} " in text


def table():
    """The table of loaders."""
    rows = ["| loader | one line of code | tested with |", "| --- | --- | --- |"]
    for name, (package, line) in LINES.items():
        version = importlib.metadata.version(package).split("+")[0]
        rows.append(f"| {name} | `{line.removeprefix('mixed = ')}` | {package} {version} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
