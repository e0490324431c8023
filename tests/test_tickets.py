"""Signed tickets and the signer, without requests."""

import base64
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support import SECRET

from noventa import BadTicket, PropsError, SessionError, Signer, Ticket, Tickets, Values

OTHER_SECRET = "another secret, as long as the first one is"
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=60)
CONVERTED = st.uuids() | st.dates()  # the values of path parameters
NUMBERS = st.floats(allow_nan=False)
PROPS = st.dictionaries(st.text(min_size=1, max_size=12), SCALARS | NUMBERS | CONVERTED, max_size=4)


def make_ticket(**changes):
    ancestors = [["card", {"id": 1}]]
    ticket = Ticket(
        "nonce", "/page", "user", "/user", "save", {"id": 7}, ancestors, "guards", 1_700, True
    )
    return ticket._replace(**changes)


def read(text, *keys):
    return Tickets(keys or [SECRET]).read(Values([("_ticket", text)]))


def flip_bit(text, position, bit):
    raw = bytearray(text.encode())
    raw[position] ^= 1 << bit
    return raw.decode("latin-1")


@given(props=PROPS)
def test_props_survive_the_round_trip(props):
    assume(len(json.dumps(props, default=str)) < 1_200)  # more does not fit in a ticket
    text = Tickets([SECRET]).issue(make_ticket(props=props))
    assert read(text) == make_ticket(props=props)


@given(data=st.data(), props=PROPS)
def test_a_ticket_with_a_changed_byte_is_rejected(data, props):
    text = Tickets([SECRET]).issue(make_ticket(props=dict(list(props.items())[:1])))
    position = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BadTicket):
        read(flip_bit(text, position, data.draw(st.integers(0, 7))))


def test_a_ticket_with_any_single_bit_flipped_is_rejected():
    text = Tickets([SECRET]).issue(make_ticket())
    for position in range(len(text)):
        for bit in range(8):
            with pytest.raises(BadTicket):
                read(flip_bit(text, position, bit))


@pytest.mark.parametrize("change", [
    lambda text: text + "=", lambda text: text + "A", lambda text: text[:-1],
    lambda text: " " + text,
    lambda text: text + "\n", lambda text: text + ".", lambda text: "." + text,
    lambda text: text * 2,
    lambda text: text.replace(".", ".."), lambda text: text.swapcase(), lambda text: text[::-1],
    lambda text: text.partition(".")[0], lambda text: text.partition(".")[0] + ".",
    lambda text: "\u0100" + text,
])  # fmt: skip
def test_a_malformed_variant_of_a_ticket_is_rejected(change):
    with pytest.raises(BadTicket):
        read(change(Tickets([SECRET]).issue(make_ticket())))


def test_only_the_canonical_base64_encoding_is_accepted():
    payload, _, signature = Signer([SECRET], "x").sign(b"1").partition(".")
    decoded = base64.urlsafe_b64decode(signature + "=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    equivalents = [
        signature[:-1] + c
        for c in alphabet
        if base64.urlsafe_b64decode(signature[:-1] + c + "=") == decoded
    ]
    assert len(equivalents) > 1
    accepted = []
    for equivalent in equivalents:
        try:
            accepted.append(Signer([SECRET], "x").verify(f"{payload}.{equivalent}"))
        except BadTicket:
            continue
    assert accepted == [b"1"]


@pytest.mark.parametrize("keys", [[SECRET], [OTHER_SECRET, SECRET], [SECRET, OTHER_SECRET]])
def test_every_secret_key_verifies(keys):
    assert read(Tickets([SECRET]).issue(make_ticket()), *keys) == make_ticket()


def test_the_first_secret_key_signs():
    text = Tickets([OTHER_SECRET, SECRET]).issue(make_ticket())
    assert read(text, OTHER_SECRET) == make_ticket()
    with pytest.raises(BadTicket, match="bad-signature"):
        read(text, SECRET)


def test_a_signature_for_one_purpose_is_rejected_for_another():
    signed = Signer([SECRET], "session").sign(b"{}")
    with pytest.raises(BadTicket, match="bad-signature"):
        Signer([SECRET], "ticket").verify(signed)


def test_a_signer_without_secret_keys_neither_signs_nor_verifies():
    with pytest.raises(SessionError, match="secret_keys is empty"):
        Signer([], "ticket").sign(b"{}")
    with pytest.raises(BadTicket):
        Signer([], "ticket").verify(Signer([SECRET], "ticket").sign(b"{}"))


@pytest.mark.parametrize("prop", [[1], {"a": 1}, object(), b"bytes", (1, 2), {1}])
def test_a_non_scalar_prop_is_an_error_that_names_the_fix(prop):
    with pytest.raises(PropsError, match=r"'user' renders an action.*'row'.*pass the id instead"):
        Tickets([SECRET]).issue(make_ticket(props={"row": prop}))


def test_a_non_scalar_prop_of_an_ancestor_guard_is_an_error_that_names_the_fix():
    ancestors = [("card", {"id": 1}), ("box", {"row": {}})]
    with pytest.raises(PropsError, match=r"'box'.*'save' of 'user'.*'row' is a dict; pass the id"):
        Tickets([SECRET]).issue(make_ticket(guarded_ancestors=ancestors))


def test_issuing_a_ticket_over_two_kilobytes_is_an_error_that_names_the_limit():
    with pytest.raises(PropsError, match=r"'user'.*'save' has \d+ bytes; the limit is 2048"):
        Tickets([SECRET]).issue(make_ticket(props={"text": "x" * 2_000}))


def test_a_ticket_over_two_kilobytes_is_rejected_as_malformed():
    with pytest.raises(BadTicket, match="malformed-ticket"):
        read(Signer([SECRET], "ticket").sign(b"x" * 2_000))


def test_the_last_of_several_tickets_is_used():
    first, last = (Tickets([SECRET]).issue(make_ticket(action=name)) for name in ("one", "two"))
    form = Values([("_ticket", first), ("_ticket", last)])
    assert Tickets([SECRET]).read(form).action == "two"


@pytest.mark.parametrize("fields", [[], [("ticket", "x")], [("_ticket", "")]])
def test_a_form_without_a_ticket_is_rejected(fields):
    with pytest.raises(BadTicket, match="no-ticket"):
        Tickets([SECRET]).read(Values(fields))


@pytest.mark.parametrize("payload", [[], ["a", "b"], list("abcdefgh"), 7, None, "not json"])
def test_a_ticket_with_an_unknown_payload_is_rejected_as_outdated(payload):
    text = payload if isinstance(payload, str) else json.dumps(payload)
    with pytest.raises(BadTicket, match="outdated-ticket"):
        read(Signer([SECRET], "ticket").sign(text.encode()))
