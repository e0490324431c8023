"""Signed tickets and the signer, without any request."""

import base64
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support import SECRET

from noventa import BadTicket, PropsError, SessionError, Signer, Ticket, Tickets, Values

OTHER = "another secret, as long as the first one is"
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=60)
CONVERTED = st.uuids() | st.dates()  # as a path gives them
NUMBERS = st.floats(allow_nan=False)
PROPS = st.dictionaries(st.text(min_size=1, max_size=12), SCALARS | NUMBERS | CONVERTED, max_size=4)


def make_ticket(**changed):
    around = [["card", {"id": 1}]]
    ticket = Ticket(
        "nonce", "/page", "user", "/user", "save", {"id": 7}, around, "guards", 1_700, True
    )
    return ticket._replace(**changed)


def read(text, *keys):
    return Tickets(keys or [SECRET]).read(Values([("_ticket", text)]))


def flipped(text, position, bit):
    raw = bytearray(text.encode())
    raw[position] ^= 1 << bit
    return raw.decode("latin-1")


@given(props=PROPS)
def test_any_props_that_fit_survive_the_round_trip(props):
    assume(len(json.dumps(props, default=str)) < 1_200)  # of more a ticket has no room
    text = Tickets([SECRET]).issue(make_ticket(props=props))
    assert read(text) == make_ticket(props=props)


@given(data=st.data(), props=PROPS)
def test_any_change_to_any_byte_of_a_ticket_is_refused(data, props):
    text = Tickets([SECRET]).issue(make_ticket(props=dict(list(props.items())[:1])))
    position = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BadTicket):
        read(flipped(text, position, data.draw(st.integers(0, 7))))


def test_every_flipped_bit_of_one_ticket_is_refused():
    text = Tickets([SECRET]).issue(make_ticket())
    for position in range(len(text)):
        for bit in range(8):
            with pytest.raises(BadTicket):
                read(flipped(text, position, bit))


@pytest.mark.parametrize("changed", [
    lambda text: text + "=", lambda text: text + "A", lambda text: text[:-1],
    lambda text: " " + text,
    lambda text: text + "\n", lambda text: text + ".", lambda text: "." + text,
    lambda text: text * 2,
    lambda text: text.replace(".", ".."), lambda text: text.swapcase(), lambda text: text[::-1],
    lambda text: text.partition(".")[0], lambda text: text.partition(".")[0] + ".",
    lambda text: "\u0100" + text,
])  # fmt: skip
def test_another_spelling_of_a_ticket_is_refused(changed):
    with pytest.raises(BadTicket):
        read(changed(Tickets([SECRET]).issue(make_ticket())))


def test_base64_has_one_spelling_only():
    payload, _, signature = Signer([SECRET], "x").sign(b"1").partition(".")
    decoded = base64.urlsafe_b64decode(signature + "=")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    duplicate_counts = [
        signature[:-1] + c
        for c in last
        if base64.urlsafe_b64decode(signature[:-1] + c + "=") == decoded
    ]
    assert len(duplicate_counts) > 1
    accepted = []
    for twin in duplicate_counts:
        try:
            accepted.append(Signer([SECRET], "x").verify(f"{payload}.{twin}"))
        except BadTicket:
            continue
    assert accepted == [b"1"]


@pytest.mark.parametrize("keys", [[SECRET], [OTHER, SECRET], [SECRET, OTHER]])
def test_every_secret_key_verifies(keys):
    assert read(Tickets([SECRET]).issue(make_ticket()), *keys) == make_ticket()


def test_the_first_secret_key_signs():
    text = Tickets([OTHER, SECRET]).issue(make_ticket())
    assert read(text, OTHER) == make_ticket()
    with pytest.raises(BadTicket, match="bad-signature"):
        read(text, SECRET)


def test_what_is_signed_for_one_purpose_is_refused_for_another():
    signed = Signer([SECRET], "session").sign(b"{}")
    with pytest.raises(BadTicket, match="bad-signature"):
        Signer([SECRET], "ticket").verify(signed)


def test_without_a_secret_key_nothing_is_signed_and_nothing_verifies():
    with pytest.raises(SessionError, match="secret_keys is empty"):
        Signer([], "ticket").sign(b"{}")
    with pytest.raises(BadTicket):
        Signer([], "ticket").verify(Signer([SECRET], "ticket").sign(b"{}"))


@pytest.mark.parametrize("prop", [[1], {"a": 1}, object(), b"bytes", (1, 2), {1}])
def test_a_prop_that_is_no_scalar_is_an_error_with_the_remedy(prop):
    with pytest.raises(PropsError, match=r"'user' renders an action.*'row'.*pass the id instead"):
        Tickets([SECRET]).issue(make_ticket(props={"row": prop}))


def test_a_prop_of_a_guard_around_that_is_no_scalar_is_an_error_with_the_remedy():
    ancestors = [("card", {"id": 1}), ("box", {"row": {}})]
    with pytest.raises(PropsError, match=r"'box'.*'save' of 'user'.*'row' is a dict; pass the id"):
        Tickets([SECRET]).issue(make_ticket(guarded_ancestors=ancestors))


def test_a_ticket_over_two_kilobytes_is_an_error_with_the_remedy():
    with pytest.raises(PropsError, match=r"'user'.*'save' has \d+ bytes; the limit is 2048"):
        Tickets([SECRET]).issue(make_ticket(props={"text": "x" * 2_000}))


def test_a_ticket_over_two_kilobytes_is_not_even_read():
    with pytest.raises(BadTicket, match="malformed-ticket"):
        read(Signer([SECRET], "ticket").sign(b"x" * 2_000))


def test_of_several_tickets_the_last_counts():
    first, last = (Tickets([SECRET]).issue(make_ticket(action=name)) for name in ("one", "two"))
    form = Values([("_ticket", first), ("_ticket", last)])
    assert Tickets([SECRET]).read(form).action == "two"


@pytest.mark.parametrize("fields", [[], [("ticket", "x")], [("_ticket", "")]])
def test_a_form_without_a_ticket_says_so(fields):
    with pytest.raises(BadTicket, match="no-ticket"):
        Tickets([SECRET]).read(Values(fields))


@pytest.mark.parametrize("payload", [[], ["a", "b"], list("abcdefgh"), 7, None, "not json"])
def test_a_ticket_of_another_shape_is_from_another_version(payload):
    text = payload if isinstance(payload, str) else json.dumps(payload)
    with pytest.raises(BadTicket, match="outdated-ticket"):
        read(Signer([SECRET], "ticket").sign(text.encode()))
