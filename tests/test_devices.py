"""Training on many devices, in separate processes: the number of devices is fixed when a framework starts."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest
from helpers import free_address

pytestmark = pytest.mark.slow
BACKEND = keras.backend.backend()
HERE = pathlib.Path(__file__).parent

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute serves TensorFlow alone")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="torch.distributed serves PyTorch alone")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution serves JAX alone")


def start(file, devices=1, **environment):
    """Run the tests of a file in a process with that many CPU devices on JAX."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    cpu = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, **cpu, "KERAS_BACKEND": BACKEND, "XLA_FLAGS": flags, **environment}
    return subprocess.Popen(
        command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes):
    try:
        for process in processes:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output[-8000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@on_tensorflow
def test_mirrored_strategy():
    finish(start("on_mirrored.py"))


@on_jax
def test_keras_distribution():
    finish(start("on_shards.py", devices=4))


@on_jax
@pytest.mark.parametrize(("file", "devices"), [("on_processes.py", 2), ("on_auto_shards.py", 1)])
def test_two_processes(file, devices):
    settings = {"devices": devices, "KMIX_ADDRESS": free_address()}
    finish(*(start(file, KMIX_PROCESS=str(process), **settings) for process in range(2)))


@on_torch
def test_two_ranks():
    settings = {"KMIX_ADDRESS": free_address()}
    finish(*(start("on_ranks.py", KMIX_PROCESS=str(process), **settings) for process in range(2)))
