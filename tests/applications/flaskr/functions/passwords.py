"""Passwords as salted scrypt digests: `salt$digest`, both hexadecimal."""

import hashlib
import hmac
import secrets

COST = 2**14  # with p=5, as OWASP's password storage cheat sheet recommends


def hash_password(password: str, salt: str = "") -> str:
    salt = salt or secrets.token_hex(16)
    digest = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=COST, r=8, p=5)
    return f"{salt}${digest.hex()}"


def verify_password(password: str, hashed: str) -> bool:
    """Check a password. An empty `hashed` takes as long, to hide which accounts exist."""
    return hmac.compare_digest(hash_password(password, hashed.partition("$")[0]), hashed)
