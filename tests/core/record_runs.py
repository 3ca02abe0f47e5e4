"""Record the runs that the doctor is tested on: ``python tests/core/record_runs.py [NAME...] [--seeds 0 1]``.

Each is a real training of a few seconds on one CPU core, sick on purpose in one way or in none. Logs are thinned and
rounded, and written to tests/core/recordings/NAME-SEED.jsonl. Thresholds of the doctor were chosen by seed 0 alone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import advloss

RUNS = Path(__file__).with_name("recordings")
LATENT = 16

# -- data ---------------------------------------------------------------------------------------------------------


def ring(batch: int) -> Iterator[tuple[Tensor, None]]:
    """Eight Gaussians on a circle."""
    while True:
        angles = torch.randint(8, (batch,)) * (math.pi / 4)
        yield torch.stack([2 * angles.cos(), 2 * angles.sin()], 1) + 0.02 * torch.randn(batch, 2), None


def line(batch: int) -> Iterator[tuple[Tensor, None]]:
    """One Gaussian in one dimension, far from where generators start."""
    while True:
        yield 4 + 0.5 * torch.randn(batch, 1), None


def digits(
    batch: int, *, size: int | None = None, classes: bool = False, raw: bool = False, square: bool = False
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """scikit-learn's digits in [-1, 1], or `raw` in [0, 16]: vectors `(batch, 64)`, or `square` images."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target)
    images = images if raw else images / 8 - 1
    images = images.unflatten(1, (1, 8, 8)) if square else images
    while True:
        chosen = torch.randint(size or len(images), (batch,))
        yield images[chosen], labels[chosen] if classes else None


# -- players ------------------------------------------------------------------------------------------------------


def dense(inputs: int, outputs: int, last: nn.Module | None = None, width: int = 64) -> nn.Sequential:
    hidden = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, outputs), last or nn.Identity())


class OfClass(nn.Module):
    """Digits of a class; `noise` scales what makes two of them differ."""

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        self.noise, self.embed = noise, nn.Embedding(10, LATENT)
        self.layers = dense(2 * LATENT, 64, nn.Tanh(), 128)

    def forward(self, latent: Tensor, classes: Tensor) -> Tensor:
        return self.layers(torch.cat([self.noise * latent, self.embed(classes)], 1))


class Shift(nn.Module):
    """Noise as wide as the data `line`, moved to where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, latent: Tensor) -> Tensor:
        return 0.5 * latent[:, :1] + self.shift


class Slope(nn.Module):
    """A slope and a bias: the discriminator of Dirac's GAN (Mescheder et al. 2018, arXiv:1801.04406, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Linear(1, 1)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.slope(samples).squeeze(1)


class BatchNormed(nn.Module):
    """Dense layers with batch norm, which see whether a batch is made of fakes."""

    def __init__(self, features: int, width: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (features, width, width):
            layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.layers(samples).squeeze(1)


class Overflowing(nn.Module):
    """Logits through an exponential in float16, which ends at 65,504."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = dense(2, 1)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return (4 * self.layers(samples)).half().exp().float().log().squeeze(1)


# -- games --------------------------------------------------------------------------------------------------------

Adam = functools.partial(torch.optim.Adam, betas=(0.0, 0.99))
SGD = torch.optim.SGD


def play(
    data: Iterator[tuple[Tensor, Tensor | None]],
    generator: nn.Module,
    discriminator: Any,
    loss: Any = "non-saturating",
    regularizers: Any = (),
    *,
    steps: int = 1500,
    discriminator_steps: int = 1,
    rates: tuple[float, float] = (1e-3, 1e-3),
    optimizer: Callable[..., Any] = Adam,
    pixel: float | None = None,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """A line of the log for each step; `rates` are the discriminator's and the generator's. With `pixel` the generator
    is an autoencoder, and that is the weight of its squared error."""
    adversary = advloss.Adversary(
        discriminator, loss, regularizers, optimizer=functools.partial(optimizer, lr=rates[0]), **options
    )
    own = optimizer(generator.parameters(), lr=rates[1])

    def make(real: Tensor, condition: Tensor | None) -> Tensor:
        if pixel is not None:
            return generator(real)
        latent = torch.randn(len(real), LATENT)
        return generator(latent) if condition is None else generator(latent, condition)

    for step in range(1, steps + 1):
        for _ in range(discriminator_steps):
            real, condition = next(data)
            with torch.no_grad():
                fake = make(real, condition)
            report = adversary.discriminator_step(real, fake, condition)
        real, condition = next(data)
        fake = make(real, condition)
        loss = adversary.generator_loss(fake, real, condition)
        if pixel is not None:
            loss = loss + pixel * (fake - real).square().mean()
        own.zero_grad()
        loss.backward()
        if all(bool(p.grad.isfinite().all()) for p in generator.parameters()):
            own.step()
        numbers = {f"discriminator/{name}": value for name, value in report.as_dict().items() if name != "step"}
        about = {**adversary.describe(), "discriminator_steps": discriminator_steps, "generator_lr": rates[1]}
        yield {
            "step": step,
            "generator/loss": float(loss.detach()),
            **numbers,
            **({"about": about} if step == 1 else {}),
        }


def mlp(features: int, width: int = 64, **options: Any) -> tuple[str, dict[str, Any]]:
    return "mlp", {"in_features": features, "width": width, **options}


def ring_gan(loss: Any = "non-saturating", regularizers: Any = (), **options: Any) -> Iterator[dict[str, Any]]:
    options = {"generator": dense(LATENT, 2), "discriminator": mlp(2), **options}
    return play(ring(128), loss=loss, regularizers=regularizers, **options)


def digit_gan(loss: Any = "non-saturating", regularizers: Any = (), **options: Any) -> Iterator[dict[str, Any]]:
    options = {
        "data": digits(64),
        "generator": dense(LATENT, 64, nn.Tanh(), 128),
        "discriminator": mlp(64, 128),
        **options,
    }
    return play(loss=loss, regularizers=regularizers, **options)


def zero_centred(weight: float) -> dict[str, dict[str, float]]:
    return {"r1": {"weight": weight}, "r2": {"weight": weight}}


def conditional(noise: float = 1.0, **options: Any) -> Iterator[dict[str, Any]]:
    return digit_gan(
        "non-saturating",
        zero_centred(0.1),
        data=digits(64, classes=True),
        generator=OfClass(noise),
        discriminator=mlp(64, 128, num_classes=10),
        **options,
    )


def autoencoder(**options: Any) -> Iterator[dict[str, Any]]:
    narrow = nn.Sequential(dense(64, 6, width=128), dense(6, 64, nn.Tanh(), 128))
    return digit_gan("hinge", {"lecam": {"weight": 0.1}}, generator=narrow, pixel=10.0, weight=0.1, **options)


HEALTHY: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "healthy-ring": lambda: ring_gan("relativistic", zero_centred(0.1)),
    "healthy-ring-hinge": lambda: ring_gan("hinge", zero_centred(0.1)),
    "healthy-digits": lambda: digit_gan("non-saturating", zero_centred(0.1)),
    "healthy-digits-average": lambda: digit_gan("relativistic-average", zero_centred(0.1)),
    "healthy-digits-least-squares": lambda: digit_gan("least-squares", zero_centred(0.1)),
    "healthy-digits-spectral": lambda: digit_gan(
        "hinge", discriminator=mlp(64, 128, norm="spectral"), rates=(4e-3, 1e-3)
    ),
    "healthy-digits-wgan-gp": lambda: digit_gan("wgan-gp", discriminator_steps=3, steps=1000),
    "healthy-digits-batch-norm": lambda: digit_gan(
        regularizers=zero_centred(0.1),
        generator=nn.Sequential(dense(LATENT, 64, nn.Tanh(), 128), nn.Unflatten(1, (1, 8, 8))),
        data=digits(64, square=True),
        discriminator=("patch", {"in_channels": 1, "width": 16, "depth": 1, "norm": "batch"}),
        steps=800,
    ),
    "healthy-classes": conditional,
    "healthy-autoencoder": autoencoder,
}

SICK: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "discriminator-too-strong": lambda: digit_gan(discriminator=mlp(64, 256), discriminator_steps=5, steps=600),
    "discriminator-too-weak": lambda: digit_gan(discriminator=mlp(64, 1, depth=1)),
    "mode-collapse": lambda: ring_gan("least-squares", zero_centred(0.1), steps=800),
    "collapse-within-class": lambda: conditional(noise=0.0, steps=800),
    "vanishing-gradient": lambda: play(
        line(64), dense(LATENT, 1), mlp(1), "saturating", discriminator_steps=5, steps=400
    ),
    "oscillation": lambda: play(line(64), Shift(), Slope(), "wasserstein", optimizer=SGD, rates=(0.05, 0.05)),
    "batch-norm-leakage": lambda: digit_gan(discriminator=BatchNormed(64), steps=800),
    "r1-too-strong": lambda: digit_gan(regularizers={"r1": {"weight": 1e4}}, steps=800),
    "r1-too-weak": lambda: digit_gan(
        regularizers={"r1": {"weight": 1e-5}}, discriminator=mlp(64, 256), discriminator_steps=5, steps=400
    ),
    "memorized": lambda: digit_gan(regularizers=zero_centred(0.003), data=digits(64, size=50), steps=1200),
    "range-mismatch": lambda: digit_gan(regularizers=zero_centred(0.1), data=digits(64, raw=True), steps=600),
    "exploding-logits": lambda: digit_gan("wasserstein", discriminator_steps=3, steps=500),
    "learning-rates": lambda: digit_gan(regularizers=zero_centred(0.01), rates=(1e-2, 1e-4)),
    "non-finite": lambda: play(
        ring(64), dense(LATENT, 2), Overflowing(), "wasserstein", rates=(1e-2, 1e-3), max_skipped=10**6, steps=600
    ),
}


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.3g}") if math.isfinite(value) else None
    return value


def record(name: str, seed: int) -> None:
    """Train, and keep one line in 15, every second one of those in which samples were measured, and all where batches
    were mixed."""
    torch.manual_seed(seed)
    start = time.process_time()
    kept, measured = [], 0
    for entry in {**HEALTHY, **SICK}[name]():
        measured += "discriminator/signals/spread" in entry
        chosen = "discriminator/signals/spread" in entry and measured % 2
        if chosen or entry["step"] % 15 == 1 or "discriminator/signals/mixed_accuracy" in entry:
            kept.append(json.dumps({key: rounded(value) for key, value in entry.items()}))
    RUNS.mkdir(exist_ok=True)
    (RUNS / f"{name}-{seed}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    print(f"{name}-{seed}: {len(kept)} lines, {time.process_time() - start:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name, seed in itertools.product(given.names or {**HEALTHY, **SICK}, given.seeds):
        record(name, seed)


if __name__ == "__main__":
    main()
