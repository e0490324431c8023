"""Passwords as salted scrypt digests: `salt$digest`, both hexadecimal."""

import hashlib
import hmac
import secrets

COST = 2**14  # with p=5, as OWASP's password storage cheat sheet asks for


def hash_password(password: str, salt: str = "") -> str:
    salt = salt or secrets.token_hex(16)
    digest = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=COST, r=8, p=5)
    return f"{salt}${digest.hex()}"


def verify_password(password: str, hashed: str) -> bool:
    """False for an empty `hashed`, after the same work: the time must not tell who exists."""
    return hmac.compare_digest(hash_password(password, hashed.partition("$")[0]), hashed)
