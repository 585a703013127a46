"""Draws that depend on one user and the seed: another user who comes or goes changes nothing for this one."""

from llm_i2i.catalogue import sample_keys
from llm_i2i.data.hashing import seeded_hash


def sample_users(users: list[str], size: int, *, seed: int, apart: bool) -> list[str]:
    """A seeded sample of users in their given order; all if `size` is 0 or not smaller.

    Args:
        users: Ids.
        size: Users to draw.
        seed: Of the draw.
        apart: Whether a user's hash decides, so that a day changes the sample by few; else it is one draw for all.
    """
    if not apart or size == 0 or size >= len(users):
        return sample_keys(users, size, seed=seed)
    order = seeded_hash(seed, users).argsort(kind="stable")
    return [users[place] for place in sorted(order[:size])]


def number_of(user: str, below: int, *, seed: int) -> int:
    """A number from 0 to `below` - 1 that user and seed decide."""
    return int(seeded_hash(seed, [user])[0] % below)
