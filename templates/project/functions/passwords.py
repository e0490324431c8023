"""Passwords as salted scrypt digests: `scrypt$cost$block size$parallelism$salt$digest`."""

import hashlib
import hmac
import secrets
import threading

# What OWASP's password storage cheat sheet asks for: 128 MiB and a third of a second.
# Raise them when it does: whoever signs in with a digest of before gets a new one.
COST, BLOCK_SIZE, PARALLELISM = 2**17, 8, 1

_few_at_a_time = threading.Semaphore(2)  # for the memory that each takes
# Half of `server.threads`, with those who wait: others have work too.
_with_those_waiting = threading.Semaphore(4)


class Busy(Exception):
    """So many passwords are being checked that this one would have to wait."""


def hash_password(text: str) -> str:
    return _digest(text, secrets.token_hex(16), COST, BLOCK_SIZE, PARALLELISM)


def verify_password(text: str, digest: str | None) -> bool:
    """Whether `text` is the password; None, for an unknown user, is always wrong. Raises Busy."""
    if digest is None:
        # The same work, so that the time taken does not tell who exists.
        hash_password(text)
        return False
    _, cost, block_size, parallelism, salt, _ = digest.split("$")
    again = _digest(text, salt, int(cost), int(block_size), int(parallelism))
    return hmac.compare_digest(digest, again)


def is_outdated(digest: str) -> bool:
    return not digest.startswith(f"scrypt${COST}${BLOCK_SIZE}${PARALLELISM}$")


def _digest(text: str, salt: str, n: int, r: int, p: int) -> str:
    if not _with_those_waiting.acquire(blocking=False):
        raise Busy
    try:
        with _few_at_a_time:
            digest = hashlib.scrypt(
                text.encode(),
                salt=bytes.fromhex(salt),
                n=n,
                r=r,
                p=p,
                maxmem=256 * n * r,
                dklen=32,
            )
    finally:
        _with_those_waiting.release()
    return f"scrypt${n}${r}${p}${salt}${digest.hex()}"
