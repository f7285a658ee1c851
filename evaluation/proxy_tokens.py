"""Proxy tokens: the few tokens that all others attend to, wherever they are (DeCLIP, section 6).

DeCLIP shows them in attention maps and gives no number. The score here is ours.
"""

import math

from torch import Tensor

TOP_SHARE = 0.01
"""Share of the tokens that counts as proxies."""


def proxy_score(attention: Tensor, seen: Tensor) -> float:
    """How much more attention the most attended tokens of a photo get than an even share.

    Only the attention that the photo's tokens pay to each other counts: not [CLS], and not the padding.

    Args:
        attention: (N, N) of the patches of the canvas, a row for each query.
        seen: (N,) bool, the patches that see the photo.

    Returns:
        The share of all attention that goes to the top 1 % of the tokens (at least one), over the share of
        these tokens among all. 1 means that attention is even.
    """
    among = attention[seen][:, seen].double()
    received = (among / among.sum(dim=1, keepdim=True).clamp_min(1e-12)).mean(dim=0)
    count = math.ceil(TOP_SHARE * len(received))
    return float(received.topk(count).values.sum() * len(received) / count)
