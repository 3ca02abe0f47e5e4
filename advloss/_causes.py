"""What goes wrong in adversarial training: how each cause shows in a log, and what to do about it.

A sign is a number from 0 to 1, how much speaks for the cause, with the evidence in words; None where nothing does. It
orders what is found: what explains a fault stands above what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advloss._facts import Facts

Sign = tuple[float, str] | None

PINNED = 0.96  # accuracy from which on the discriminator is hardly ever wrong
VISIBLE = 0.25  # energy distance that is seen at a glance


@dataclass(frozen=True)
class Cause:
    """A likely cause of failure.

    Attributes:
        name: for scripts.
        title: for people.
        looks_at: what the sign is, for the docs.
        fix: what to change, in one line.
        protocol: what to watch in the next run.
        sign: looks for it.
    """

    name: str
    title: str
    looks_at: str
    fix: str
    protocol: str
    sign: Callable[[Facts], Sign]


def _non_finite(facts: Facts) -> Sign:
    if facts.skipped <= 0.01:
        return None
    return 1.0, f"{facts.skipped:.0%} of the logged steps were skipped or hold NaN or infinity"


def _range_mismatch(facts: Facts) -> Sign:
    if facts.ranges is None or facts.energy is None or facts.energy < VISIBLE:
        return None
    real, fake = facts.ranges
    if real == fake or fake == "other":
        return None
    low, high = facts.log.median("signals/real_low"), facts.log.median("signals/real_high")
    return 0.95, f"reals lie in [{low:.3g}, {high:.3g}], fakes never leave {fake}: no fake can look like such a real"


def _batch_norm_leakage(facts: Facts) -> Sign:
    if facts.mixed_accuracy is None or facts.accuracy is None:
        return None
    if facts.accuracy < 0.75 or facts.accuracy - facts.mixed_accuracy < 0.2 or (facts.energy or 0) < VISIBLE:
        return None
    return 0.9, (
        f"accuracy is {facts.accuracy:.2f} on batches of one kind and {facts.mixed_accuracy:.2f} where half the batch is "
        "real: the discriminator knows batches by their statistics, not samples"
    )


def _vanishing_gradient(facts: Facts) -> Sign:
    if facts.pull is None or facts.accuracy is None or facts.accuracy < 0.9 or facts.pull > 3e-3:
        return None
    saturating = "; this loss has no slope where fakes are found out" if facts.game("vanishing") else ""
    return 0.88, (
        f"accuracy is {facts.accuracy:.2f}, and the gradient at the fakes, times the distance of two reals, is "
        f"{facts.pull:.1g} (healthy: 0.2 to 30){saturating}"
    )


def _r1_too_strong(facts: Facts) -> Sign:
    if facts.balance is None or facts.balance < 5 or (facts.energy or 0) < VISIBLE:
        return None
    return 0.86, (
        f"four times the penalty is {facts.balance:.3g} times the logit gap ({facts.gap:.2g}; healthy: up to 1): the "
        f"discriminator is held flat, while fakes are far from reals (energy distance {facts.energy:.2f})"
    )


def _r1_too_weak(facts: Facts) -> Sign:
    if facts.balance is None or facts.accuracy is None or facts.accuracy < PINNED or facts.balance > 0.01:
        return None
    return 0.84, (
        f"accuracy is {facts.accuracy:.2f}, and four times the penalty only {facts.balance:.1g} of the logit gap (healthy: "
        "0.1 to 1): R1 holds nothing back"
    )


def _exploding_logits(facts: Facts) -> Sign:
    if facts.slope is not None and facts.slope > 10:
        return 0.82, (
            f"the critic's slope at fakes is {facts.slope:.3g}, where a Wasserstein loss means something at 1 only; the "
            f"logit gap is {facts.gap:.3g}"
        )
    if facts.slope is None and facts.level is not None and facts.level > 200:
        return 0.62, f"logits are at {facts.level:.3g}; a loss is sure of itself at 5"
    return None


def _oscillation(facts: Facts) -> Sign:
    if facts.rhythm is None or facts.rhythm < 0.5:
        return None
    return 0.8, (
        f"the two accuracies swing in a regular beat (autocorrelation {facts.rhythm:.2f}): the players circle each "
        "other and do not come closer"
    )


def _learning_rates(facts: Facts) -> Sign:
    if facts.rates is None or 0.2 < facts.rates < 5:
        return None
    balanced = facts.accuracy is not None and 0.55 < facts.accuracy < 0.9
    if balanced and (facts.energy or 0) < VISIBLE and (facts.diversity or 1) > 0.45:
        return None
    times = facts.rates if facts.rates >= 1 else 1 / facts.rates
    faster = "discriminator" if facts.rates >= 1 else "generator"
    return 0.78, f"the {faster}'s learning rate is {times:.3g} times the other's, and {_state(facts)}"


def _memorized(facts: Facts) -> Sign:
    passes, draws = facts.passes, facts.distinct_draws
    if facts.copies and draws and 0.5 < facts.samples["distinct"] / draws < 1.5:
        return 0.77, (
            f"only {facts.samples['distinct']:.0f} of {facts.samples['count']:.0f} samples differ, as of as many draws from "
            f"the {facts.data_size} samples of the data set"
        )
    if passes is None or passes < 200 or facts.accuracy is None or facts.accuracy < 0.9:
        return None
    if (facts.energy or 0) >= VISIBLE:
        return None
    return 0.77, (
        f"each of {facts.data_size} samples was shown {passes:.0f} times; accuracy is {facts.accuracy:.2f} although fakes "
        f"are as good as reals by distance ({facts.energy:.2f}): the discriminator knows the data by heart"
    )


def _discriminator_too_weak(facts: Facts) -> Sign:
    if facts.energy is None or facts.energy < VISIBLE or facts.accuracy is None or facts.gap is None:
        return None
    flat = facts.pull is not None and facts.pull < 0.1 and abs(facts.gap) < 0.1 and facts.accuracy < 0.9
    if not (facts.accuracy < 0.58 or flat):
        return None
    return 0.74, (
        f"fakes are far from reals (energy distance {facts.energy:.2f}), and it does not see that: accuracy "
        f"{facts.accuracy:.2f}, logit gap {facts.gap:.2g}"
    )


def _mode_collapse(facts: Facts) -> Sign:
    if facts.copies is not None and facts.copies > 0.5:
        return 0.72, f"{facts.copies:.0%} of the samples are near-copies of another one"
    if facts.diversity is None or facts.diversity > 0.45 or (facts.energy or 0) < VISIBLE:
        return None
    return (0.72 if facts.diversity < 0.3 else 0.6), (
        f"two fakes are {facts.diversity:.2f} times as far from each other as two reals"
    )


def _collapse_within_class(facts: Facts) -> Sign:
    if facts.class_diversity is None or facts.class_diversity > 0.45 or (facts.diversity or 0) < 0.5:
        return None
    return 0.71, (
        f"within a class, two fakes are {facts.class_diversity:.2f} times as far from each other as two reals; over all "
        f"classes {facts.diversity:.2f} times"
    )


def _discriminator_too_strong(facts: Facts) -> Sign:
    if facts.accuracy is None or facts.accuracy < PINNED or _held_back(facts):
        return None
    return 0.7, (
        f"accuracy is {facts.accuracy:.2f} in the last quarter (healthy: 0.6 to 0.8), logit gap {facts.gap:.3g}: the "
        "generator starves"
    )


def _held_back(facts: Facts) -> bool:
    """Whether R1 or R2 keeps the logits near each other, and gradient arrives: sure of every sample, but hardly so."""
    return abs(facts.gap or 0) < 1 and (facts.balance or 0) >= 0.1 and (facts.pull or 0) >= 0.2


def _state(facts: Facts) -> str:
    """How the run stands, in a few words."""
    said = {"accuracy": facts.accuracy, "diversity": facts.diversity, "energy distance": facts.energy}
    return ", ".join(f"{name} is {value:.2f}" for name, value in said.items() if value is not None)


CAUSES = (
    Cause(
        "non-finite",
        "values that are not finite",
        "more than 1 % of the steps were skipped, or hold NaN or infinity",
        "Lower both learning rates, keep logits and losses in float32, and look for a root or a logarithm of 0.",
        "Run 200 steps in float32 with max_skipped=0: the error names the first tensor that is not finite.",
        _non_finite,
    ),
    Cause(
        "range-mismatch",
        "real and fake samples in different ranges",
        "reals and fakes lie in different usual ranges ([-1, 1], [0, 1], [0, 255]), and are far apart",
        "Scale real samples to what the generator's last layer can reach: images to [-1, 1] for tanh.",
        "Print min and max of one real and one fake batch; after 100 steps fake_low and fake_high are at real_low and real_high.",
        _range_mismatch,
    ),
    Cause(
        "batch-norm-leakage",
        "batch norm tells real from fake batches",
        "accuracy on a batch of which half is real is lower by 0.2 or more than on batches of one kind",
        "Take the discriminator's batch norm out: norm='spectral', 'instance' or 'none' with R1.",
        "Same run without batch norm; where it must stay, mixed_accuracy is within 0.1 of the other accuracies.",
        _batch_norm_leakage,
    ),
    Cause(
        "vanishing-gradient",
        "no gradient reaches the generator",
        "the gradient at the fakes times the distance of two reals is below 0.003, at an accuracy above 0.9",
        "Take loss='non-saturating' or 'relativistic' in place of the saturating one, and add R1.",
        "fake_grad_norm times spread is between 0.2 and 30 from the first hundred steps on.",
        _vanishing_gradient,
    ),
    Cause(
        "r1-too-strong",
        "R1 is too strong for this resolution",
        "four times R1's or R2's term is above 5 times the logit gap, and fakes are far from reals",
        "Divide R1's weight by 10; a start is 0.0002 * height * width / batch (StyleGAN3's rule).",
        "Four times the penalty is 0.1 to 1 of the logit gap, and accuracy is 0.6 to 0.8 after a tenth of the steps.",
        _r1_too_strong,
    ),
    Cause(
        "r1-too-weak",
        "R1 is too weak for this resolution",
        "accuracy is above 0.96, and four times R1's or R2's term is below 0.01 of the logit gap",
        "Multiply R1's weight by 10 until accuracy leaves 1; it grows with the number of pixels.",
        "Four times the penalty is 0.1 to 1 of the logit gap, and accuracy is 0.6 to 0.8 after a tenth of the steps.",
        _r1_too_weak,
    ),
    Cause(
        "exploding-logits",
        "logits explode",
        "a Wasserstein critic's slope is above 10, or logits of another loss beyond 200",
        "Bound the slope: loss='wgan-gp', norm='spectral', or R1; and lower the discriminator's learning rate.",
        "Logits stay within 20 of each other; fake_grad_norm is near 1 with a Wasserstein loss.",
        _exploding_logits,
    ),
    Cause(
        "oscillation",
        "the players circle each other",
        "real and fake accuracy swing against each other, with three periods or more in the second half",
        "Damp the game: add R1 and R2, take beta1=0 in both optimizers, or halve both learning rates.",
        "The swing of real_accuracy less fake_accuracy falls from one quarter of the run to the next.",
        _oscillation,
    ),
    Cause(
        "learning-rates",
        "learning rates too far apart",
        "one learning rate is 5 times the other or more, and accuracy, distance or diversity are not healthy",
        "Start both players from one rate (2e-4 with Adam for images), and move one by a factor of 2 at a time.",
        "Three short runs at ratios 1/2, 1 and 2; keep the one whose accuracy is nearest to 0.7.",
        _learning_rates,
    ),
    Cause(
        "memorized",
        "the data set is memorized, or too small",
        "200 passes or more over the data, accuracy above 0.9 although fakes are near to reals; or samples that are "
        "copies of each other, as often as draws from so few would be (needs --data-size, or --samples as well)",
        "Add augmentations='diffaugment' (or more data), the regularizer lecam, or stop earlier.",
        "Keep a tenth of the data back: real logits on it and on the rest stay within a quarter of the logit gap.",
        _memorized,
    ),
    Cause(
        "discriminator-too-weak",
        "the discriminator is too weak",
        "fakes are far from reals, and accuracy is below 0.58 or the logits flat",
        "Give it more width or depth, a higher learning rate, or two steps to the generator's one.",
        "Freeze the generator for 200 steps: accuracy rises above 0.9, or the discriminator cannot see the difference.",
        _discriminator_too_weak,
    ),
    Cause(
        "mode-collapse",
        "mode collapse",
        "two fakes are less than 0.45 times as far from each other as two reals, or most samples are copies of others",
        "Take loss='relativistic' with R1 and R2, or a discriminator with minibatch standard deviation; lower the generator's rate.",
        "diversity is above 0.8 after a third of the steps; draw a grid of 64 samples there.",
        _mode_collapse,
    ),
    Cause(
        "collapse-within-class",
        "collapse within each class",
        "within a class, two fakes are less than 0.45 times as far from each other as two reals",
        "See that the latent reaches every layer that the class reaches, and take a paired loss with R1 and R2.",
        "class_diversity is above 0.7 after a third of the steps; draw 8 samples of each class.",
        _collapse_within_class,
    ),
    Cause(
        "discriminator-too-strong",
        "the discriminator is too strong",
        "accuracy is above 0.96 in the last quarter, and R1 does not hold the logit gap below 1",
        "Add R1 (or spectral norm), take one discriminator step to each of the generator's, or halve its learning rate.",
        "Accuracy between 0.6 and 0.8 after a tenth of the steps; at 0.95 by then, stop and raise R1's weight by 3.",
        _discriminator_too_strong,
    ),
)
