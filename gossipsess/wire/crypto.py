# Sealing: whatever leaves a node is encrypted and authenticated here, whatever comes in is opened here.
#
#     datagram = version (1) | key id (4) | sender (8) | counter (8) | AEAD(body) | tag (16)
#     greeting = "GSES" | version min (1) | version max (1) | key id (4) | node id (8) | random (16)
#     link     = greeting, then frames (frame.py), each way
#
# Integers are big endian. A nonce is a counter, never random: random ones of 96 bits reach the bound of 2**32
# messages a key within weeks. A counter is safe because no two sealers share a key: each sender of datagrams
# has its own, and so has each direction of each link.
# Additional data: a datagram's header; a frame's length. The cluster's name is bound by the key itself.
# Why AES-256-GCM and not ChaCha20-Poly1305: with the processor's AES instructions it costs a third.
# Why a handshake of our own and not TLS: the nodes share a secret, not certificates, and nobody has to issue
#       any. The price is no forward secrecy: who learns the secret can read what was recorded before.
# Which key: a datagram's sender and a link's dialer use their primary, which the other side must have in its
#       ring. The acceptor's key id chooses nothing; like both greetings, it is bound into the link's keys.
# Not here: deriving keys (keyring.py), where random bytes come from (arguments), how many strangers may be in
#       the midst of a handshake and for how long (the TCP side).

import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gossipsess.errors import SealError, SelfReached, VersionError
from gossipsess.model.identity import NODE_ID_BYTES, NodeId, short
from gossipsess.wire.frame import LENGTH_BYTES, TAG_BYTES, FrameCutter, MessageJoiner, split
from gossipsess.wire.keyring import ClusterKey, Keyring

PROTOCOL_VERSION_MIN: Final = 1
PROTOCOL_VERSION_MAX: Final = 1
"""The versions a link may agree on. Who raises the highest keeps the one before, for rolling upgrades."""

DATAGRAM_VERSION: Final = 1
DATAGRAM_BYTES_MAX: Final = 1200
"""Largest sealed datagram: passes any path that carries IPv6 (1280 bytes) with its headers, unfragmented."""

_DATAGRAM_HEADER = struct.Struct(">B4s8sQ")
DATAGRAM_BODY_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - _DATAGRAM_HEADER.size - TAG_BYTES

REPLAY_WINDOW: Final = 1024
"""How far behind a sender's newest datagram another may come and still be opened: 50 s at 20 a second."""

SENDERS_MAX: Final = 1024
"""Senders whose window and key are kept, about 1 KiB each. Every start of a node is a new sender, so without
a bound the table would grow for as long as a process lives."""

RANDOM_BYTES: Final = 16
_GREETING = struct.Struct(f">4sBB4s{NODE_ID_BYTES}s{RANDOM_BYTES}s")
GREETING_BYTES: Final = _GREETING.size
_MAGIC = b"GSES"

_COUNTERS = 2**64


class ReplayWindow:
    """Which of one sender's last REPLAY_WINDOW counters have been seen. Older ones count as seen."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i stands for the counter `_highest - i`

    def take(self, counter: int) -> bool:
        """Mark a counter (0 or more) as seen; say whether it was new. For authenticated counters only."""
        ahead = counter - self._highest
        if ahead >= REPLAY_WINDOW:  # shifting by what a sender chose could ask for 2**64 bits
            self._seen = 1
        elif ahead > 0:
            self._seen = (self._seen << ahead | 1) & ((1 << REPLAY_WINDOW) - 1)
        else:
            bit = 1 << -ahead if ahead > -REPLAY_WINDOW else 0
            if not bit or self._seen & bit:
                return False
            self._seen |= bit
            return True
        self._highest = counter
        return True


class DatagramSealer:
    """Seals one node's datagrams. One for each node id and key: a second one would use every nonce again."""

    def __init__(self, key: ClusterKey, sender: NodeId) -> None:
        self._key_id = key.key_id
        self._sender = sender
        self._aead = AESGCM(key.datagram_key(sender))
        self._counter = 0

    def seal(self, body: bytes) -> bytes:
        """Return the datagram that carries a body of at most DATAGRAM_BODY_BYTES_MAX."""
        assert len(body) <= DATAGRAM_BODY_BYTES_MAX, f"a datagram body of {len(body)} bytes"
        assert self._counter < _COUNTERS, "all counters are used"
        header = _DATAGRAM_HEADER.pack(DATAGRAM_VERSION, self._key_id, self._sender, self._counter)
        sealed = header + self._aead.encrypt(_nonce(self._counter), body, header)
        self._counter += 1
        return sealed


class DatagramOpener:
    """Opens the datagrams of everyone who seals with a key of the ring, each of them once.

    "Once" ends where memory does: after SENDERS_MAX other senders, or a restart of this process, an old
    datagram opens again. So a datagram may carry only what is idempotent and ordered by itself, as membership
    is. This node's own datagrams open too (multicast brings them back); the caller knows its own id.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        # (key id, sender), since under another key a sender counts from 0 again. Least recently heard first.
        self._senders: OrderedDict[tuple[bytes, NodeId], tuple[AESGCM, ReplayWindow]] = OrderedDict()

    def open_untrusted(self, data: bytes) -> tuple[NodeId, bytes]:
        """Return who sealed a datagram, and its body.

        Raises:
            VersionError: sealed in another version, or not one of ours at all.
            StrangerError: of an unknown key.
            SealError: too short, altered, or seen before (or too old to know).
        """
        if len(data) < _DATAGRAM_HEADER.size + TAG_BYTES:
            raise SealError(f"a datagram of {len(data)} bytes")
        header, sealed = data[: _DATAGRAM_HEADER.size], data[_DATAGRAM_HEADER.size :]
        version, key_id, sender, counter = _DATAGRAM_HEADER.unpack(header)
        if version != DATAGRAM_VERSION:
            raise VersionError(f"a datagram of version {version}; this node reads {DATAGRAM_VERSION}")
        key = self._keyring.by_id(key_id)
        known = self._senders.get((key_id, sender))
        aead, window = known or (AESGCM(key.datagram_key(sender)), ReplayWindow())
        body = _open_untrusted(aead, counter, sealed, header)
        # Only now does anything change: a forged datagram uses up no counter and pushes no sender out.
        self._senders[key_id, sender] = aead, window
        self._senders.move_to_end((key_id, sender))
        if len(self._senders) > SENDERS_MAX:
            self._senders.popitem(last=False)
        if not window.take(counter):
            raise SealError(f"datagram {counter} of {short(sender)} came before, or is too old to know")
        return sender, body


class FrameSealer:
    """Seals one direction of one link."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._counter = 0

    def seal(self, message: bytes) -> bytes:
        """Return the frames, ready to send, that carry a message of at most MESSAGE_BYTES_MAX."""
        parts: list[bytes] = []
        for body in split(message):
            length = (len(body) + TAG_BYTES).to_bytes(LENGTH_BYTES, "big")
            parts += (length, self._aead.encrypt(_nonce(self._counter), body, length))
            self._counter += 1
        return b"".join(parts)


class FrameOpener:
    """Opens one direction of one link. The first message that comes out proves that the peer has the key."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._counter = 0
        self._cutter = FrameCutter()
        self._joiner = MessageJoiner()

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """Take what was read from the stream, however cut; return the messages that are now complete.

        Raises:
            SealError: a frame the peer did not seal at this place: altered, repeated, left out or sent back.
            DecodeError: the peer's frames are not a message (see frame.py).
            After either, the stream has lost its place and the link is to be closed.
        """
        messages = []
        for frame in self._cutter.feed_untrusted(data):
            body = _open_untrusted(self._aead, self._counter, frame[LENGTH_BYTES:], frame[:LENGTH_BYTES])
            self._counter += 1
            message = self._joiner.add_untrusted(body)
            if message is not None:
                messages.append(message)
        return messages


@dataclass(frozen=True, slots=True)
class Link:
    """What a handshake yields. Who the peer is stands proven once `opener` has opened a first message."""

    sealer: FrameSealer
    opener: FrameOpener
    peer: NodeId
    version: int


class LinkHandshake:
    """One side of a new connection: send `greeting`, read GREETING_BYTES, hand them to `receive_untrusted`.

    A greeting has a fixed size and holds no secret. Both are bound into the keys, the dialer's first. So one
    that was altered, replayed from another link or sent in the wrong role leaves the two sides with different
    keys, and neither opens the other's first frame.
    """

    def __init__(self, keyring: Keyring, node_id: NodeId, random16: bytes, *, dialer: bool) -> None:
        """Prepare a handshake.

        Args:
            keyring: a dialer uses its primary; an acceptor the key that the dialer names.
            node_id: this node.
            random16: 16 bytes of the system's random source, new for every handshake.
            dialer: whether this side opened the connection.
        """
        assert len(node_id) == NODE_ID_BYTES
        assert len(random16) == RANDOM_BYTES
        self._keyring = keyring
        self._node_id = node_id
        self._random = random16
        self._dialer = dialer
        self._used = False
        self._peer_key_id = keyring.primary.key_id
        self.greeting = _GREETING.pack(
            _MAGIC, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, keyring.primary.key_id, node_id, random16
        )

    def receive_untrusted(self, greeting: bytes) -> Link:
        """Take the peer's greeting and return the link. Once only: a second link would use every nonce again.

        Raises:
            StrangerError: a dialer's key that is not in the ring.
            SealError: not a greeting.
            SelfReached: this node's own.
            VersionError: no version in common.
        """
        assert not self._used, "a handshake makes one link"
        if len(greeting) != GREETING_BYTES:
            raise SealError(f"a greeting of {len(greeting)} bytes")
        magic, version_min, version_max, key_id, peer, random = _GREETING.unpack(greeting)
        if magic != _MAGIC:
            raise SealError(f"not a gossipsess greeting: {magic!r}")
        if peer == self._node_id:
            raise SelfReached("self: this node reached its own port, or its greeting was sent back")
        self._peer_key_id = key_id
        version = agreed_version((PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX), (version_min, version_max))
        if self._dialer:
            key = self._keyring.primary
            outward, inward = key.link_keys(self._random + random, self.greeting + greeting)
        else:
            key = self._keyring.by_id(key_id)
            inward, outward = key.link_keys(random + self._random, greeting + self.greeting)
        self._used = True
        return Link(FrameSealer(outward), FrameOpener(inward), peer, version)

    def check_peer_key(self) -> None:
        """Look whether the peer's own primary key is one of ours: where not, that is why it ended the handshake.

        Raises:
            StrangerError: it is not.
        """
        self._keyring.by_id(self._peer_key_id)


def agreed_version(mine: tuple[int, int], theirs: tuple[int, int]) -> int:
    """Return the highest version that lies in both ranges (lowest, highest).

    Raises:
        VersionError: there is none.
    """
    version = min(mine[1], theirs[1])
    if version < max(mine[0], theirs[0]):
        raise VersionError(f"no version in common: mine {mine[0]} to {mine[1]}, the peer's {theirs[0]} to {theirs[1]}")
    return version


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


def _open_untrusted(aead: AESGCM, counter: int, sealed: bytes | memoryview, additional: bytes | memoryview) -> bytes:
    try:
        return aead.decrypt(_nonce(counter), sealed, additional)
    except InvalidTag:
        raise SealError("does not authenticate: altered, or sealed with another key") from None
