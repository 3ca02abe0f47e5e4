"""The example on pipelines: where it is, and what makes a run of it small."""

from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "distill_pipeline.py"
TINY = ["--cpu", "--batch-size", "8", "--iterations", "2", "--resolution", "16", "--save-every", "1"]
