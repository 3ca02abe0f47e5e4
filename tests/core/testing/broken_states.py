"""Discriminators that keep, move or set what they should not: one for each check that catches it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from broken_discriminators import Good
from torch import Tensor, nn
from torch.nn.functional import dropout


class Forgets(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shift = float(torch.randn(()))

    def answer(self, logits: Tensor) -> Tensor:
        return logits + self.shift


class Shares(Good):
    def __deepcopy__(self, memo: Any) -> Shares:
        return self


class Counts(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("count", torch.zeros(()))

    def look(self, samples: Tensor) -> Tensor:
        self.count += 1
        return super().look(samples)


class Drops(Good):
    def features(self, hidden: Tensor) -> Tensor:
        return super().features(dropout(hidden, 0.5, training=True))


class WritesInput(Good):
    def look(self, samples: Tensor) -> Tensor:
        with torch.no_grad():
            samples.clamp_(-0.5, 0.5)
        return super().look(samples)


class Seeds(Good):
    def look(self, samples: Tensor) -> Tensor:
        torch.manual_seed(3)
        return super().look(samples)


class PythonRandom(Good):
    def look(self, samples: Tensor) -> Tensor:
        random.random()
        return super().look(samples)


class Threads(Good):
    def look(self, samples: Tensor) -> Tensor:
        torch.set_num_threads(2)
        return super().look(samples)


class SeedsWeights(Good):
    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        super().__init__(**options)


class NumpyWeights(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        np.random.seed(0)


class Remembers(Good):
    def answer(self, logits: Tensor) -> Tensor:
        self.last_logits = logits
        return logits


class ShrinksWeights(Good):
    def look(self, samples: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.first.weight.mul_(0.9)
        return super().look(samples)


class TurnsToEval(Good):
    def look(self, samples: Tensor) -> Tensor:
        self.eval()
        return super().look(samples)


class TurnsToTrain(Good):
    def look(self, samples: Tensor) -> Tensor:
        self.first.train()
        return super().look(samples)


class Freezes(Good):
    def look(self, samples: Tensor) -> Tensor:
        self.first.weight.requires_grad_(False)
        return super().look(samples)


class DrawsInEval(Good):
    def look(self, samples: Tensor) -> Tensor:
        torch.rand(1)
        return super().look(samples)


class NumpyRandom(Good):
    def look(self, samples: Tensor) -> Tensor:
        np.random.seed(0)
        return super().look(samples)


class Leaks(Good):
    """Sets what it can, and fails at something else."""

    def answer(self, logits: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        random.seed(0)
        np.random.seed(0)
        return logits / 0


def sets(setting: str) -> type[Good]:
    """One that sets something for the whole process."""

    class Sets(Good):
        def look(self, samples: Tensor) -> Tensor:
            SETTINGS[setting]()
            return super().look(samples)

    return type(setting, (Sets,), {})


def _benchmark() -> None:
    torch.backends.cudnn.benchmark = True


SETTINGS: dict[str, Any] = {
    "GradMode": lambda: torch.set_grad_enabled(False),
    "Deterministic": lambda: torch.use_deterministic_algorithms(True),
    "Precision": lambda: torch.set_float32_matmul_precision("medium"),
    "DefaultDtype": lambda: torch.set_default_dtype(torch.float64),
    "DefaultDevice": lambda: torch.set_default_device("cpu"),
    "Anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "Benchmark": _benchmark,
}


class Renews(Good):
    def __deepcopy__(self, memo: Any) -> Renews:
        return type(self)(num_classes=self.num_classes)


BROKEN: list[tuple[str, type[nn.Module], dict[str, Any]]] = [
    ("building", SeedsWeights, {}),
    ("building", NumpyWeights, {}),
    ("saved-state", Forgets, {}),
    ("deep-copy", Shares, {}),
    ("deep-copy", Remembers, {}),
    ("modes", Counts, {}),
    ("modes", Drops, {}),
    ("modes", ShrinksWeights, {}),
    ("modes", TurnsToEval, {}),
    ("modes", TurnsToTrain, {}),
    ("modes", Freezes, {}),
    ("global-state", WritesInput, {}),
    ("global-state", Seeds, {}),
    ("global-state", DrawsInEval, {}),
    ("global-state", PythonRandom, {}),
    ("global-state", NumpyRandom, {}),
    ("global-state", Threads, {}),
    *(("global-state", sets(setting), {}) for setting in SETTINGS),
    ("deep-copy", Renews, {}),
    ("training", PythonRandom, {}),
]
