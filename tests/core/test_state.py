"""State: everything that the next step depends on, and nothing that does not fit."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from core_tools import assert_same, copied, differences, images, patch, snapshot
from torch import Tensor, nn

import advloss
from advloss import load_state, save_state

COSINE = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=10)


def make(seed: int = 0, **options: Any) -> advloss.Adversary:
    """Spectral norm, batch norm's kin, moving averages, moments, random augmentations, a schedule."""
    torch.manual_seed(seed)
    arguments = {
        "discriminator": patch(norm="spectral"),
        "loss": "wgan-gp",
        "regularizers": {"lecam": {}, "r1": {"every": 4}},
        "augmentations": {"diffaugment": {}, "instance-noise": {"decay_steps": 20}},
        "scheduler": COSINE,
    }
    return advloss.Adversary(**{**arguments, **options})


def train(adversary: advloss.Adversary, steps: range) -> list[Tensor]:
    seen = []
    for step in steps:
        torch.manual_seed(1000 + step)
        real, fake = images(), images()
        seen.append(adversary.generator_loss(fake, real))
        seen.append(adversary.discriminator_step(real, fake).loss)
    return seen


@pytest.fixture
def trained() -> advloss.Adversary:
    adversary = make()
    train(adversary, range(3))
    return adversary


@pytest.mark.parametrize("form", ["plain", "file"])
def test_resumed_training_is_bitwise_the_same(form: str, tmp_path: Path) -> None:
    straight, first, second = make(), make(), make(seed=7)
    expected = train(straight, range(6))
    begun = train(first, range(3))
    state = copied(first.state_dict())
    if form == "file":
        save_state(first.state_dict(), tmp_path / "adversary.safetensors")
        state = load_state(tmp_path / "adversary.safetensors")
        assert_same(state, copied(first.state_dict()))
    second.load_state_dict(state)
    assert_same([*begun, *train(second, range(3, 6))], expected)
    assert_same(second.state_dict(), straight.state_dict())


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        functools.partial(torch.optim.RMSprop, lr=1e-3),
        functools.partial(torch.optim.AdamW, lr=1e-3, amsgrad=True),
    ],
)
@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
        functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[2, 4]),
        functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=9, cycle_momentum=False),
    ],
)
def test_optimizers_and_schedulers_resume_from_a_file(optimizer: Any, scheduler: Any, tmp_path: Path) -> None:
    straight, first, second = (make(optimizer=optimizer, scheduler=scheduler, loss="hinge") for _ in range(3))
    train(straight, range(6))
    train(first, range(3))
    save_state(first.state_dict(), tmp_path / "a")
    second.load_state_dict(load_state(tmp_path / "a"))
    train(second, range(3, 6))
    assert_same(second.state_dict(), straight.state_dict())


def test_the_first_state_loads_too(tmp_path: Path) -> None:
    """Before the first step there are no moments."""
    first, second = make(), make(seed=3)
    save_state(first.state_dict(), tmp_path / "a")
    train(second, range(2))
    second.load_state_dict(load_state(tmp_path / "a"))
    assert_same(train(second, range(2)), train(first, range(2)))


def test_moving_averages_are_in_the_state(trained: advloss.Adversary) -> None:
    averages = trained.state_dict()["regularizers"]["lecam"]
    assert set(averages) == {"ema_real", "ema_fake"}
    assert all(float(average) != 0 for average in averages.values())


def test_any_whole_number_is_a_seed(tmp_path: Path) -> None:
    for seed in (-1, 2**70, np.int64(3)):
        first, second = make(), make()
        one = advloss.Adversary(first.discriminator, augmentations="diffaugment", seed=seed)
        other = advloss.Adversary(second.discriminator, augmentations="diffaugment", seed=0)
        save_state(one.state_dict(), tmp_path / "a")
        other.load_state_dict(load_state(tmp_path / "a"))
        fake = images()
        assert torch.equal(one.generator_loss(fake), other.generator_loss(fake))


def refused(adversary: advloss.Adversary, state: Any, message: str | None = None) -> None:
    before = snapshot(adversary)
    with pytest.raises(advloss.StateError, match=message):
        adversary.load_state_dict(state)
    assert_same(snapshot(adversary), before, but=("/discriminator/versions",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator": patch(norm="none")}, "discriminator: only one of the two has"),
        ({"discriminator": patch(norm="spectral", width=8)}, r"is \(4,\) here, \(8,\) in the state"),
        ({"regularizers": {}}, "regularizers: only one of the two has lecam"),
        ({"augmentations": {}}, "augmentations: only one of the two has"),
        ({"scheduler": None}, "scheduler"),
        ({"optimizer": lambda p: torch.optim.Adam([{"params": [q]} for q in p])}, "parameter groups differ"),
        ({"optimizer": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, "another optimizer.*momentum"),
    ],
)
def test_state_of_an_adversary_built_otherwise(
    trained: advloss.Adversary, options: dict[str, Any], message: str
) -> None:
    other = make(**options)
    train(other, range(1))
    refused(trained, copied(other.state_dict()), message)


def edit(state: Any, path: str, value: Any) -> Any:
    *way, last = path.split("/")
    for part in way:
        state = state[int(part) if part.isdigit() else part]
    key = int(last) if last.isdigit() else last
    if value is KeyError:
        del state[key]
    else:
        state[key] = value(state[key]) if callable(value) else value
    return state


WEIGHT, EMA = "discriminator/layers.0.bias", "regularizers/lecam/ema_real"
MOMENT = "update/optimizer/state/0/exp_avg"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (WEIGHT, lambda t: t * torch.nan),
        (WEIGHT, lambda t: t / 0),
        (WEIGHT, 3.0),
        (WEIGHT, lambda t: t.long()),
        (EMA, lambda t: t * torch.nan),
        (MOMENT, lambda t: t * torch.nan),
        (MOMENT, lambda t: t[:1]),
        (MOMENT, 0.0),
        (MOMENT, KeyError),
        ("update/optimizer/param_groups", KeyError),
        ("update/optimizer", KeyError),
        ("update/optimizer", None),
        ("update/gradients", lambda gradients: {0: torch.zeros(3)}),
        ("update/gradients", None),
        ("update/buffers", lambda buffers: {"discriminator.strange": torch.zeros(3)}),
        ("update/count", 2),
        ("update/count", "two"),
        ("update/finite", KeyError),
        ("counters/step", KeyError),
        ("counters/step", "3"),
        ("counters/step", -1),
        ("counters/step", 1.5),
        ("counters/seed", None),
        ("counters", None),
        ("counters/generator", KeyError),
        ("scheduler", None),
        ("scheduler", 3),
        ("discriminator", KeyError),
        ("discriminator", []),
        ("regularizers/lecam", KeyError),
        ("regularizers", None),
        ("surplus", 1),
    ],
)
def test_state_that_is_not_right_is_refused_whole(trained: advloss.Adversary, path: str, value: Any) -> None:
    state = copied(trained.state_dict())
    torch.manual_seed(5)
    train(trained, range(3, 5))
    edit(state, path, value)
    refused(trained, state)
    assert not trained.discriminator_step(images(), images()).skipped


GROUP = "update/optimizer/param_groups/0"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (MOMENT, lambda t: torch.zeros(1, dtype=t.dtype)),
        (MOMENT, lambda t: torch.zeros((), dtype=t.dtype)),
        ("update/optimizer/state/0/step", lambda t: t.expand(3).clone()),
        (MOMENT, KeyError),
        (f"{GROUP}/lr", KeyError),
        (f"{GROUP}/lr", "x"),
        (f"{GROUP}/lr", None),
        (f"{GROUP}/lr", float("inf")),
        (f"{GROUP}/betas", (0.9,)),
        (f"{GROUP}/betas", ("x", 0.9)),
        (f"{GROUP}/params", lambda places: places[::-1]),
    ],
)
def test_a_fresh_adversary_takes_no_optimizer_that_could_not_step(
    trained: advloss.Adversary, path: str, value: Any
) -> None:
    """A resume begins without moments of its own; a fused optimizer reads what memory follows one that is too small."""
    state = copied(trained.state_dict())
    assert state["update"]["optimizer"]["param_groups"][0]["fused"]
    edit(state, path, value)
    refused(make(), state)


def test_flags_of_a_later_torch_may_be_missing(trained: advloss.Adversary) -> None:
    state = copied(trained.state_dict())
    edit(state, f"{GROUP}/decoupled_weight_decay", KeyError)
    fresh = make(seed=4)
    fresh.load_state_dict(state)
    assert_same(train(fresh, range(3, 5)), train(trained, range(3, 5)))


@pytest.mark.parametrize("state", [None, 3, [], {}, {"discriminator": {}}])
def test_what_is_no_state_is_refused(trained: advloss.Adversary, state: Any) -> None:
    refused(trained, state)


# -- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(trained: advloss.Adversary, tmp_path: Path) -> Path:
    path = tmp_path / "adversary.safetensors"
    save_state(trained.state_dict(), path)
    return path


def test_file_is_safetensors_with_json_and_nothing_else(file: Path) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"]["format"] == "advloss-state-1"
    assert json.loads(header["__metadata__"]["tree"])
    assert [p.name for p in file.parent.iterdir()] == [file.name]  # no temporary file stays


def test_missing_file(trained: advloss.Adversary, tmp_path: Path) -> None:
    with pytest.raises(advloss.StateError, match="missing"):
        load_state(tmp_path / "nothing")
    with pytest.raises(advloss.StateError, match="missing"):
        load_state(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_file(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(advloss.StateError):
        load_state(file)


def test_flipped_bit_anywhere_is_seen(file: Path) -> None:
    """A weight that is another number, a step that is another step: both would train on in silence."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = range(8, 8 + length, max(1, length // 150))
    data = range(8 + length, len(content), max(1, (len(content) - length) // 150))
    for place in (0, 3, 7, *header, *data, len(content) - 1):
        for bit in (0, 6):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(advloss.StateError):
                load_state(file)


def test_other_safetensors_are_no_state(file: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, file)
    with pytest.raises(advloss.StateError, match="format"):
        load_state(file)


def test_failed_save_leaves_the_file_that_was_there(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(advloss.StateError, match="/bad is a set"):
        save_state({"bad": {1, 2}}, file)
    with pytest.raises(advloss.StateError, match="keys"):
        save_state({(1, 2): 3}, file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_kinds_of_values_survive(tmp_path: Path) -> None:
    shared = torch.rand(4, 4, dtype=torch.float64)
    state = {
        "numbers": [1, 2.5, float("inf"), True, None, "text", 2**70],
        "tuple": (1, (2.0, "x")),
        "keys": {0: "int", "0": "string"},
        "tensors": {"transposed": shared.t(), "shared": shared, "row": shared[1], "half": torch.ones(2).bfloat16()},
        "whole": {"int": torch.arange(3), "bool": torch.tensor(True), "empty": torch.zeros(0, 3)},
        "nothing": {},
    }
    save_state(state, tmp_path / "a")
    assert_same(load_state(tmp_path / "a"), state)


def test_state_is_a_view_of_the_present_and_a_copy_once_saved(
    trained: advloss.Adversary, tmp_path: Path, make_accelerator: Callable[..., Any]
) -> None:
    state = copied(trained.state_dict())
    save_state(trained.state_dict(), tmp_path / "a")
    train(trained, range(3, 5))
    assert_same(load_state(tmp_path / "a"), state)


def test_state_in_the_middle_of_an_accumulation(make_accelerator: Callable[..., Any], tmp_path: Path) -> None:
    """Gradients, buffers and the count of an unfinished step are carried."""
    accelerator = make_accelerator(gradient_accumulation_steps=3)
    model = accelerator.prepare(torch.nn.Linear(1, 1))
    straight = make().prepare(accelerator)
    resumed: advloss.Adversary | None = None
    for micro in range(6):
        torch.manual_seed(micro)
        real, fake = images(), images()
        with accelerator.accumulate(model):
            straight.discriminator_step(real, fake)
            if resumed is not None:
                resumed.discriminator_step(real, fake)
        if micro == 1:
            state = copy.deepcopy(straight.state_dict())
            assert state["update"]["count"] == 2
            save_state(state, tmp_path / "a")
            resumed = make(seed=9).prepare(accelerator)
            resumed.load_state_dict(load_state(tmp_path / "a"))
    assert resumed is not None
    assert straight.step == 2
    assert_same(resumed.state_dict(), straight.state_dict())


def test_one_state_is_taken_up_twice_alike() -> None:
    """The first run must not go on in the tensors of the state itself."""
    adversary = advloss.Adversary(patch(), "hinge", seed=0)
    adversary.discriminator_step(images(), images())
    state, ended = copy.deepcopy(adversary.state_dict()), []
    for _ in range(2):
        adversary.load_state_dict(state)
        torch.manual_seed(4)
        for _ in range(3):
            adversary.discriminator_step(images(), images())
        ended.append(copied(adversary.state_dict()))
    assert_same(*ended)


@pytest.mark.parametrize(
    "state", [{"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}}, {1: torch.ones(1), "1": torch.zeros(1)}]
)
def test_tensors_of_one_name_are_refused(state: Any, tmp_path: Path) -> None:
    with pytest.raises(advloss.StateError, match="two tensors of the state are called"):
        advloss.save_state(state, tmp_path / "state")


class Masked(nn.Module):
    """A mask of attention, and a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def get_extra_state(self) -> Any:
        return {"version": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 3}

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.layers(samples) + self.mask.exp().sum()


def test_a_mask_of_infinity_and_a_state_that_is_no_tensor_come_back(tmp_path: Path) -> None:
    adversary = advloss.Adversary(Masked().double(), "hinge", seed=0)
    model = Masked()
    state = advloss.TrainingState({"adversary": adversary, "model": model})
    adversary.discriminator_step(images(), images())
    state.save(tmp_path, step=1)
    other = advloss.Adversary(Masked().double(), "hinge", seed=1)
    advloss.TrainingState({"adversary": other, "model": Masked()}).load(str(tmp_path))
    assert_same(other.state_dict(), adversary.state_dict())
    with torch.no_grad():
        model.mask[0] = -torch.inf
    with pytest.raises(advloss.NonFiniteError, match="mask"):
        state.save(tmp_path, step=2)


@pytest.mark.parametrize(
    ("shared", "own"),
    [({"random": 1}, {}), ({}, {"random": 1}), ({"model": 1}, {"model": 2})],
)
def test_parts_of_one_name_are_refused(shared: Any, own: Any) -> None:
    with pytest.raises(advloss.OptionError, match="twice, or as parts are"):
        advloss.TrainingState(shared, own)


def test_every_process_gets_back_what_it_had_gathered(tmp_path: Path) -> None:
    def process(rank: int) -> tuple[Any, Any]:
        adversary = advloss.Adversary(patch(), "hinge", seed=0)
        adversary._runtime.sync, adversary._runtime.accumulation_steps = False, 2
        place = SimpleNamespace(process_index=rank, num_processes=2, device=torch.device("cpu"), scaler=None)
        return adversary, advloss.TrainingState({"adversary": adversary}, accelerator=place)

    torch.manual_seed(3)
    before = [process(rank) for rank in range(2)]
    for rank, (adversary, state) in enumerate(before):
        torch.manual_seed(rank)
        adversary.discriminator_step(images(), images())
        state.save(tmp_path, step=1)
    assert differences(before[0][0].state_dict()["update"], before[1][0].state_dict()["update"])
    torch.manual_seed(3)
    for rank in range(2):
        adversary, state = process(rank)
        state.load(tmp_path)
        assert_same(adversary.state_dict()["update"], before[rank][0].state_dict()["update"])


def test_a_scaler_that_is_prepared_after_loading_goes_on() -> None:
    adversary = advloss.Adversary(patch(), "hinge", seed=0)
    state = {**adversary.state_dict()}
    saved = torch.amp.GradScaler("cpu", init_scale=256.0).state_dict()
    state["update"] = {**state["update"], "scaler": saved}
    adversary.load_state_dict(state)
    assert adversary.state_dict()["update"]["scaler"] == saved
    adversary._update.use_scaler(torch.amp.GradScaler("cpu"))
    assert adversary.state_dict()["update"]["scaler"] == saved
