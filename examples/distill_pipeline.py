"""Distil a diffusers pipeline (Stable Diffusion 1.x, 2.x, XL, 3, Flux, PixArt-Sigma, Sana, DiT) to 1-4 steps.

First compute latents and embeddings once, of images with captions or of the teacher's own making; then train:

    python examples/distill_pipeline.py cache --teacher NAME --images FOLDER --data data.safetensors
    python examples/distill_pipeline.py cache --teacher NAME --prompts prompts.txt --data data.safetensors
    accelerate launch examples/distill_pipeline.py train --teacher NAME --data data.safetensors --lora 64
    accelerate launch examples/distill_pipeline.py train --teacher NAME --data data.safetensors --method dmd2 --guidance 8
    python examples/distill_pipeline.py train --teacher NAME --data data.safetensors --dry-run     # how much memory?

NAME is a pipeline on the hub or a folder. FOLDER has images and beside each `name.jpg` its caption `name.txt`. What comes
out (--out) is a folder that plain diffusers opens:

    DiffusionPipeline.from_pretrained(out)(prompt, num_inference_steps=1, guidance_scale=0)
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import advloss
from advloss_distill import (
    Card,
    Distillation,
    Family,
    LatentData,
    Progress,
    check_room,
    encode,
    estimate_memory,
    family_of,
    load_pipeline,
    sampling_paths,
    save_adapter,
    save_pipeline,
    student_scheduler,
    teacher_made,
)
from advloss_distill.methods import Setup, add_method_options, build_method, method_options

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
SHOWN = {"distillation_loss", "discriminator/real_accuracy"}
CURVES = (
    *("generator_loss", "distillation_loss"),
    *("discriminator/loss", "discriminator/real_accuracy", "discriminator/fake_accuracy"),
)


def main() -> int:
    options = parse()
    pipeline = load_pipeline(options.teacher, revision=options.revision)
    family = family_of(pipeline, resolution=options.resolution)
    if options.command == "cache":
        return cache(family, pipeline, options)
    if options.dry_run:
        return dry_run(family, pipeline, options)
    return train(family, pipeline, options)


def cache(family: Family, pipeline, options: argparse.Namespace) -> int:
    """Latents and embeddings, so that training needs neither VAE nor text encoder on the device."""
    set_seed(options.seed)
    pipeline.to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    if options.images:
        data = encode(family, pipeline, captioned(options.images, family.resolution), options.batch_size)
    else:
        prompts = [line.strip() for line in options.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
        guidance = {"guidance_scale": options.guidance, "steps": options.teacher_steps}
        data = teacher_made(family, pipeline, prompts, batch_size=options.batch_size, **guidance)
    data.save(options.data)
    print(f"{len(data)} samples are in {options.data}")
    return 0


def captioned(folder: Path, side: int) -> Iterator[tuple[Tensor, str]]:
    """Images `(3, side, side)` in [-1, 1], cut to a square, with their captions."""
    processor = VaeImageProcessor(vae_scale_factor=1)
    for path in tqdm(sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES), file=sys.stdout):
        caption = path.with_suffix(".txt")
        if not caption.exists():
            raise advloss.InputError(f"{path} has no caption: write one to {caption}")
        image = Image.open(path).convert("RGB")
        cut = min(image.size)
        left, top = (image.width - cut) // 2, (image.height - cut) // 2
        image = image.crop((left, top, left + cut, top + cut)).resize((side, side), Image.Resampling.LANCZOS)
        yield processor.preprocess(image)[0], caption.read_text(encoding="utf-8").strip()


def train(family: Family, pipeline, options: argparse.Namespace) -> int:
    """By the method of --method; what each computes is in docs/pipelines.md."""
    accelerator = Accelerator(
        cpu=options.cpu,
        mixed_precision=options.mixed_precision,
        gradient_accumulation_steps=options.accumulate,
    )
    set_seed(options.seed, device_specific=True)
    data = LatentData.load(options.data, family, pipeline.vae).to(accelerator.device)
    network = family.network(pipeline)
    scheduler = student_scheduler(family, max(options.steps))
    paths = sampling_paths(scheduler, options.steps)
    network.to(accelerator.device)
    setup = Setup(
        family=family,
        pipeline=pipeline,
        data=data,
        example={name: value[:1] for name, value in data.told.items()},
        paths=paths,
        batch_size=options.batch_size,
        lora=options.lora,
        optimizer=functools.partial(torch.optim.AdamW, lr=options.discriminator_lr, betas=(0.0, 0.99)),
        backward_simulation=options.backward_simulation,
    )
    method = build_method(options.method, setup, **method_options(options))
    student = method.student
    if options.half_teacher:
        network.to(torch.bfloat16)
    check_room(options.out, student, copies=6)  # two checkpoints of weights, moments and average; then the outcome
    if options.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    distillation = Distillation(
        family,
        network,
        data=data,
        optimizer=optimizer_of(options)(trained, lr=options.lr, betas=(0.0, 0.99), weight_decay=0.0),
        accelerator=accelerator,
        ema_decay=options.ema,
        **method.arguments(),
    )
    if options.resume:
        distillation.load(options.out / "checkpoints")
    if not run(distillation, options):
        accelerator.print(f"stopped after iteration {distillation.iteration}; go on with --resume")
        return distillation.exit_status
    if accelerator.is_main_process:
        save = save_adapter if options.lora and options.adapter else save_pipeline
        outcome = options.out / "student"
        save(outcome, distillation.averaged_student().cpu(), family, pipeline, scheduler, paths, card(options))
        print(f"the student is in {outcome}")
    accelerator.end_training()
    return 0


def optimizer_of(options: argparse.Namespace) -> type[torch.optim.Optimizer]:
    """AdamW, or bitsandbytes' with moments of 8 bits."""
    if not options.adam_8bit:
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise advloss.PluginError("--adam-8bit needs bitsandbytes: pip install bitsandbytes") from error
    return AdamW8bit


def run(distillation: Distillation, options: argparse.Namespace) -> bool:
    """Distil, with a progress bar and a log line for every iteration. Returns False after Ctrl-C or SIGTERM."""
    main_process = distillation.accelerator.is_main_process
    options.out.mkdir(parents=True, exist_ok=True)
    log_file = (
        advloss.open_step_log(options.out / "log.jsonl", distillation.iteration) if main_process else nullcontext()
    )
    bar = tqdm(total=options.iterations, initial=distillation.iteration, disable=not main_process, file=sys.stdout)
    with log_file as log, bar:

        def on_progress(progress: Progress) -> None:
            if log is not None:
                numbers = progress.as_dict()
                log.write(json.dumps(numbers) + "\n")
                bar.update()
                bar.set_postfix(
                    {name.split("/")[-1]: f"{numbers[name]:.2f}" for name in SHOWN & numbers.keys()}, refresh=False
                )

        return distillation.run(
            options.iterations, on_progress, checkpoints=options.out / "checkpoints", save_every=options.save_every
        )


def card(options: argparse.Namespace) -> Card:
    """What a reader of the model has to know."""
    lines = [json.loads(line) for line in (options.out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return Card(
        teacher=options.teacher,
        data=options.data_words or f"`{options.data.name}`",
        settings={
            name: value for name, value in vars(options).items() if name not in ("command", "teacher", "data_words")
        },
        guidance_scale=sum(options.guidance) / 2 if options.guidance and len(options.guidance) == 2 else 0,
        curves={name: [line[name] for line in lines] for name in CURVES if all(name in line for line in lines)},
    )


def dry_run(family: Family, pipeline, options: argparse.Namespace) -> int:
    """What the chosen settings need, computed with tensors that have no memory."""
    estimate = estimate_memory(
        family,
        family.network(pipeline),
        batch_size=options.batch_size,
        lora=options.lora,
        gradient_checkpointing=options.gradient_checkpointing,
        half_activations=options.mixed_precision in ("bf16", "fp16"),
        half_teacher=options.half_teacher,
        bytes_a_moment=1 if options.adam_8bit else 4,
    )
    print(estimate.table())
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--teacher", required=True, help="a pipeline on the hub, or a folder")
    both.add_argument("--revision", help="of the teacher on the hub")
    both.add_argument("--data", type=Path, required=True, help="file of latents and embeddings")
    both.add_argument("--resolution", type=int, help="side of the images (default: the teacher's)")
    both.add_argument("--batch-size", type=int, default=16, help="a process (default: %(default)s)")
    both.add_argument("--seed", type=int, default=0)
    making = commands.add_parser("cache", parents=[both], help="compute latents and embeddings")
    source = making.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder of images with captions")
    source.add_argument("--prompts", type=Path, help="file with a prompt a line; the teacher makes the images")
    making.add_argument("--guidance", type=float, default=7.5, help="of the teacher (default: %(default)s)")
    making.add_argument("--teacher-steps", type=int, default=28, help="of the teacher (default: %(default)s)")
    making.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    training = commands.add_parser("train", parents=[both], help="distil")
    training.add_argument("--out", type=Path, default=Path("runs/pipeline"), help="folder (default: %(default)s)")
    training.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4], help="of sampling (default: 1 2 4)")
    training.add_argument("--iterations", type=int, default=5000)
    training.add_argument("--lora", type=int, default=0, metavar="RANK", help="train an adapter of this rank")
    training.add_argument("--adapter", action="store_true", help="save the adapter alone, not merged")
    training.add_argument("--lr", type=float, default=1e-5, help="of the student (default: %(default)s)")
    training.add_argument("--discriminator-lr", type=float, default=1e-4, help="(default: %(default)s)")
    training.add_argument(
        "--backward-simulation", action=argparse.BooleanOptionalAction, help="train on its own samples"
    )
    add_method_options(training)
    training.add_argument("--ema", type=float, default=0.995)
    training.add_argument("--accumulate", type=int, default=1, metavar="BATCHES")
    training.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"))
    training.add_argument("--half-teacher", action="store_true", help="keep the teacher in bfloat16")
    training.add_argument("--gradient-checkpointing", action="store_true", help="of the student")
    training.add_argument("--adam-8bit", action="store_true", help="needs bitsandbytes")
    training.add_argument("--data-words", help="what the model card says about the data")
    training.add_argument("--save-every", type=int, default=500, help="iterations between checkpoints")
    training.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    training.add_argument("--cpu", action="store_true", help="do not use an accelerator")
    training.add_argument("--dry-run", action="store_true", help="print how much memory it takes, and stop")
    options = parser.parse_args()
    for name in ("batch_size", "iterations", "accumulate", "save_every", "teacher_steps"):
        if getattr(options, name, 1) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (advloss.AdvlossError, OSError) as error:
        sys.exit(f"distill_pipeline.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
