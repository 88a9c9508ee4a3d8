"""Methods that take gradients at perturbed weights, by name, for tests of what holds for each of them."""

from ncsam import (
    ASAM,
    BSAM,
    GSAM,
    SAM,
    SANER,
    WSAM,
    FriendlySAM,
    JacobianSAM,
    LogitSAM,
    LookSAM,
    OneSAM,
)

LIKE_SAM = {
    "sam": SAM,
    "asam": ASAM,
    "gsam": GSAM,
    "bsam": BSAM,
    "saner": SANER,
    "looksam": LookSAM,
    "wsam": WSAM,
    "friendly-sam": FriendlySAM,
    "j-sam": JacobianSAM,
    "l-sam": LogitSAM,
}
WITH_ONE_SAM = {**LIKE_SAM, "1-sam": OneSAM}
"""1-SAM perturbs for each sample by itself, by vmap."""
