"""What is claimed about speed, memory and quality, re-runnable: ``python -m benchmarks.NAME``."""
