"""A second domain for distillation: rendered shapes in colour, in latents of a VAE, with prompts of two words.

``python -m benchmarks.shapes lcm add ladd dmd2 --out runs/shapes``
"""
