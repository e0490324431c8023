"""Digests of passwords and tokens. The database never stores the originals."""

import hashlib
import hmac
import secrets

COST = 2**17  # scrypt with 128 MiB and a third of a second, as OWASP recommends


def hash_password(text: str, salt: str = "") -> str:
    salt = salt or secrets.token_hex(16)
    options = {"n": COST, "r": 8, "p": 1, "maxmem": COST * 2048}
    return f"{salt}${hashlib.scrypt(text.encode(), salt=salt.encode(), **options).hex()}"


def is_password(text: str, digest: str) -> bool:
    return hmac.compare_digest(hash_password(text, digest.partition("$")[0]), digest)


def hash_token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()  # unsalted: random tokens cannot be guessed
