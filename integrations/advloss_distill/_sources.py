"""Images with captions by options of a command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from advloss_distill._captioned import CaptionedImages, find_shards
from advloss_distill._family import Family
from advloss_distill._latent_data import encode_prompts
from advloss_distill._pipelines import vae_for_images


def add_sources(parser: argparse.ArgumentParser) -> Any:
    """Options for images with captions; one of the group that is returned has to be given."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder of images with captions")
    source.add_argument("--dataset", help="Hugging Face data set: a name on the hub, or a folder")
    source.add_argument("--shards", help="webdataset's tar files: a path with * in it")
    parser.add_argument("--split", default="train", help="of --dataset (default: %(default)s)")
    parser.add_argument("--image-column", help="of --dataset (default: image), or of --shards (default: the only one)")
    parser.add_argument("--caption-column", help="of --dataset (default: text), or of --shards (default: txt)")
    return source


def captioned(options: argparse.Namespace, side: int) -> CaptionedImages:
    """Where images and captions come from."""
    if options.images:
        return CaptionedImages.from_folder(options.images, side)
    columns = {"image_column": options.image_column, "caption_column": options.caption_column}
    columns = {name: column for name, column in columns.items() if column}
    if options.shards:
        return CaptionedImages.from_shards(options.shards, side, **columns)
    return CaptionedImages.from_dataset(options.dataset, side, split=options.split, **columns)


def check_sources(options: argparse.Namespace, family: Family, pipeline: Any) -> None:
    """Raise an error where `captioned` or `encode` would, as far as that is known without loading a data set or shards."""
    if options.data:
        return
    vae_for_images(pipeline)
    if options.images:
        _, caption = next(iter(captioned(options, family.resolution)))
        encode_prompts(family, pipeline, [caption])
    elif options.shards:
        find_shards(options.shards)
