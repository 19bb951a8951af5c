# Keyring: from the secrets an operator writes to every key that seals or signs something.
#
# In:    the cluster's name, its secret, and the secrets still (or already) accepted while one is replaced.
# Out:   ClusterKey: a public key id and a key for each purpose.  Keyring: the one that seals, all that open.
# Rule:  secret, cluster name -> root -> one key for each purpose, each step HKDF-SHA256 (RFC 5869) with its
#        own info, so that no key tells anything of another. The cluster's name goes into the root: two
#        clusters that share a secret by accident share no key, and no message has to carry the name.
# Why key ids and not trial decryption: a stranger's datagram then mostly costs a comparison of four bytes.
# Why no password hashing: a secret is machine-made and long. Stretching a short one would make every start
#        slow and still leave it guessable to who records one datagram; so a short one is refused.
# Not here: sealing (crypto.py); the file in which a node without a secret keeps a random one.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gossipsess.errors import ConfigError, StrangerError
from gossipsess.model.identity import NODE_ID_BYTES, NodeId

KEY_ID_BYTES: Final = 4
KEY_BYTES: Final = 32
SECRET_CHARACTERS_MIN: Final = 16

# The infos stay distinct whatever follows them: none of them is the beginning of another.
_ROOT = b"gossipsess/1 root: "
_KEY_ID = b"gossipsess/1 key id"
_TOKEN = b"gossipsess/1 token"
_DATAGRAM = b"gossipsess/1 datagrams of "
_LINK = b"gossipsess/1 link: "
_HANDOVER = b"gossipsess/1 handover: "


class ClusterKey:
    """All keys that come from one secret in one cluster. Its repr shows the key id and nothing else.

    Attributes:
        key_id: 4 bytes, public: sent in clear so that a receiver knows at once which key opens.
        token_key: 32 bytes for the MAC of version tokens.
    """

    __slots__ = ("_root", "key_id", "token_key")

    def __init__(self, secret: bytes | str, cluster: str) -> None:
        """Derive from a secret (text counts as its UTF-8) whose length `Keyring.from_secrets` has checked."""
        self._root = _hkdf(_octets(secret), info=_ROOT + _octets(cluster), length=KEY_BYTES)
        self.key_id = _hkdf(self._root, info=_KEY_ID, length=KEY_ID_BYTES)
        self.token_key = _hkdf(self._root, info=_TOKEN, length=KEY_BYTES)

    def datagram_key(self, sender: NodeId) -> bytes:
        """Return the 32-byte key of one sender's datagrams.

        Each sender has its own, so that every sender may count its nonces from 0 without asking the others.
        """
        assert len(sender) == NODE_ID_BYTES
        return _hkdf(self._root, info=_DATAGRAM + sender, length=KEY_BYTES)

    def link_keys(self, randoms: bytes, greetings: bytes) -> tuple[bytes, bytes]:
        """Return a link's two 32-byte keys: from dialer to acceptor, from acceptor to dialer.

        Args:
            randoms: the dialer's random bytes, then the acceptor's: keys are new on every link.
            greetings: the dialer's whole greeting, then the acceptor's: altered on the way, the keys differ.
        """
        keys = _hkdf(self._root, info=_LINK + greetings, length=2 * KEY_BYTES, salt=randoms)
        return keys[:KEY_BYTES], keys[KEY_BYTES:]

    def handover_key(self, header: bytes) -> bytes:
        """Return the 32-byte key of one file of records; `header`: how it begins, random bytes among it."""
        return _hkdf(self._root, info=_HANDOVER + header, length=KEY_BYTES)

    def __repr__(self) -> str:
        return f"<ClusterKey {self.key_id.hex()}>"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key this node seals with, and the further ones it opens with while a secret is replaced.

    To replace a secret without a gap: first add the new one to every node's fallbacks, then make it every
    node's primary, then drop the old one.
    """

    primary: ClusterKey
    fallbacks: tuple[ClusterKey, ...] = ()

    @classmethod
    def from_secrets(cls, cluster: str, secret: bytes | str, fallbacks: Sequence[bytes | str] = ()) -> Self:
        """Return the ring of the settings `cluster`, `secret` and `secret_fallbacks`.

        Raises:
            ConfigError: a secret has fewer than 16 characters. The message does not show it.
        """
        _check_length("secret", secret)
        for fallback in fallbacks:
            _check_length("secret_fallbacks", fallback)
        return cls(ClusterKey(secret, cluster), tuple(ClusterKey(fallback, cluster) for fallback in fallbacks))

    def by_id(self, key_id: bytes) -> ClusterKey:
        """Return the key with this id.

        Raises:
            StrangerError: no such key in this ring: the sender has another secret, or is of another cluster.
        """
        if key_id == self.primary.key_id:
            return self.primary
        for key in self.fallbacks:
            if key_id == key.key_id:
                return key
        raise StrangerError(f"unknown key {key_id.hex()}: another secret or another cluster")


def _check_length(setting: str, secret: bytes | str) -> None:
    if len(secret) < SECRET_CHARACTERS_MIN:
        raise ConfigError(
            f"{setting}: {len(secret)} characters (not shown) are too few; a secret has at least "
            f"{SECRET_CHARACTERS_MIN}, made at random. "
            "`gossipsess keygen` makes one."
        )


def _octets(text: bytes | str) -> bytes:
    # An environment variable that is not UTF-8 reaches Python with surrogates in it; it gives its bytes back.
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _hkdf(key: bytes, *, info: bytes, length: int, salt: bytes | None = None) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)
