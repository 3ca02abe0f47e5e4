"""What a network's output means: prediction types and noise levels, read from a diffusers scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from advloss import OptionError

NO_SIGNAL = 1e-3  # of alpha
NEXT_TO_NONE = 2**-24  # of alpha^2: Euler's and DPM-Solver's for the 0 of zero terminal SNR, where others have 0
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class Diffusion:
    """Noisy samples ``x_t = alpha_t x_0 + sigma_t noise``, and the way back from a network's output.

    Attributes:
        alpha, sigma: `(T,)`, indexed by the timestep that the network is given.
        prediction: what the network predicts: the noise (``"epsilon"``), ``alpha noise - sigma x_0``
            (``"v_prediction"``), ``x_0`` (``"sample"``), or ``noise - x_0`` (``"flow"``).
    """

    alpha: Tensor
    sigma: Tensor
    prediction: Prediction

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise OptionError(f"prediction={self.prediction!r}: there are {', '.join(get_args(Prediction))}")
        if self.prediction == "epsilon" and bool((self.alpha < NO_SIGNAL).any()):
            raise OptionError(
                "a network that predicts noise says nothing where alpha is 0 (zero terminal SNR): train it with "
                "prediction_type='v_prediction', or leave the scheduler's betas as they are"
            )

    @classmethod
    def from_scheduler(cls, scheduler: Any) -> Diffusion:
        """The noise levels and prediction type of a diffusers scheduler.

        Raises:
            OptionError: the scheduler has neither `alphas_cumprod` nor flow-matching `sigmas`.
        """
        levels, prediction = scheduler.config.num_train_timesteps, scheduler.config.get("prediction_type")
        if "FlowMatch" in type(scheduler).__name__ or prediction == "flow_prediction":
            sigma = torch.arange(1, levels + 1, dtype=torch.float64) / levels
            sigma = torch.cat([sigma.new_zeros(1), sigma]).float()  # timestep t in [0, T] is sigma = t / T
            return cls(1 - sigma, sigma, "flow")
        if hasattr(scheduler, "alphas_cumprod"):
            signal = scheduler.alphas_cumprod.double().clone()
            signal[-1] = signal[-1].where(signal[-1] > NEXT_TO_NONE, 0)
            alpha, sigma = signal.sqrt().float(), (1 - signal).sqrt().float()
            return cls(alpha, sigma, cast(Prediction, prediction))
        raise OptionError(
            f"{type(scheduler).__name__} has neither alphas_cumprod nor flow-matching sigmas. A network trained on other noise "
            "levels (EDM's) cannot be distilled here; of any other, load the scheduler that it came with"
        )

    def words(self) -> str:
        """What it predicts, the number of timesteps, and sigma at some of them: in three digits, the same on every machine."""
        levels = self.sigma[:: max(1, len(self.sigma) // 8)].tolist()
        return f"{self.prediction}, {len(self.sigma)}, {' '.join(f'{level:.3g}' for level in levels)}"

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t`` of samples `(N, ...)` at timesteps `(N,)`."""
        return self.at(self.alpha, timesteps, x0) * x0 + self.at(self.sigma, timesteps, x0) * noise

    def to_x0(self, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """``x_0`` that the network's `output` for `noisy` at `timesteps` stands for."""
        return self.read_as(self.prediction, output, noisy, timesteps)

    def read_as(self, prediction: Prediction, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """``x_0`` that `output` would stand for if the network predicted this."""
        alpha, sigma = self.at(self.alpha, timesteps, noisy), self.at(self.sigma, timesteps, noisy)
        if prediction == "sample":
            return output
        if prediction == "v_prediction":
            return alpha * noisy - sigma * output
        if prediction == "flow":
            return noisy - sigma * output
        return (noisy - sigma * output) / alpha

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The output that a network trained on `x0` and `noise` at `timesteps` should give."""
        if self.prediction == "sample":
            return x0
        if self.prediction == "v_prediction":
            return self.at(self.alpha, timesteps, x0) * noise - self.at(self.sigma, timesteps, x0) * x0
        return noise - x0 if self.prediction == "flow" else noise

    def at(self, levels: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
        """`levels` (alpha or sigma) at timesteps `(N,)`, shaped to multiply samples like `like`.

        Timesteps between two whole ones, as flow-matching samplers have them, lie on the line between their levels.
        """
        levels, timesteps = levels.to(like.device), timesteps.to(like.device)
        below = timesteps.long()
        values = levels[below]
        if timesteps.is_floating_point():
            above = levels[(below + 1).clamp(max=len(levels) - 1)]
            values = values + (timesteps - below).to(values.dtype) * (above - values)
        values = values.to(like.dtype)
        return values.view(-1, *[1] * (like.ndim - 1))
