"""Latent consistency models (arXiv:2310.04378), with and without an adversary."""

from __future__ import annotations

from collections.abc import Sequence

from advloss import Adversary, OptionError
from advloss_distill._any_timestep import AnyTimestep
from advloss_distill._consistency import Consistency
from advloss_distill.methods._ladd import teacher_adversary
from advloss_distill.methods._setup import Method, Setup


def lcm(
    setup: Setup,
    *,
    guidance: Sequence[float] = (1.0,),
    skip: int = 20,
    delta: float = 1e-3,
    distillation_weight: float = 1.0,
) -> Method:
    """Consistency distillation alone.

    Args:
        guidance: of the teacher, one scale that is built into the student, or the least and the greatest of a range that the
            student is told (w-conditioned: its pipeline then takes `guidance_scale`).
        skip: timesteps of one solver's step.
        delta: of the pseudo-Huber distance.
    """
    return _lcm(setup, guidance, skip, delta, distillation_weight, None, 0.0)


def lcm_ladd(
    setup: Setup,
    *,
    guidance: Sequence[float] = (1.0,),
    skip: int = 20,
    delta: float = 1e-3,
    distillation_weight: float = 1.0,
    adversary_weight: float = 0.5,
    renoise: Sequence[float] = (1.0, 1.0),
    blocks: Sequence[int] | None = None,
    misaligned: float = 0.0,
    r1_method: str = "finite-difference",
    r1_weight: float = 1e-5,
) -> Method:
    """The same with LADD's adversary on the student's answers, as SANA-Sprint adds it to its consistency loss.

    Args:
        adversary_weight: of the student's adversarial loss; 0.5 beside SANA-Sprint's sCM (arXiv:2503.09641).
        renoise, blocks, misaligned: as in `ladd`.
    """
    adversary = teacher_adversary(
        setup, renoise, blocks, r1_method, r1_weight, adversary_weight, num_steps=AnyTimestep.num_steps
    )
    return _lcm(setup, guidance, skip, delta, distillation_weight, adversary, misaligned)


def _lcm(
    setup: Setup,
    guidance: Sequence[float],
    skip: int,
    delta: float,
    distillation_weight: float,
    adversary: Adversary | None,
    misaligned: float,
) -> Method:
    told = len(guidance) == 2
    if len(guidance) not in (1, 2):
        raise OptionError(f"guidance={tuple(guidance)}: give one scale, or the least and the greatest of a range")
    if told and setup.lora:
        raise OptionError("an adapter has no input for a guidance scale: give one scale, or train all weights")
    student = setup.family.guided_student(setup.teacher) if told else setup.student()
    return Method(
        student=student,
        adversary=adversary,
        simulation=AnyTimestep(
            setup.family.diffusion,
            setup.batch_size,
            setup.data,
            own=bool(setup.backward_simulation),
            guidance=(guidance[0], guidance[1]) if told else None,
        ),
        term=Consistency(setup.family, setup.teacher, guidance=setup.guidance(max(guidance)), skip=skip, delta=delta),
        distillation_weight=distillation_weight,
        further={"misaligned": misaligned},
    )
