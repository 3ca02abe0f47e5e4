"""The trainer: it improves, it logs, it stops, it refuses."""

import _thread
import copy
import functools
import json
import signal
import threading
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from advloss import Adversary, InputError, NonFiniteError, OptionError
from advloss_gan import MLPGenerator, mode_metrics, new_file, ring, save_generator, save_picture, train_gan

adam = functools.partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def players(loss="relativistic"):
    generator = MLPGenerator(latent_features=4, width=32, depth=2)
    return generator, Adversary(("mlp", {"width": 32}), loss=loss, optimizer=adam, seed=0)


def play(generator, adversary, real=None, **changes):
    arguments = {"latent_features": 4, "steps": 3, "generator_optimizer": adam, **changes}
    return train_gan(generator, adversary, ring().batches(16) if real is None else real, **arguments)


def test_training_improves():
    """Points at the origin are spread over the ring within seconds."""
    generator, adversary = players()
    wide = ring(std=0.3)  # a goal for a few hundred steps
    before = mode_metrics(generator(torch.randn(1000, 4)), wide)
    result = play(generator, adversary, wide.batches(32), steps=250, ema_decay=0.98)
    after = mode_metrics(result.generator(torch.randn(1000, 4)), wide)
    assert (result.steps, result.interrupted) == (250, False)
    assert result.seconds > 0
    assert after.captured >= 7
    assert after.quality > before.quality + 0.3
    assert after.reverse_kl < 0.2


def test_counts_and_log(tmp_path):
    generator, adversary = players()
    seen = []
    log = tmp_path / "log.jsonl"
    play(generator, adversary, discriminator_steps=2, log=log, on_step=lambda step, averaged: seen.append(step))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert seen == [1, 2, 3] == [line["step"] for line in lines]
    assert adversary.step == 6
    assert {"generator/loss", "discriminator/loss", "discriminator/grad_norm"} <= lines[0].keys()
    assert [line.get("about", {}).get("discriminator_steps") for line in lines] == [2, None, None]


def test_every_report_is_heard():
    generator, adversary = players()
    reports = []
    play(generator, adversary, discriminator_steps=2, on_report=reports.append)
    assert [report.step for report in reports] == [0, 1, 2, 3, 4, 5]
    assert all(report.loss is not None for report in reports)


def test_steps_are_the_textbook_loop():
    """Two steps, draw for draw, beside a loop written out by hand."""
    generator, adversary = players("non-saturating")
    twin, judge = copy.deepcopy(generator), copy.deepcopy(adversary.discriminator)
    average = copy.deepcopy(generator)
    own, other = adam(twin.parameters()), adam(judge.parameters())
    batches = [ring().sample(8) for _ in range(4)]
    softplus = nn.functional.softplus

    torch.manual_seed(1)
    for step in range(2):
        with torch.no_grad():
            fake = twin(torch.randn(8, 4))
        other.zero_grad()
        (softplus(-judge(batches[2 * step])).mean() + softplus(judge(fake)).mean()).backward()
        other.step()
        own.zero_grad()
        softplus(-judge(twin(torch.randn(8, 4)))).mean().backward()
        own.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), twin.parameters()):
                mean.copy_(value if step == 0 else 0.9 * mean + 0.1 * value)

    torch.manual_seed(1)
    result = play(generator, adversary, batches, steps=2, ema_decay=0.9)
    for module, reference in ((generator, twin), (adversary.discriminator, judge), (result.generator, average)):
        for value, expected in zip(module.parameters(), reference.parameters()):
            torch.testing.assert_close(value, expected)


def test_average_is_the_generator_without_decay():
    generator, adversary = players()
    result = play(generator, adversary, ema_decay=0.0)
    for average, value in zip(result.generator.parameters(), generator.parameters()):
        assert torch.equal(average, value)
    assert result.generator is not generator
    assert not result.generator.training


def test_scheduler_steps_with_the_optimizer():
    generator, adversary = players()
    made = []

    def halve(optimizer):
        made.append(torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5))
        return made[0]

    play(generator, adversary, generator_scheduler=halve)
    assert made[0].get_last_lr() == [2e-3 / 8]


def test_nothing_moves_before_the_start_step():
    generator, adversary = players()
    adversary.start_step = adversary.discriminator_start_step = 2
    before = copy.deepcopy(generator.state_dict())
    moved = []

    def look(step, averaged):
        moved.append(any(not torch.equal(before[name], value) for name, value in generator.state_dict().items()))

    play(generator, adversary, on_step=look)
    assert moved == [False, True, True]  # the second discriminator step comes before the second generator step


def test_any_generator_and_a_data_loader():
    """A loader that is shorter than the training is read again."""
    generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    loader = DataLoader(
        TensorDataset(ring().sample(20)), batch_size=8, collate_fn=lambda rows: default_collate(rows)[0]
    )
    _, adversary = players()
    assert play(generator, adversary, loader, steps=4).steps == 4


def test_batches_that_end_are_an_error():
    generator, adversary = players()
    with pytest.raises(InputError, match="no more real batches"):
        play(generator, adversary, iter([ring().sample(8)] * 3))
    with pytest.raises(InputError, match="no more real batches"):
        play(generator, adversary, [])


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"steps": -1}, {"discriminator_steps": 0}, {"ema_decay": 1.0}, {"ema_decay": -0.1}]
)
def test_numbers_that_cannot_be_right(changes):
    generator, adversary = players()
    before = copy.deepcopy(generator.state_dict())
    with pytest.raises(OptionError, match=next(iter(changes))):
        play(generator, adversary, **changes)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_generator_size_that_cannot_be_right():
    with pytest.raises(OptionError, match="width"):
        MLPGenerator(width=0)


def test_interrupt_ends_after_a_whole_step():
    generator, adversary = players()
    handler = signal.getsignal(signal.SIGINT)
    result = play(generator, adversary, steps=50, on_step=lambda step, _: step == 2 and _thread.interrupt_main())
    assert (result.steps, result.interrupted) == (2, True)
    assert adversary.step == 2
    assert signal.getsignal(signal.SIGINT) is handler


def test_second_interrupt_is_not_held_back():
    generator, adversary = players()

    def twice(step, averaged):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        play(generator, adversary, on_step=twice)


def test_trains_in_another_thread():
    generator, adversary = players()
    results = []
    thread = threading.Thread(target=lambda: results.append(play(generator, adversary)))
    thread.start()
    thread.join()
    assert results[0].steps == 3


def test_saved_generator_is_read_back(tmp_path):
    generator, other = MLPGenerator(width=8), MLPGenerator(width=8)
    save_generator(generator, tmp_path / "generator.safetensors")
    load_model(other, tmp_path / "generator.safetensors")
    latent = torch.randn(3, 16)
    assert torch.equal(generator(latent), other(latent))
    assert [file.name for file in tmp_path.iterdir()] == ["generator.safetensors"]
    (tmp_path / "as usual").touch()
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(path) as temporary:
        temporary.write_text("half") / 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_picture_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    save_picture(tmp_path / "ring.png", ring(), {"step 1": torch.randn(50, 2)})
    assert (tmp_path / "ring.png").read_bytes().startswith(b"\x89PNG")


def sicken(adversary, monkeypatch, ill):
    """Its verdict for the generator is NaN on these calls."""
    own, calls = adversary.generator_loss, iter(range(1, 1000))
    factors = lambda: float("nan") if ill(next(calls)) else 1.0  # noqa: E731
    monkeypatch.setattr(adversary, "generator_loss", lambda *samples: own(*samples) * factors())


def test_a_bad_step_of_the_generator_is_skipped(monkeypatch):
    generator, adversary = players()
    seen = []
    sicken(adversary, monkeypatch, lambda call: call == 3)
    play(generator, adversary, steps=5, on_step=lambda *_: seen.append(copy.deepcopy(generator.state_dict())))
    assert [all(torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(seen)] == [False, True, False, False]


def test_a_generator_that_stays_bad_ends_the_run_and_keeps_the_good_checkpoint(monkeypatch, tmp_path):
    generator, adversary = players()
    sicken(adversary, monkeypatch, lambda call: call > 2)
    with pytest.raises(NonFiniteError, match=r"11 MLPGenerator's steps in a row were skipped; not finite: loss"):
        play(generator, adversary, steps=40, checkpoints=tmp_path, save_every=1)
    assert all(p.isfinite().all() for p in generator.parameters())
    again, adversary = players()
    assert play(again, adversary, steps=14, checkpoints=tmp_path, resume=True).steps == 14
