from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from sqlalchemy import delete, func, select

from components.sign_in.sign_in_models import Attempt, Password
from components.user.user_models import User
from functions.passwords import Busy, hash_password, is_outdated, verify_password

# Failed attempts allowed within the window; older ones are forgotten.
WINDOW = timedelta(minutes=15)
MAX_PER_ACCOUNT, MAX_PER_ADDRESS = 10, 50
MAX_EMAIL_LENGTH = 254


def action_sign_in(request, session, db):
    email = request.form.get("email", "").strip()[:MAX_EMAIL_LENGTH]
    entered, address = request.form.get("password", ""), _public_address(request)
    query = select(Password.user_id, Password.digest, Password.address).join(User)
    row = db.execute(query.where(User.email == email)).first()
    user_id, digest, known_address = row or (None, None, None)
    attempt = _record_attempt(db, email, address, known_address)
    if attempt is None:
        return _refusal(429, email, "Too many attempts. Please wait 15 minutes.")
    db.commit()  # keeps the attempt, and frees the connection while hashing

    try:
        is_right = verify_password(entered, digest)
        if is_right and is_outdated(digest):
            digest = hash_password(entered)
    except Busy:
        db.delete(attempt)  # no password was checked
        db.commit()
        return _refusal(
            429, email, "Many people are signing in. Please try again in a moment."
        )
    if not is_right:
        # The same message for both errors, so that it does not reveal who has an account.
        return _refusal(422, email, "The email address or the password is wrong.")
    password = db.get(Password, user_id)
    password.digest, password.address = digest, address
    db.execute(delete(Attempt).where(Attempt.email == email))
    db.commit()
    # An older session must not become a signed-in one (session fixation).
    session.rotate()
    session["user_id"] = user_id
    return {"_redirect": "/account"}


def _record_attempt(db, email, address, known_address):
    """Record an attempt, or return None if there are too many. Success clears them."""
    now = datetime.now(UTC).replace(tzinfo=None)
    db.execute(delete(Attempt).where(Attempt.at < now - WINDOW))
    count = select(func.count()).select_from(Attempt)
    by_account = count.where(Attempt.email == email)
    by_address = count.where(Attempt.address == address)
    if address and address == known_address:
        by_account = by_account.where(Attempt.address == address)
    if db.scalar(by_account) >= MAX_PER_ACCOUNT:
        return None
    if address and db.scalar(by_address) >= MAX_PER_ADDRESS:
        return None
    attempt = Attempt(email=email, address=address, at=now)
    db.add(attempt)
    return attempt


def _public_address(request):
    """Return the client's address, or None if it is private, such as a proxy's."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # the name of a socket
        return None
    return str(address) if address.is_global else None


def _refusal(status, email, error):
    return {"_status": status, "errors": {"form": error}, "values": {"email": email}}
