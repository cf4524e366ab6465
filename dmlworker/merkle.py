"""Merkle trees as of RFC 6962, section 2.1 (https://www.rfc-editor.org/rfc/rfc6962): one hash that stands for a list of texts.

Leaves and inner nodes are hashed with different prefixes, so that neither can pass for the other. Standard library only.
"""

import hashlib
from collections.abc import Sequence


def root(leaves: Sequence[bytes]) -> str:
    """The tree's root, 64 hexadecimal digits; of no leaves, the hash of nothing."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        # Pairs from the left, an odd one moves up as it is: the same tree as the RFC's split at a power of two.
        pairs = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return (level[0] if level else hashlib.sha256().digest()).hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
