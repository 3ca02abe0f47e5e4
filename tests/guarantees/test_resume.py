"""Guarantee 4: a run that is interrupted and resumed is bit by bit the one that was not.

`pytest -m slow tests/guarantees/test_resume.py` is the full form: fifty interruptions of each script.
"""

from __future__ import annotations

import functools
import random
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.utils import set_seed
from catalogue import Combination, every_combination
from core_tools import assert_same, copied
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import advloss
from advloss import Checkpoints, EndlessBatches, RandomState, TrainingState

SHORT, FULL = 6, 50
MICRO = 10  # micro-batches of a run: two passes over the data; four turns to an optimizer step
cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=MICRO)


def interruptions(turns: int, count: int = FULL, short: int = SHORT) -> list[Any]:
    """Random places from 1 to `turns`, of which the first few belong to the short form."""
    places = [random.Random(n).randint(1, turns) for n in range(count)]
    return [pytest.param(p, id=f"{n}-{p}", marks=() if n < short else pytest.mark.slow) for n, p in enumerate(places)]


# Every combination of the catalogue, through `state_dict` and a file


@pytest.mark.parametrize("combination", every_combination())
def test_every_combination_goes_on(combination: Combination, tmp_path: Path) -> None:
    """Interrupted after one of the first four turns: the generator's and the discriminator's take turns."""

    def make(seed: int) -> advloss.Adversary:
        torch.manual_seed(seed)
        return combination.adversary(torch.float32, every=2, scheduler=cosine, seed=seed)

    def turn(adversary: advloss.Adversary, number: int) -> None:
        torch.manual_seed(100 + number // 2)
        real, fake = (combination.samples(dtype=torch.float32) for _ in range(2))
        condition = combination.condition()
        if number % 2 == 0:
            seen.append(adversary.generator_loss(fake, real, condition).detach())
        else:
            seen.append(adversary.discriminator_step(real, fake, condition).loss)

    seen: list[Tensor] = []
    straight, begun, resumed = make(0), make(0), make(1)
    for number in range(6):
        turn(straight, number)
    expected, seen = seen, []
    place = 1 + zlib.crc32(str(combination).encode()) % 4
    for number in range(place):
        turn(begun, number)
    advloss.save_state(begun.state_dict(), tmp_path / "adversary")
    resumed.load_state_dict(advloss.load_state(tmp_path / "adversary"))
    for number in range(place, 6):
        turn(resumed, number)
    assert_same(seen, expected)
    assert_same(resumed.state_dict(), straight.state_dict())


# A script of one's own


class Gradients:
    """What a model has gathered so far: neither an optimizer nor Accelerate saves it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def state_dict(self) -> dict[str, Tensor]:
        return {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.grad = state[name].clone() if name in state else None


class Generator(nn.Module):
    """Images from noise, with what a resumed run may forget: dropout and moving statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3))
        self.image = nn.Linear(16, 3 * 8 * 8)

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.image(self.body(latent))).view(-1, 3, 8, 8)


def adversary_of_everything(seed: int) -> advloss.Adversary:
    """Spectral norm, moving averages, lazy terms, random augmentations, a schedule."""
    return advloss.Adversary(
        ("patch", {"width": 4, "depth": 1, "norm": "spectral"}),
        "hinge",
        {"lecam": {}, "r1": {"every": 2}},
        {"diffaugment": {}, "instance-noise": {"decay_steps": 20}},
        scheduler=cosine,
        seed=seed,
    )


def data() -> TensorDataset:
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return TensorDataset(images)


def noise(count: int) -> Tensor:
    """From all three generators that scripts use."""
    latent = torch.randn(count, 4)
    return latent + float(np.random.rand()) + random.random()


class Run:
    """What both scripts are made of. A turn is half a micro-batch: the discriminator's, then the generator's."""

    def __init__(self, seed: int) -> None:
        set_seed(seed)
        self.model: Any = Generator()
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        self.optimizer: Any = torch.optim.Adam(self.model.parameters(), 1e-2)
        self.scheduler: Any = cosine(self.optimizer)
        self.adversary = adversary_of_everything(seed)
        self.turn = 0

    def everything(self) -> dict[str, Any]:
        parts = ("model", "average", "optimizer", "scheduler", "adversary")
        state = {name: getattr(self, name).state_dict() for name in parts}
        state["gradients"] = Gradients(self.model).state_dict()
        return copied({**state, "random": RandomState().state_dict(), "turn": self.turn})


class PlainScript(Run):
    """Accumulates by hand over two micro-batches; every turn reads a batch of its own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.batches = EndlessBatches(DataLoader(data(), batch_size=4, shuffle=True))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)
        self.adversary._update.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        parts.update(scheduler=self.scheduler, adversary=self.adversary)
        own = {"gradients": Gradients(self.model), "batches": self.batches}
        place = {"process_index": 0, "num_processes": 1, "device": torch.device("cpu")}
        self.state = TrainingState(parts, own, accelerator=SimpleNamespace(scaler=self.scaler, **place))

    def run(self, turns: int) -> PlainScript:
        while self.turn < turns:
            (real,) = next(self.batches)
            fake = self.model(noise(len(real)))
            if self.turn % 2 == 0:
                self.adversary.discriminator_step(real, fake)
            else:
                self.scaler.scale(self.adversary.generator_loss(fake, real) / 2).backward()
            if self.turn % 4 == 3:
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad()
                self.scheduler.step()
                self.average.update_parameters(self.model)
            self.turn += 1
        return self

    def everything(self) -> dict[str, Any]:
        more = {"batches": self.batches.state_dict(), "scaler": self.scaler.state_dict()}
        return {**super().everything(), **copied(more)}

    def save(self, folder: Path) -> None:
        with Checkpoints(folder).write(self.turn) as new:
            self.state.save(new, turn=self.turn)

    def load(self, folder: Path) -> PlainScript:
        self.turn = self.state.load(Checkpoints(folder).newest())["turn"]
        return self


class AccelerateScript(Run):
    """As scripts with Accelerate are: `accumulate`, a prepared loader, `save_state`; five micro-batches to a pass."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        seedable = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=5)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, dataloader_config=seedable)
        self.adversary.prepare(self.accelerator)
        self.model, self.optimizer, self.loader, self.scheduler = self.accelerator.prepare(
            self.model, self.optimizer, DataLoader(data(), batch_size=4, shuffle=True), self.scheduler
        )
        self.rest = TrainingState({"average": self.average}, {"gradients": Gradients(self.model)})
        self.resumed_from: Path | None = None

    def run(self, turns: int) -> AccelerateScript:
        while self.turn < turns:
            epoch, read = divmod(self.turn // 2, len(self.loader))
            for (real,) in self.positioned(epoch, read):
                self.micro_batch(real, turns)
                if self.turn >= turns:
                    break
        return self

    def positioned(self, epoch: int, read: int) -> Iterator[Any]:
        """The pass from its `read`-th batch on. Beginning it draws random numbers: where it had begun already, a resumed
        run puts them back.
        """
        loader = skip_first_batches(self.loader, read) if read else self.loader
        loader.set_epoch(epoch)  # accelerate 1.10: the shortened loader begins with the first pass again
        batches = iter(loader)
        first = next(batches)
        if self.resumed_from is not None and self.turn % (2 * len(self.loader)):
            self.rest.load(self.resumed_from)
        self.resumed_from = None
        yield first
        yield from batches

    def micro_batch(self, real: Tensor, turns: int) -> None:
        with self.accelerator.accumulate(self.model) if self.turn % 2 == 0 else self.same_micro_batch():
            if self.turn % 2 == 0:
                with torch.no_grad():
                    fake = self.model(noise(len(real)))
                self.adversary.discriminator_step(real, fake)
                self.turn += 1
            if self.turn < turns:
                fake = self.model(noise(len(real)))
                self.accelerator.backward(self.adversary.generator_loss(fake, real))
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()
                if self.accelerator.sync_gradients:
                    self.average.update_parameters(self.model)
                self.turn += 1

    def same_micro_batch(self) -> Any:
        """Resumed between the two players: Accelerate has counted this micro-batch already."""
        self.accelerator.step -= 1
        return self.accelerator.accumulate(self.model)

    def save(self, folder: Path) -> None:
        with Checkpoints(folder, accelerator=self.accelerator).write(self.turn) as new:
            self.accelerator.save_state(str(new))
            self.rest.save(new, turn=self.turn)

    def load(self, folder: Path) -> AccelerateScript:
        self.resumed_from = Checkpoints(folder, accelerator=self.accelerator).newest()
        self.accelerator.load_state(str(self.resumed_from))
        self.turn = self.rest.load(self.resumed_from)["turn"]
        return self


@functools.cache
def straight(script: Callable[[], Any]) -> dict[str, Any]:
    return script().run(2 * MICRO).everything()


def check_resumed(script: Callable[..., Any], place: int, folder: Path) -> None:
    begun = script().run(place)
    begun.save(folder)
    resumed = script(seed=7).load(folder)
    assert_same(resumed.everything(), begun.everything())
    assert_same(resumed.run(2 * MICRO).everything(), straight(script))


@pytest.mark.parametrize("place", interruptions(2 * MICRO - 1))
def test_a_script_of_its_own_goes_on(place: int, tmp_path: Path) -> None:
    check_resumed(PlainScript, place, tmp_path)


@pytest.mark.parametrize("place", interruptions(2 * MICRO - 1))
def test_a_script_with_accelerate_goes_on(place: int, make_accelerator: Any, tmp_path: Path) -> None:
    make_accelerator()
    check_resumed(AccelerateScript, place, tmp_path)


# The trainers of the integrations

STEPS = 12


def gan(folder: Path, seed: int = 0, resume: bool = False, interrupt: int = 0, kill: int = 0) -> None:
    """A training of `STEPS` steps, or until a signal or an error after a step; saved to `folder` every second one."""
    from advloss_gan import MLPGenerator, train_gan

    torch.manual_seed(seed)
    adversary = advloss.Adversary(
        ("mlp", {"width": 8, "norm": "spectral"}), "hinge", {"lecam": {}, "r1": {"every": 3}}, scheduler=cosine
    )
    generator = MLPGenerator(latent_features=2, width=8)
    torch.manual_seed(seed)
    points = torch.randn(28, 2, generator=torch.Generator().manual_seed(1))

    def on_step(step: int, averaged: nn.Module) -> None:
        if step == interrupt:
            signal.raise_signal(signal.SIGTERM)
        if step == kill:
            raise ZeroDivisionError

    result = train_gan(
        generator,
        adversary,
        DataLoader(points, batch_size=8, shuffle=True),
        latent_features=2,
        steps=STEPS,
        discriminator_steps=2,
        generator_scheduler=cosine,
        log=folder / "log",
        checkpoints=folder / "checkpoints",
        save_every=2,
        resume=resume,
        on_step=on_step,
    )
    assert result.exit_status == (143 if interrupt else 0)
    assert result.steps == (interrupt or STEPS)


def distillation(folder: Path, seed: int = 0, resume: bool = False, interrupt: int = 0, kill: int = 0) -> None:
    """The same with a student of few steps."""
    from distill_tools import tiny_distillation

    torch.manual_seed(seed)
    made = tiny_distillation(Accelerator(cpu=True), distillation_weight=0.5)
    with torch.no_grad():
        made.student.conv_in.bias.add_(seed)  # nothing of the right values is there but in the file
    set_seed(seed)
    if resume:
        made.load(folder / "checkpoints")
    with advloss.open_step_log(folder / "log", made.iteration) as log:

        def on_progress(progress: Any) -> None:
            log.write(f"{progress.as_dict()}\n")
            if progress.iteration == interrupt:
                signal.raise_signal(signal.SIGTERM)
            if progress.iteration == kill:
                raise ZeroDivisionError

        done = made.run(STEPS, on_progress, checkpoints=folder / "checkpoints", save_every=2)
    assert done == (not interrupt)
    assert made.exit_status == (143 if interrupt else 0)


def final(folder: Path) -> Any:
    """Everything that the last checkpoint holds, and the log."""
    newest = Checkpoints(folder / "checkpoints").newest()
    assert newest.name == f"step-{STEPS:08d}"
    states = [advloss.load_state(newest / f"{name}.safetensors") for name in ("state", "process_0")]
    return states, (folder / "log").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[..., None]], Any]:
    @functools.cache
    def run(trainer: Callable[..., None]) -> Any:
        folder = tmp_path_factory.mktemp("straight")
        trainer(folder)
        return final(folder)

    return run


@pytest.mark.parametrize("how", ["interrupt", "kill"])
@pytest.mark.parametrize("place", interruptions(STEPS - 3, count=25, short=2))
@pytest.mark.parametrize("trainer", [gan, distillation])
def test_a_trainer_goes_on(
    trainer: Callable[..., None],
    place: int,
    how: str,
    make_accelerator: Any,
    uninterrupted: Callable[[Callable[..., None]], Any],
    tmp_path: Path,
) -> None:
    """After SIGTERM from that very step; after an error, which saves nothing, from the last checkpoint before it."""
    make_accelerator()
    expected = uninterrupted(trainer)
    place += 2  # there is a checkpoint
    with pytest.raises(ZeroDivisionError) if how == "kill" else nullcontext():
        trainer(tmp_path, **{how: place})
    trainer(tmp_path, seed=5, resume=True)
    assert_same(final(tmp_path), expected)


class Rank:
    """What an adversary sees of an Accelerator in one of two processes, half-way through an accumulation."""

    num_processes = 1  # nothing is sent here
    gradient_accumulation_steps = 2
    sync_gradients = False
    mixed_precision = "no"
    device = torch.device("cpu")
    project_configuration = SimpleNamespace(save_on_each_node=False)

    def __init__(self, rank: int) -> None:
        self.process_index, self.is_main_process = rank, rank == 0
        self.register_save_state_pre_hook = lambda hook: setattr(self, "save", hook)
        self.register_load_state_pre_hook = lambda hook: setattr(self, "load", hook)
        self.adversary = adversary_of_everything(seed=0).prepare(self)

    def autocast(self) -> Any:
        return nullcontext()

    def gather_one(self) -> Rank:
        torch.manual_seed(self.process_index)
        self.adversary.discriminator_step(*(torch.rand(2, 4, 3, 8, 8) * 2 - 1))
        return self


def test_each_process_keeps_what_it_has_gathered(tmp_path: Path) -> None:
    """The mean over processes is taken with the step: until then they differ."""
    ranks = [Rank(number).gather_one() for number in range(2)]
    for rank in ranks:
        rank.save([], [], str(tmp_path))
    for rank in ranks:
        resumed = Rank(rank.process_index)
        resumed.load([], str(tmp_path))
        gathered, expected = (r.adversary.state_dict()["update"] for r in (resumed, rank))
        assert_same(gathered, expected)
        assert expected["count"] == 1
    assert not torch.equal(*(r.adversary.state_dict()["update"]["gradients"][0] for r in ranks))


def test_what_only_the_main_process_saved_is_not_half_of_a_step(tmp_path: Path) -> None:
    ranks = [Rank(number).gather_one() for number in range(2)]
    ranks[0].save([], [], str(tmp_path))
    Rank(0).load([], str(tmp_path))
    resumed = Rank(1)
    before = copied(resumed.adversary.state_dict())
    with pytest.raises(advloss.StateError, match="middle of an accumulation, and not in every process"):
        resumed.load([], str(tmp_path))
    assert_same(resumed.adversary.state_dict(), before)
    ranks[1].gather_one().save([], [], str(tmp_path))  # of another step
    with pytest.raises(advloss.StateError, match="of another step"):
        resumed.load([], str(tmp_path))
