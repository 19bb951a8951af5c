# Sealing: who can open what, and that nothing altered, repeated, sent back or foreign is ever opened.

import pytest

from gossipsess.errors import SealError, VersionError, WireError
from gossipsess.wire.crypto import (
    DATAGRAM_BODY_BYTES_MAX,
    DATAGRAM_BYTES_MAX,
    GREETING_BYTES,
    REPLAY_WINDOW,
    SENDERS_MAX,
    DatagramOpener,
    DatagramSealer,
    Link,
    LinkHandshake,
    ReplayWindow,
    agreed_version,
)
from gossipsess.wire.frame import FRAME_BYTES_MAX, MESSAGE_BYTES_MAX
from gossipsess.wire.keyring import Keyring

OLD, NEW = "the-old-secret-of-the-shop", "the-new-secret-of-the-shop"
RING = Keyring.from_secrets("shop", OLD)
STRANGERS = [Keyring.from_secrets("shop", NEW), Keyring.from_secrets("mail", OLD)]
ALICE, BOB = b"alice...", b"bob....."


def flips(data: bytes) -> list[bytes]:
    """Every way to flip one bit of data."""
    number = int.from_bytes(data, "big")
    return [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(8 * len(data))]


def handshakes(dialer_ring: Keyring = RING, acceptor_ring: Keyring = RING) -> tuple[LinkHandshake, LinkHandshake]:
    return (
        LinkHandshake(dialer_ring, ALICE, b"random of dialer", dialer=True),
        LinkHandshake(acceptor_ring, BOB, b"rand of acceptor", dialer=False),
    )


def links(dialer_ring: Keyring = RING, acceptor_ring: Keyring = RING) -> tuple[Link, Link]:
    dialer, acceptor = handshakes(dialer_ring, acceptor_ring)
    return dialer.receive_untrusted(acceptor.greeting), acceptor.receive_untrusted(dialer.greeting)


# --- the replay window ----------------------------------------------------------------------------------


def test_a_counter_passes_once_in_whatever_order_it_comes():
    """Networks reorder and repeat; the first copy of each datagram counts."""
    window = ReplayWindow()
    arriving = [5, 3, 5, 4, 0, 3, 6, 0, 1]
    new = [5, 3, 4, 0, 6, 1]
    assert [counter for counter in arriving if window.take(counter)] == new


def test_a_counter_that_fell_out_of_the_window_counts_as_seen():
    """What is not remembered cannot be told from a replay."""
    window = ReplayWindow()
    assert window.take(REPLAY_WINDOW)
    assert not window.take(0)
    assert window.take(1)
    assert not window.take(1)


def test_a_leap_to_the_last_counter_costs_no_memory():
    """A counter is 64 bits from the network; a window that shifts by it would ask for 2**61 bytes."""
    window = ReplayWindow()
    assert window.take(0)
    assert window.take(2**64 - 1)
    assert window.take(2**64 - 2)
    assert not window.take(0)


# --- datagrams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, DATAGRAM_BODY_BYTES_MAX])
def test_a_datagram_opens_to_its_sender_and_body(size):
    """Up to the bound, at which it still passes any path unfragmented."""
    body = bytes(size)
    data = DatagramSealer(RING.primary, ALICE).seal(body)
    assert len(data) == size + 37 <= DATAGRAM_BYTES_MAX
    assert DatagramOpener(RING).open_untrusted(data) == (ALICE, body)


def test_a_datagram_over_the_bound_is_never_sent():
    """It would be fragmented, and lost whole with any fragment."""
    with pytest.raises(AssertionError):
        DatagramSealer(RING.primary, ALICE).seal(bytes(DATAGRAM_BODY_BYTES_MAX + 1))


def test_no_flipped_bit_of_a_datagram_passes():
    """Body, tag, and each field of the header: version, key id, sender, counter."""
    data = DatagramSealer(RING.primary, ALICE).seal(b"alive")
    opener = DatagramOpener(RING)
    for altered in flips(data):
        with pytest.raises(WireError):
            opener.open_untrusted(altered)
    assert opener.open_untrusted(data) == (ALICE, b"alive")  # and none of them used the counter up


def test_no_truncated_or_lengthened_datagram_passes():
    """A receive buffer cuts what is too long for it, and strangers send anything."""
    data = DatagramSealer(RING.primary, ALICE).seal(b"alive")
    for altered in [data[:size] for size in range(len(data))] + [
        data + b"\0",
        data + bytes(DATAGRAM_BYTES_MAX),
    ]:
        with pytest.raises(SealError):
            DatagramOpener(RING).open_untrusted(altered)


def test_another_version_is_named_as_such():
    """An operator in the middle of an upgrade must not be sent looking for a wrong secret."""
    data = DatagramSealer(RING.primary, ALICE).seal(b"alive")
    with pytest.raises(VersionError, match="version 2"):
        DatagramOpener(RING).open_untrusted(b"\2" + data[1:])


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_datagram_of_another_secret_or_cluster_is_refused_even_under_my_key_id(stranger):
    """The key id travels in clear and can be copied; it only spares work."""
    data = DatagramSealer(stranger.primary, ALICE).seal(b"alive")
    with pytest.raises(SealError, match="another secret or another cluster"):
        DatagramOpener(RING).open_untrusted(data)
    with pytest.raises(SealError, match="authenticate"):
        DatagramOpener(RING).open_untrusted(data[:1] + RING.primary.key_id + data[5:])


def test_a_replayed_datagram_is_refused():
    """A recorded "I am alive" would keep a dead node alive."""
    sealer, opener = DatagramSealer(RING.primary, ALICE), DatagramOpener(RING)
    first, second = sealer.seal(b"same body"), sealer.seal(b"same body")
    assert first[21:] != second[21:]
    for data in (second, first):  # reordered, and still each of them passes once
        opener.open_untrusted(data)
    for data in (first, second):
        with pytest.raises(SealError, match="came before"):
            opener.open_untrusted(data)


def test_senders_that_use_the_same_counter_use_different_keys():
    """Every node counts from 0; under one key the xor of two bodies would lie open."""
    sealed = [DatagramSealer(RING.primary, sender).seal(bytes(64))[21:] for sender in (ALICE, BOB)]
    assert sealed[0] != sealed[1]


def test_a_counter_is_never_used_again_after_the_last():
    """Wrapping around to 0 would repeat every nonce."""
    sealer = DatagramSealer(RING.primary, ALICE)
    sealer._counter = 2**64 - 1
    assert DatagramOpener(RING).open_untrusted(sealer.seal(b"last")) == (ALICE, b"last")
    with pytest.raises(AssertionError):
        sealer.seal(b"one more")


def test_datagrams_of_a_fallback_key_open_and_count_for_themselves():
    """While a secret is replaced a node starts to seal with the new one, from counter 0."""
    opener = DatagramOpener(Keyring.from_secrets("shop", NEW, [OLD]))
    for secret in (OLD, NEW):
        data = DatagramSealer(Keyring.from_secrets("shop", secret).primary, ALICE).seal(b"alive")
        assert opener.open_untrusted(data) == (ALICE, b"alive")


def test_forged_datagrams_push_no_sender_out():
    """Else anyone could make a node forget what it has seen, then replay it."""
    opener = DatagramOpener(RING)
    data = DatagramSealer(RING.primary, ALICE).seal(b"alive")
    opener.open_untrusted(data)
    for number in range(SENDERS_MAX + 1):
        with pytest.raises(SealError):
            opener.open_untrusted(data[:5] + number.to_bytes(8, "big") + data[13:])
    with pytest.raises(SealError, match="came before"):
        opener.open_untrusted(data)


def test_as_many_senders_are_kept_as_said_and_the_least_recently_heard_goes_first():
    """The table may not grow with every restart of every node; who is still talking keeps its window."""
    opener = DatagramOpener(RING)
    alice, bob = DatagramSealer(RING.primary, ALICE), DatagramSealer(RING.primary, BOB)
    from_alice, from_bob = alice.seal(b"1"), bob.seal(b"1")
    opener.open_untrusted(from_alice)
    opener.open_untrusted(from_bob)
    opener.open_untrusted(alice.seal(b"2"))
    for number in range(SENDERS_MAX - 1):
        opener.open_untrusted(DatagramSealer(RING.primary, number.to_bytes(8, "big")).seal(b""))
    with pytest.raises(SealError, match="came before"):
        opener.open_untrusted(from_alice)
    assert opener.open_untrusted(from_bob) == (BOB, b"1")


# --- greetings and versions -----------------------------------------------------------------------------


def test_a_handshake_tells_each_side_the_other_and_carries_messages_both_ways():
    """The whole road once: greetings, a small message, the largest one, both directions."""
    dialer, acceptor = links()
    assert (dialer.peer, acceptor.peer) == (BOB, ALICE)
    assert dialer.version == acceptor.version == 1
    for sender, receiver in ((dialer, acceptor), (acceptor, dialer)):
        for message in (b"hello", b"", bytes(MESSAGE_BYTES_MAX)):
            assert receiver.opener.feed_untrusted(sender.sealer.seal(message)) == [message]


@pytest.mark.parametrize("altered_side", ["dialer", "acceptor"])
def test_no_flipped_bit_of_a_greeting_leaves_a_working_link(altered_side):
    """Refused at once, or by each first frame: no version is talked down, no name changed."""
    for bit in range(8 * GREETING_BYTES):
        dialer, acceptor = handshakes()
        from_dialer, from_acceptor = dialer.greeting, acceptor.greeting
        if altered_side == "dialer":
            from_dialer = flips(from_dialer)[bit]
        else:
            from_acceptor = flips(from_acceptor)[bit]
        try:
            of_dialer = dialer.receive_untrusted(from_acceptor)
            of_acceptor = acceptor.receive_untrusted(from_dialer)
        except WireError:
            continue
        for sender, receiver in ((of_dialer, of_acceptor), (of_acceptor, of_dialer)):
            with pytest.raises(SealError, match="authenticate"):
                receiver.opener.feed_untrusted(sender.sealer.seal(b"hello"))


@pytest.mark.parametrize("greeting", [b"", bytes(GREETING_BYTES - 1), bytes(GREETING_BYTES + 1), b"G" * GREETING_BYTES])
def test_what_is_not_a_greeting_is_refused(greeting):
    """Port scanners, and a load balancer's health check."""
    with pytest.raises(SealError):
        handshakes()[1].receive_untrusted(greeting)


@pytest.mark.parametrize("dialer", [True, False])
def test_my_own_greeting_is_refused(dialer):
    """A node dials its own address after discovery, and an attacker may send a greeting back."""
    handshake = LinkHandshake(RING, ALICE, bytes(16), dialer=dialer)
    for random in (bytes(16), b"another 16 bytes"):
        with pytest.raises(SealError, match=r"^self"):
            handshake.receive_untrusted(LinkHandshake(RING, ALICE, random, dialer=not dialer).greeting)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_dialer_of_another_secret_or_cluster_is_refused_at_its_greeting(stranger):
    """The acceptor says why, before any frame."""
    dialer, acceptor = handshakes(dialer_ring=stranger)
    with pytest.raises(SealError, match="another secret or another cluster"):
        acceptor.receive_untrusted(dialer.greeting)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_who_copies_a_key_id_without_the_secret_gets_no_frame_through(stranger):
    """Key ids travel in clear; what proves a node is the first frame."""
    dialer, acceptor = handshakes(dialer_ring=stranger)
    forged = dialer.greeting[:6] + RING.primary.key_id + dialer.greeting[10:]
    accepted = acceptor.receive_untrusted(forged)
    dialled = dialer.receive_untrusted(acceptor.greeting)
    for sender, receiver in ((dialled, accepted), (accepted, dialled)):
        with pytest.raises(SealError, match="authenticate"):
            receiver.opener.feed_untrusted(sender.sealer.seal(b"hello"))


@pytest.mark.parametrize(
    ("dialer_ring", "acceptor_ring"),
    [
        (Keyring.from_secrets("shop", OLD), Keyring.from_secrets("shop", OLD, [NEW])),
        (Keyring.from_secrets("shop", OLD, [NEW]), Keyring.from_secrets("shop", OLD)),
        (Keyring.from_secrets("shop", OLD, [NEW]), Keyring.from_secrets("shop", NEW, [OLD])),
        (Keyring.from_secrets("shop", NEW, [OLD]), Keyring.from_secrets("shop", OLD, [NEW])),
        (Keyring.from_secrets("shop", NEW, [OLD]), Keyring.from_secrets("shop", NEW)),
        (Keyring.from_secrets("shop", NEW), Keyring.from_secrets("shop", NEW, [OLD])),
    ],
)
def test_nodes_one_step_apart_in_replacing_a_secret_can_link(dialer_ring, acceptor_ring):
    """Add, make primary, drop: at each step some nodes are ahead, and none may be cut off."""
    dialer, acceptor = links(dialer_ring, acceptor_ring)
    assert acceptor.opener.feed_untrusted(dialer.sealer.seal(b"hello")) == [b"hello"]
    assert dialer.opener.feed_untrusted(acceptor.sealer.seal(b"hello")) == [b"hello"]


def test_a_recorded_connection_cannot_be_played_again():
    """The acceptor's random bytes are new, so the recorded frames fit no key."""
    dialer, acceptor = handshakes()
    recorded = dialer.receive_untrusted(acceptor.greeting).sealer.seal(b"hello")
    again = LinkHandshake(RING, BOB, b"another 16 bytes", dialer=False).receive_untrusted(dialer.greeting)
    with pytest.raises(SealError):
        again.opener.feed_untrusted(recorded)


def test_two_dialers_joined_by_someone_between_get_no_link():
    """Each takes itself for the dialer, so the greetings stand in different order in their keys."""
    alice = LinkHandshake(RING, ALICE, b"random of dialer", dialer=True)
    bob = LinkHandshake(RING, BOB, b"random of dialer", dialer=True)
    of_alice, of_bob = alice.receive_untrusted(bob.greeting), bob.receive_untrusted(alice.greeting)
    with pytest.raises(SealError):
        of_bob.opener.feed_untrusted(of_alice.sealer.seal(b"hello"))


def test_a_handshake_makes_one_link():
    """The same greeting twice would give the same keys with counters at 0 again."""
    dialer, acceptor = handshakes()
    dialer.receive_untrusted(acceptor.greeting)
    with pytest.raises(AssertionError):
        dialer.receive_untrusted(acceptor.greeting)


@pytest.mark.parametrize(
    ("mine", "theirs", "agreed"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 2), (1, 1), 1),
        ((1, 2), (2, 3), 2),
        ((1, 4), (2, 3), 3),
        ((0, 255), (7, 7), 7),
    ],
)
def test_the_highest_common_version_is_used_whichever_side_asks(mine, theirs, agreed):
    """Both sides compute it alone and must come to the same."""
    assert agreed_version(mine, theirs) == agreed_version(theirs, mine) == agreed


@pytest.mark.parametrize(("mine", "theirs"), [((1, 1), (2, 3)), ((1, 2), (4, 3)), ((1, 3), (3, 2))])
def test_no_common_version_is_an_error_of_its_own(mine, theirs):
    """Also where a peer's range is upside down."""
    for pair in ((mine, theirs), (theirs, mine)):
        with pytest.raises(VersionError):
            agreed_version(*pair)


def test_a_peer_of_later_versions_only_is_named_as_such():
    """Found at the greeting, so that the log says "upgrade" and not "wrong secret"."""
    dialer, acceptor = handshakes()
    with pytest.raises(VersionError, match="2 to 3"):
        acceptor.receive_untrusted(dialer.greeting[:4] + b"\2\3" + dialer.greeting[6:])


# --- frames ---------------------------------------------------------------------------------------------


def test_no_flipped_bit_of_a_frame_passes():
    """Length, body and tag. A length made larger waits for more, and is refused once that has come."""
    dialer, _ = links()
    for altered in flips(dialer.sealer.seal(b"push")):
        _, acceptor = links()
        with pytest.raises(SealError):
            acceptor.opener.feed_untrusted(altered + bytes(FRAME_BYTES_MAX))


def test_a_truncated_frame_waits_and_delivers_nothing():
    """Where a stream is cut says nothing; its rest may be in the next packet."""
    dialer, acceptor = links()
    data = dialer.sealer.seal(b"push")
    assert acceptor.opener.feed_untrusted(data[:-1]) == []
    assert acceptor.opener.feed_untrusted(data[-1:]) == [b"push"]


def test_frames_open_only_once_and_only_in_their_order():
    """Someone between can repeat, drop and swap whole frames without knowing the key."""
    dialer, _ = links()
    first, second = dialer.sealer.seal(b"same"), dialer.sealer.seal(b"same")
    assert first != second
    for tampered in (first + first, second, second + first):
        _, acceptor = links()
        with pytest.raises(SealError):
            acceptor.opener.feed_untrusted(tampered)


def test_a_frame_sent_back_to_its_sender_is_refused():
    """Both directions count from 0: under one key, my own acknowledgement would look like the peer's."""
    dialer, acceptor = links()
    for link in (dialer, acceptor):
        with pytest.raises(SealError):
            link.opener.feed_untrusted(link.sealer.seal(b"ack"))
