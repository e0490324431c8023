"""Passwords as salted scrypt digests: `scrypt$cost$block size$parallelism$salt$digest`."""

import hashlib
import hmac
import secrets
import threading

# As OWASP's password storage cheat sheet recommends: 128 MiB and a third of a second.
# Raise them when it does: users with an older digest get a new one when they sign in.
COST, BLOCK_SIZE, PARALLELISM = 2**17, 8, 1

_hashing = threading.Semaphore(2)  # each needs 128 MiB
# Half of `server.threads`, so that other requests still get through.
_hashing_or_waiting = threading.Semaphore(4)


class Busy(Exception):
    """Too many passwords are being checked at once."""


def hash_password(password: str) -> str:
    return _digest(password, secrets.token_hex(16), COST, BLOCK_SIZE, PARALLELISM)


def verify_password(password: str, digest: str | None) -> bool:
    """Return True if the password is right; `digest` is None for an unknown user.

    Raises Busy.
    """
    if digest is None:
        # Do the same work, so that the time does not reveal who has an account.
        hash_password(password)
        return False
    _, cost, block_size, parallelism, salt, _ = digest.split("$")
    other = _digest(password, salt, int(cost), int(block_size), int(parallelism))
    return hmac.compare_digest(digest, other)


def is_outdated(digest: str) -> bool:
    return not digest.startswith(f"scrypt${COST}${BLOCK_SIZE}${PARALLELISM}$")


def _digest(password: str, salt: str, n: int, r: int, p: int) -> str:
    if not _hashing_or_waiting.acquire(blocking=False):
        raise Busy
    try:
        with _hashing:
            digest = hashlib.scrypt(
                password.encode(),
                salt=bytes.fromhex(salt),
                n=n,
                r=r,
                p=p,
                maxmem=256 * n * r,
                dklen=32,
            )
    finally:
        _hashing_or_waiting.release()
    return f"scrypt${n}${r}${p}${salt}${digest.hex()}"
