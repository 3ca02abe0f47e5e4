"""What pictures are made for, by options of a command line."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from advloss_distill._captioned import read_prompts
from advloss_distill._family import Family
from advloss_distill._latent_data import encode_prompts
from advloss_distill._simulation import Conditions, Data
from advloss_distill._validation import guidance_of


@torch.no_grad()
def pictured(family: Family, pipeline: Any, data: Data, options: argparse.Namespace) -> Conditions | None:
    """What a command line has pictures made for, prompts or some of the data; None where it has none made.

    Torch's global random numbers are left as they are.
    """
    if not 0 < options.validate_every <= options.iterations:
        return None
    if options.validation_prompts:
        return encode_prompts(family, pipeline, read_prompts(options.validation_prompts))
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        return data.conditions(options.pictures)


def check_validation(family: Family, pipeline: Any, data: Data, options: argparse.Namespace) -> None:
    """Raise an error where `pictured` or a `Validation` would; the teacher is not asked for its pictures."""
    if pictured(family, pipeline, data, options) is not None:
        guidance_of(family, pipeline, 1, options.validation_guidance, options.teacher_steps)
