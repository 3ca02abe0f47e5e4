"""Pictures to watch a run by: the student in few steps beside its teacher, from the same noise for the same conditions."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._denoiser import sample
from advloss_distill._family import Family
from advloss_distill._latent_data import sample_latents
from advloss_distill._pipelines import check_sampling, check_vae, own_guidance
from advloss_distill._simulation import Conditions

SMALLEST, LARGEST = 96, 384  # pixels a side of an image in the picture


@final
class Validation:
    """Samples of a student in several numbers of steps, and the teacher's, which are made once.

    Torch's global random numbers are left as they are, and the pipeline on the device where it was.

    Args:
        family: calls the student.
        pipeline: the teacher's; its VAE decodes.
        condition: of the samples to draw `(N, ...)`.
        scheduler: that the student will be saved with.
        steps: of the student.
        teacher_steps, guidance_scale: of the teacher; above 1 its text encoders are asked for the empty prompt. None is the
            scale that the pipeline's call takes unasked.
        student_guidance: that a student of `Family.guided_student` is told.
        seed: of the noise.
        device: to sample on.

    Raises:
        OptionError: guidance needs a text encoder, or pictures a VAE, and there is none; scale or steps are out of range.
    """

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        condition: Conditions,
        scheduler: Any,
        *,
        steps: Sequence[int] = (1, 2, 4),
        teacher_steps: int = 28,
        guidance_scale: float | None = 1.0,
        student_guidance: float | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.family, self.pipeline, self.scheduler, self.steps = family, pipeline, scheduler, tuple(steps)
        self.device = torch.device(device)
        self.condition = {name: value.to(self.device) for name, value in condition.items()}
        self.count, self.seed = len(next(iter(condition.values()))), seed
        if student_guidance is not None:
            self.condition["guidance"] = torch.full((self.count,), student_guidance, device=self.device)
        scale, negative = guidance_of(family, pipeline, self.count, guidance_scale, teacher_steps)
        negative = {name: value.to(self.device) for name, value in negative.items()}
        alone = copy.copy(pipeline)  # text encoders, which can be larger than all else, stay where they are
        alone.register_modules(**{name: None for name in pipeline.components if name.startswith("text_encoder")})
        with torch.random.fork_rng(), _moved([family.network(pipeline), pipeline.vae], self.device):
            latents = sample_latents(
                family,
                alone,
                self.condition,
                negative,
                guidance_scale=scale,
                steps=teacher_steps,
                generator=self._generator(),
            )
            self.teacher = {_title("teacher", teacher_steps): self._decode(latents)}

    @torch.no_grad()
    def __call__(self, student: nn.Module) -> dict[str, Tensor]:
        """Images `(N, 3, H, W)` in [-1, 1] on the CPU, by title: the teacher's first."""
        made = dict(self.teacher)
        training = student.training
        student.eval()
        with torch.random.fork_rng(), _moved([student, self.pipeline.vae], self.device):
            for steps in self.steps:
                generator = self._generator()
                noise = torch.randn(self.count, *self.family.shape, generator=generator, device=self.device)
                latents = sample(student, self.family, self.scheduler, noise, self.condition, steps, generator)
                made[_title("student", steps)] = self._decode(latents)
        student.train(training)
        return made

    def save(self, path: File, student: nn.Module, *, trackers: Iterable[Any] = (), iteration: int = 0) -> None:
        """Write a picture with a row for each condition, and show it to the trackers that take images."""
        picture = _picture(self(student))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        try:
            picture.savefig(temporary, format="png")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for tracker in trackers:
            if hasattr(tracker, "log_images"):
                pixels = np.asarray(picture.canvas.buffer_rgba())[None, ..., :3]
                form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": pixels}, step=iteration, **form)

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.seed)

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        images = [self.family.to_images(vae, latent.to(next(vae.parameters()).dtype)) for latent in latents.split(1)]
        return torch.cat(images).float().clamp(-1, 1).cpu()


@torch.no_grad()
def guidance_of(
    family: Family, pipeline: Any, count: int, guidance_scale: float | None, steps: int
) -> tuple[float, dict[str, Any]]:
    """The teacher's scale, and what its pipeline is told beside `count` conditions, so that it can guide."""
    scale = own_guidance(pipeline) if guidance_scale is None else guidance_scale
    check_sampling(pipeline, scale, steps)
    vae = getattr(pipeline, "vae", None)
    check_vae(vae, family.name, "pictures are decoded by it: load it, too, or make none (--validate-every 0)")
    if scale <= 1:
        return scale, {}
    try:
        return scale, family.negative(pipeline, count)
    except OptionError as error:
        raise OptionError(
            f"{error}. It is for the teacher's pictures, with guidance_scale={scale:g}: take 1 "
            "(--validation-guidance 1), or no pictures (--validate-every 0)"
        ) from error


@contextmanager
def _moved(parts: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Networks on `device` inside; afterwards each is where it was."""
    homes = [next(part.parameters()).device for part in parts]
    try:
        for part in parts:
            part.to(device)
        yield
    finally:
        for part, home in zip(parts, homes, strict=True):
            part.to(home)


def _title(name: str, steps: int) -> str:
    return f"{name}, {steps} step{'s' * (steps > 1)}"


def _picture(images: Mapping[str, Tensor]) -> Any:
    """A matplotlib figure of images `(N, 3, H, W)` in [-1, 1]: a column for each title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, _, height, width = next(iter(images.values())).shape
    dpi, line = 100, 24
    cell = min(max(height, SMALLEST), LARGEST)
    size = len(images) * cell * width / height / dpi, (count * cell + line) / dpi
    figure = Figure(figsize=size, dpi=dpi)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.004, 0.004, 0.996, count * cell / (count * cell + line), 0.02, 0.02)
    axes = figure.subplots(count, len(images), squeeze=False)
    for column, (title, batch) in enumerate(images.items()):
        axes[0][column].set_title(title, fontsize=8)
        for row, image in enumerate(batch):
            axes[row][column].imshow((image.permute(1, 2, 0) / 2 + 0.5).numpy())
            axes[row][column].axis("off")
    return figure
