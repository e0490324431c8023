from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from sqlalchemy import delete, func, select

from components.sign_in.sign_in_models import Attempt, Password
from components.user.user_models import User
from functions.passwords import Busy, hash_password, is_outdated, verify_password

# How many attempts may fail within the window; what is older is forgotten.
WINDOW = timedelta(minutes=15)
FOR_ONE_ACCOUNT, FROM_ONE_ADDRESS = 10, 50
MAX_EMAIL_LENGTH = 254


def action_sign_in(request, session, db):
    email = request.form.get("email", "").strip()[:MAX_EMAIL_LENGTH]
    text, address = request.form.get("password", ""), _public_address(request)
    query = select(Password.user_id, Password.digest, Password.address).join(User)
    found = db.execute(query.where(User.email == email)).first()
    user_id, digest, known_address = found or (None, None, None)
    attempt = _note_attempt(db, email, address, known_address)
    if attempt is None:
        return _refusal(429, email, "Too many attempts. Please wait 15 minutes.")
    db.commit()  # keeps the attempt, and holds nothing while the password is hashed

    try:
        is_right = verify_password(text, digest)
        renewed = hash_password(text) if is_right and is_outdated(digest) else digest
    except Busy:
        db.delete(attempt)  # nothing was tried
        db.commit()
        return _refusal(
            429, email, "Many people are signing in. Please try again in a moment."
        )
    if not is_right:
        # One answer for both faults: it must not tell which addresses exist.
        error = "This email address and password do not belong together."
        return _refusal(422, email, error)
    password = db.get(Password, user_id)
    password.digest, password.address = renewed, address
    db.execute(delete(Attempt).where(Attempt.email == email))
    db.commit()
    # What the session was before signing in must be worth nothing afterwards.
    session.rotate()
    session["user_id"] = user_id
    return {"_redirect": "/account"}


def _note_attempt(db, email, address, known_address):
    """One more attempt, which counts until one has succeeded; None if it may not be made."""
    now = datetime.now(UTC).replace(tzinfo=None)
    db.execute(delete(Attempt).where(Attempt.at < now - WINDOW))
    count = select(func.count()).select_from(Attempt)
    of_account = count.where(Attempt.email == email)
    if address and address == known_address:
        of_account = of_account.where(Attempt.address == address)
    of_address = db.scalar(count.where(Attempt.address == address)) if address else 0
    if db.scalar(of_account) >= FOR_ONE_ACCOUNT or of_address >= FROM_ONE_ADDRESS:
        return None
    attempt = Attempt(email=email, address=address, at=now)
    db.add(attempt)
    return attempt


def _public_address(request):
    """None for an address of this network: it is a proxy's, and all visitors share it."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a socket's name
        return None
    return str(address) if address.is_global else None


def _refusal(status, email, error):
    return {"_status": status, "errors": {"form": error}, "values": {"email": email}}
