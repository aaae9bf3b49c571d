"""Two processes on PyTorch, each with its rows of the batch. test_devices.py runs it twice, once as each process."""

import os

import numpy as np
import pytest
import steps

import kmix

N = 8
RANK = int(os.environ.get("KMIX_PROCESS", "0"))


@pytest.fixture(scope="module", autouse=True)
def ranks():
    import torch

    torch.distributed.init_process_group("gloo", f"tcp://{os.environ['KMIX_ADDRESS']}", rank=RANK, world_size=2)
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def mine(array):
    return np.split(array, 2)[RANK]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras, which `pytest.warns` gives again
def test_processes_that_know_nothing_of_each_other_are_warned_of(monkeypatch):
    import torch

    x, y, w = steps.batch(N)
    monkeypatch.setenv("WORLD_SIZE", "2")
    steps.fit(steps.trainer_of("mixer"), x, y, w, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: False)
        with pytest.warns(UserWarning, match=r"`WORLD_SIZE` is 2.*init_process_group"):
            steps.fit(steps.trainer_of("mixer"), x, y, w, steps=1)


def average_gradients(model):
    import torch

    def averaged(parameter):
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= 2

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(averaged)


@pytest.mark.parametrize("way", steps.WAYS)
def test_ranks_train_on_one_global_batch(way):
    x, y, w = steps.batch(N)
    trainer = steps.trainer_of(way, within=4)
    average_gradients(trainer.model)
    expected = steps.weights_of(trainer)
    steps.fit(trainer, mine(x), mine(y), mine(w))
    for number in range(4):
        expected, _ = steps.step(way, expected, x, y, w, trainer.plan(number, N))
    steps.assert_close(steps.weights_of(trainer), expected)


def test_each_rank_has_a_plan_of_its_own_without_groups():
    x, y, w = steps.batch(N)
    trainer = steps.trainer_of("mixer")
    expected = steps.weights_of(trainer)
    steps.fit(trainer, mine(x), mine(y), mine(w), steps=1)
    plan = trainer.plan(0, N // 2, replica=RANK)
    assert RANK == 0 or not np.array_equal(plan.lam, trainer.plan(0, N // 2).lam)
    expected, _ = steps.step("mixer", expected, mine(x), mine(y), mine(w), plan)
    steps.assert_close(steps.weights_of(trainer), expected)


def test_processes_that_draw_different_plans_stop():
    x, y, w = steps.batch(N)
    watch = kmix.callbacks.Fingerprint(N)
    alike = steps.trainer_of("mixer", within=4)
    different = steps.compiled(kmix.MixTrainer(alike.model, kmix.MixUp(0.7, seed=RANK), within=4))
    logs = steps.fit(alike, mine(x), mine(y), mine(w), steps=2, callbacks=[watch])
    assert logs["fingerprint"] == [alike.fingerprint(step, N) for step in range(2)]
    with pytest.raises(ValueError, match=r"at step 0 in process 0, .* at step 0 in process 1"):
        steps.fit(different, mine(x), mine(y), mine(w), callbacks=[watch])
