"""Distil a diffusers pipeline (Stable Diffusion 1.x, 2.x, XL, 3, Flux, PixArt-Sigma, Sana, DiT) to 1-4 steps.

First compute latents and embeddings once, of images with captions or of the teacher's own making; then train:

    python examples/distill_pipeline.py cache --teacher NAME --images FOLDER --data data.safetensors
    python examples/distill_pipeline.py cache --teacher NAME --dataset NAME --caption-column text --data data.safetensors
    python examples/distill_pipeline.py cache --teacher NAME --shards 'data/*.tar' --data data.safetensors
    python examples/distill_pipeline.py cache --teacher NAME --prompts prompts.txt --data data.safetensors
    accelerate launch examples/distill_pipeline.py train --teacher NAME --data data.safetensors --lora 64
    accelerate launch examples/distill_pipeline.py train --teacher NAME --data data.safetensors --method dmd2 --guidance 8
    python examples/distill_pipeline.py train --teacher NAME --data data.safetensors --dry-run     # how much memory?

NAME is a pipeline on the hub or a folder. FOLDER has images and beside each `name.jpg` its caption `name.txt`. What is too
much for one file is encoded while training: give `train` the images in place of --data. What comes out (--out) is a folder
that plain diffusers opens:

    DiffusionPipeline.from_pretrained(out)(prompt, num_inference_steps=1, guidance_scale=0)
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

import advloss
from advloss_distill import (
    Card,
    Distillation,
    EncodedImages,
    Family,
    LatentData,
    Progress,
    Validation,
    add_sources,
    captioned,
    check_adapter,
    check_disk,
    check_file,
    check_precision,
    check_prediction,
    check_settings,
    check_sources,
    check_validation,
    create_repository,
    encode,
    encode_prompts,
    estimate_memory,
    family_of,
    load_pipeline,
    optimizer_of,
    pictured,
    push_folder,
    read_curves,
    read_prompts,
    sampling_paths,
    save_adapter,
    save_pipeline,
    shard_teacher,
    stand_in,
    student_scheduler,
    teacher_made,
    trackers,
    without_memory,
)
from advloss_distill.methods import (
    Method,
    Setup,
    add_method_options,
    build_method,
    memory_options,
    method_options,
    natural,
    positive,
    seed,
    told_scale,
    used_settings,
)

SHOWN = {"distillation_loss", "discriminator/real_accuracy"}
MAY_CHANGE = {  # when a run is resumed: how long, where, and how it is watched
    *("command", "iterations", "resume", "dry_run", "out", "save_every", "cpu", "adapter"),
    *("push_to_hub", "private", "licence"),
    *("teacher", "revision", "data", "images", "dataset", "shards", "data_words", "tracker", "pictures"),
    *("teacher_steps", "validate_every", "validation_prompts", "validation_guidance"),
    *("gradient_checkpointing", "shard_teacher"),
}


def main() -> int:
    options = parse()
    pipeline = load_pipeline(options.teacher, revision=options.revision)
    family = family_of(pipeline, resolution=options.resolution, undistilled=options.undistilled)
    if options.command == "cache":
        return cache(family, pipeline, options)
    return (dry_run if options.dry_run else train)(family, pipeline, options)


def cache(family: Family, pipeline, options: argparse.Namespace) -> int:
    """Latents and embeddings, so that training needs neither VAE nor text encoder on the device."""
    set_seed(options.seed)
    pipeline.to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    if options.prompts:
        prompts = read_prompts(options.prompts)
        check_file(options.data, family, encode_prompts(family, pipeline, prompts[:1]), len(prompts))
        asked = {"guidance_scale": options.guidance, "steps": options.teacher_steps, "batch_size": options.batch_size}
        data = teacher_made(family, pipeline, prompts, **asked)
    else:
        images = captioned(options, family.resolution)
        check_file(options.data, family, EncodedImages(family, pipeline, images).told, len(images))
        data = encode(family, pipeline, tqdm(images, file=sys.stdout), options.batch_size)
        print(images.account() or "every image could be read")
    data.save(options.data)
    print(f"{len(data)} samples are in {options.data}")
    return 0


def training_data(family: Family, pipeline, options: argparse.Namespace, device: torch.device):
    """What was computed before, or images that are encoded when they are drawn."""
    if options.data:
        return LatentData.load(options.data, family, pipeline.vae).to(device)
    return EncodedImages(family, pipeline.to(device), captioned(options, family.resolution))


def validation_of(family: Family, pipeline, data, options: argparse.Namespace, accelerator: Accelerator):
    """Pictures, in one process."""
    if not accelerator.is_main_process or (told := pictured(family, pipeline, data, options)) is None:
        return None
    return Validation(
        family,
        pipeline,
        told,
        student_scheduler(family, max(options.steps)),
        steps=options.steps,
        teacher_steps=options.teacher_steps,
        guidance_scale=options.validation_guidance,
        student_guidance=told_scale(options),
        seed=options.seed,
        device=accelerator.device,
    )


def accelerator_of(family: Family, pipeline, options: argparse.Namespace) -> Accelerator:
    """By the options and by `accelerate launch`; the options then say what precision that is. What cannot be is refused."""
    accelerator = Accelerator(
        cpu=options.cpu,
        mixed_precision=options.mixed_precision,
        gradient_accumulation_steps=options.accumulate,
        log_with=None if options.tracker == "none" else options.tracker,
        project_dir=options.out,
    )
    options.mixed_precision = accelerator.mixed_precision
    check_precision(accelerator, family)
    optimizer_of(options.optimizer)
    if options.adapter:
        check_adapter(pipeline)
    return accelerator


def method_of(family: Family, pipeline, data, paths, options: argparse.Namespace) -> Method:
    """The method, built; what does not fit is refused."""
    setup = Setup(
        family=family,
        pipeline=pipeline,
        data=data,
        example=data.conditions(1),
        paths=paths,
        batch_size=options.batch_size,
        lora=options.lora,
        optimizer=functools.partial(torch.optim.AdamW, lr=options.discriminator_lr, betas=(0.0, 0.99)),
        backward_simulation=options.backward_simulation,
    )
    return build_method(options.method, setup, **method_options(options))


def train(family: Family, pipeline, options: argparse.Namespace) -> int:
    """By the method of --method; what each computes is in docs/pipelines.md."""
    accelerator = accelerator_of(family, pipeline, options)
    if options.push_to_hub and accelerator.is_main_process:
        options.push_to_hub = create_repository(options.push_to_hub, private=options.private)
    set_seed(options.seed, device_specific=True)
    data = training_data(family, pipeline, options, accelerator.device)
    validation = validation_of(family, pipeline, data, options, accelerator)
    network = family.network(pipeline)
    scheduler = student_scheduler(family, max(options.steps))
    paths = sampling_paths(scheduler, options.steps)
    network.to(accelerator.device)
    check_prediction(family, network, data)
    method = method_of(family, pipeline, data, paths, options)
    student = method.student
    if options.half_teacher:
        network.to(torch.bfloat16)
    if options.shard_teacher:
        shard_teacher(family, network.requires_grad_(False))
    if options.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    distillation = Distillation(
        family,
        network,
        data=data,
        optimizer=optimizer_of(options.optimizer)(trained, lr=options.lr, betas=(0.0, 0.99), weight_decay=0.0),
        accelerator=accelerator,
        ema_decay=options.ema,
        **method.arguments(),
    )
    check_disk(options.out, distillation, pipeline)
    settings = {name: value for name, value in vars(options).items() if name not in MAY_CHANGE}
    distillation.begin(options.out / "checkpoints", resume=options.resume, settings=settings)
    if not run(distillation, options, validation):
        accelerator.print(f"stopped after iteration {distillation.iteration}; go on with --resume")
        accelerator.end_training()
        return distillation.exit_status
    student = distillation.averaged_student()  # in every process: where it is sharded, each has a part
    if accelerator.is_main_process:
        save = save_adapter if options.adapter else save_pipeline
        outcome = options.out / "student"
        save(outcome, student.cpu(), family, pipeline, scheduler, paths, card(options))
        print(f"the student is in {outcome}")
        if options.push_to_hub:
            print(f"it is shared at {push_folder(outcome, options.push_to_hub)}")
    accelerator.end_training()
    return 0


def run(distillation: Distillation, options: argparse.Namespace, validation: Validation | None) -> bool:
    """Distil, with a progress bar, a log line for every iteration and pictures. Returns False after Ctrl-C or SIGTERM."""
    accelerator, adversary = distillation.accelerator, distillation.adversary
    options.out.mkdir(parents=True, exist_ok=True)
    if accelerator.log_with:
        accelerator.init_trackers("curves")
    main_process = accelerator.is_main_process
    log_file = (
        advloss.open_step_log(options.out / "log.jsonl", distillation.iteration) if main_process else nullcontext()
    )
    if adversary:
        monitor = advloss.HealthMonitor(adversary, data_size=len(distillation.data), generator_lr=options.lr)
    bar = tqdm(total=options.iterations, initial=distillation.iteration, disable=not main_process, file=sys.stdout)
    with log_file as log, bar:

        def on_progress(progress: Progress) -> None:
            if options.validate_every and progress.iteration % options.validate_every == 0:
                student = distillation.averaged_student()  # in every process, as at the end
                if validation:
                    path = options.out / "validation" / f"{progress.iteration:06d}.png"
                    validation.save(path, student, trackers=accelerator.trackers, iteration=progress.iteration)
            if log is None:
                return
            numbers = progress.as_dict()
            about = adversary.describe() if adversary else {"discriminator": None}
            log.write(json.dumps({**numbers, **({"about": about} if progress.iteration == 1 else {})}) + "\n")
            accelerator.log(numbers, step=progress.iteration)
            if progress.report:
                monitor(progress.report)
            bar.update()
            shown = {name.split("/")[-1]: f"{numbers[name]:.2f}" for name in SHOWN & numbers.keys()}
            bar.set_postfix(shown, refresh=False)

        return distillation.run(
            options.iterations, on_progress, checkpoints=options.out / "checkpoints", save_every=options.save_every
        )


def card(options: argparse.Namespace) -> Card:
    """What a reader of the model has to know."""
    settings = used_settings(options)
    source = next(settings[name] for name in ("data", "images", "shards", "dataset") if name in settings)
    return Card(
        teacher=options.teacher,
        data=options.data_words or f"`{source}`",
        settings={n: v for n, v in settings.items() if n not in ("command", "teacher", "data_words", "licence")},
        licence=options.licence,
        revision=options.revision,
        guidance_scale=told_scale(options),
        curves=read_curves(options.out / "log.jsonl"),
        **({"name": options.push_to_hub} if options.push_to_hub else {}),
    )


def dry_run(family: Family, pipeline, options: argparse.Namespace) -> int:
    """What the chosen settings need, computed with tensors that have no memory; refuses what training would."""
    check_sources(options, family, pipeline)
    accelerator = accelerator_of(family, pipeline, options)
    network, there = family.network(pipeline), options.data and options.data.is_file()
    data = LatentData.load(options.data, family, pipeline.vae) if there else stand_in(family, network)
    check_validation(family, pipeline, data, options)
    without_memory(family, pipeline)
    paths = sampling_paths(student_scheduler(family, max(options.steps)), options.steps)
    method = method_of(family, pipeline, data, paths, options)
    check_settings(**method.arguments(), ema_decay=options.ema)
    estimate = estimate_memory(
        family,
        network,
        batch_size=options.batch_size,
        lora=options.lora,
        gradient_checkpointing=options.gradient_checkpointing,
        half_activations=options.mixed_precision in ("bf16", "fp16"),
        tokens=data.tokens,
        half_teacher=options.half_teacher,
        bytes_a_moment=4 if options.optimizer == "adamw" else 1,
        vae=getattr(pipeline, "vae", None),
        **memory_options(options.method, **method_options(options)),
    )
    accelerator.print(estimate.table())
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--teacher", required=True, help="a pipeline on the hub, or a folder")
    both.add_argument("--revision", help="of the teacher on the hub")
    both.add_argument("--undistilled", action="store_true", help="the teacher is not, although its scheduler looks so")
    both.add_argument("--resolution", type=int, help="side of the images (default: the teacher's)")
    both.add_argument("--batch-size", type=natural, default=16, help="a process (default: %(default)s)")
    both.add_argument("--seed", type=seed, default=0)
    making = commands.add_parser("cache", parents=[both], help="compute latents and embeddings")
    source = add_sources(making)
    source.add_argument("--prompts", type=Path, help="file with a prompt a line; the teacher makes the images")
    making.add_argument("--data", type=Path, required=True, help="file to write latents and embeddings to")
    making.add_argument("--guidance", type=float, help="of the teacher (default: its pipeline's)")
    making.add_argument("--teacher-steps", type=natural, default=28, help="of the teacher (default: %(default)s)")
    making.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    training = commands.add_parser("train", parents=[both], help="distil")
    add_sources(training).add_argument("--data", type=Path, help="file of latents and embeddings, from cache")
    add = training.add_argument
    add("--out", type=Path, default=Path("runs/pipeline"), help="folder (default: %(default)s)")
    add("--steps", type=int, nargs="+", default=[1, 2, 4], help="of sampling (default: 1 2 4)")
    add("--iterations", type=natural, default=5000)
    add("--lora", type=int, default=0, metavar="RANK", help="train an adapter of this rank")
    add("--adapter", action="store_true", help="with --lora: save the adapter alone, not merged")
    add("--lr", type=positive, default=1e-5, help="of the student (default: %(default)s)")
    add("--discriminator-lr", type=positive, default=1e-4, help="(default: %(default)s)")
    add("--backward-simulation", action=argparse.BooleanOptionalAction, help="train on its own samples")
    add_method_options(training)
    add("--ema", type=float, default=0.995)
    add("--accumulate", type=natural, default=1, metavar="N", help="batches of an iteration (default: 1)")
    add("--mixed-precision", choices=("no", "bf16", "fp16"))
    add("--half-teacher", action="store_true", help="keep the teacher in bfloat16")
    add("--shard-teacher", action="store_true", help="spread the teacher over all processes (FSDP2)")
    add("--gradient-checkpointing", action="store_true", help="of the student")
    add("--optimizer", choices=("adamw", "adamw-8bit", "paged-adamw-8bit"), default="adamw")
    add("--push-to-hub", metavar="NAME", help="share the student on the Hugging Face hub")
    add("--private", action="store_true", help="share it with nobody else")
    add("--licence", help="of the teacher, for the card (default: what its own card says)")
    add("--data-words", help="what the model card says about the data")
    add("--validate-every", type=int, default=500, help="iterations between pictures; 0: none")
    add("--validation-prompts", type=Path, help="file with a prompt a line (default: some of the data)")
    add("--validation-guidance", type=float, help="of the teacher in the pictures (default: its pipeline's)")
    add("--teacher-steps", type=natural, default=28, help="in the pictures (default: %(default)s)")
    add("--pictures", type=natural, default=4, help="of the data at each validation (default: %(default)s)")
    add("--tracker", choices=trackers(), default=trackers()[0], help="(default: %(default)s)")
    add("--save-every", type=natural, default=500, help="iterations between checkpoints")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add("--cpu", action="store_true", help="do not use an accelerator")
    add("--dry-run", action="store_true", help="print how much memory it takes, and stop")
    options = parser.parse_args()
    if options.command == "train" and options.adapter and not options.lora:
        parser.error("--adapter saves what --lora RANK trains: give both, or neither")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (advloss.AdvlossError, OSError) as error:
        sys.exit(f"distill_pipeline.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
