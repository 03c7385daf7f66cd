"""How many images a verdict takes: normal approximations of the tests in `proportions`, for a power of 80 %."""

from __future__ import annotations

import math
from statistics import NormalDist

from .proportions import LEVEL, share_gained

POWER = 0.8
MARGINS = (0.1, 0.3, 0.5, 1.0)  # points, in the planner's table
VALIDATION_IMAGES = 50_000  # of ImageNet; there are no more
ASSUMED_DISCORDANCE = 0.02  # share of images that only one of two models gets right, where nothing was observed yet


def paired_images(margin: float, discordance: float, drop: float = 0.0, fail_level: float = LEVEL) -> int | None:
    """Images that tell a drop from the margin, both in points, against a reference on the same images.

    `discordance` is the share of images that only one of the two models gets right; where there is none, 3 / margin decide.
    None where the drop lies on the margin, or more images are needed than the validation set has. Nam (1997), Biometrics 53,
    1422-1430: at the margin the variance is that of the likeliest shares there.
    """
    if margin == drop or margin >= 100:
        return None
    margin, drop, level = margin / 100, drop / 100, fail_level if drop > margin else LEVEL
    if discordance:
        gained = share_gained((discordance - drop) / 2, (discordance + drop) / 2, 1, margin)
        images = _images(abs(margin - drop), 2 * gained + margin - margin**2, discordance - drop**2, level)
    else:
        images = math.ceil(math.log(level) / math.log1p(-margin))  # the exact bound of none lost
    return images if images <= VALIDATION_IMAGES else None


def published_images(margin: float, expected: float, most: int, drop: float = 0.0, fail_level: float = LEVEL) -> int:
    """Images that tell a drop from the margin, in points, against a published figure in percent, as a test of one proportion.

    On all images that the figure was taken on, `most`, nothing is left to chance. A gain is no drop: few show one by chance.
    """
    at_margin, supposed = (min(max(expected - points, 0), 100) / 100 for points in (margin, max(drop, 0)))
    if at_margin == supposed:
        return most
    variances = at_margin * (1 - at_margin), supposed * (1 - supposed)
    return min(most, _images(abs(supposed - at_margin), *variances, fail_level if drop > margin else LEVEL))


def loss_told(images: int, expected: float) -> float:
    """The loss in points that so many images tell from none, against a published figure in percent."""
    tenths = (tenth / 10 for tenth in range(1, 1000))
    return next((loss for loss in tenths if published_images(loss, expected, images + 1) <= images), 100.0)


def _images(distance: float, variance_at_margin: float, variance: float, level: float) -> int:
    z = NormalDist().inv_cdf
    spread = z(1 - level) * variance_at_margin**0.5 + z(POWER) * variance**0.5
    return math.ceil((spread / distance) ** 2 + 1 / distance)  # the last because counts are whole
