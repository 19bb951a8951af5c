"""Version tokens: believed only whole, only for their session, and only while claims live."""

import pytest

from gossipsess.tokens import DOTS_MAX, TOKEN_AGE_MS, Tokens, recent
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, stamp

TOKENS = Tokens((b"k" * 32,))
DOT = (ALICE, stamp(0))


def read(token: str, tokens: Tokens = TOKENS, sid: bytes = SID, ms: int = 0):
    return recent(tokens.read_untrusted(sid, token), EPOCH_MS + ms)


@pytest.mark.parametrize("dots", [(DOT,), (DOT, (BOB, stamp(1)))])
def test_a_token_says_what_it_was_made_of(dots):
    """One dot or two; any replica of the cluster reads them."""
    assert read(TOKENS.make(SID, dots)) == dots


def test_only_the_last_two_dots_are_kept():
    """A cookie has a bounded size."""
    dots = (DOT, (BOB, stamp(1)), (CAROL, stamp(2)))
    assert read(TOKENS.make(SID, dots)) == dots[-DOTS_MAX:]


def test_every_damage_makes_a_token_none():
    """A client that could name writes would make every replica search for some that never were."""
    token = TOKENS.make(SID, (DOT,))
    for position in range(len(token)):
        other = "0" if token[position] != "0" else "1"
        assert read(token[:position] + other + token[position + 1 :]) == ()
        assert read(token[:position]) == ()
    assert read(token + token[-1]) == ()


@pytest.mark.parametrize("garbage", ["", "x", "\0" * 48, "é" * 48, "z" * 48, " " * 80, "0" * 48, "0" * 80, "٣" * 48])
def test_garbage_is_no_token_and_no_error(garbage):
    """It comes from a cookie, and a request must not fail for it."""
    assert read(garbage) == ()


def test_a_token_of_another_session_or_cluster_is_none():
    """Cookies are swapped by hand, and staging shares a domain with production."""
    token = TOKENS.make(SID, (DOT,))
    assert read(token, sid=b"another-16-bytes") == ()
    assert read(token, tokens=Tokens((b"o" * 32,))) == ()


def test_a_former_key_still_reads_and_never_writes():
    """While the secret is changed, half of the nodes make tokens of the old one."""
    both = Tokens((b"n" * 32, b"k" * 32))
    assert read(TOKENS.make(SID, (DOT,)), tokens=both) == (DOT,)
    assert read(both.make(SID, (DOT,))) == ()


def test_a_token_lives_as_long_as_claims_do():
    """After that no record can say any more whether it contains the write."""
    token = TOKENS.make(SID, (DOT, (BOB, stamp(5))))
    assert read(token, ms=TOKEN_AGE_MS - 1) == (DOT, (BOB, stamp(5)))
    assert read(token, ms=TOKEN_AGE_MS + 4) == ((BOB, stamp(5)),)
    assert read(token, ms=TOKEN_AGE_MS + 6) == ()
