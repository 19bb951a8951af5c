# Keyring: which secrets are taken, and that every key differs where it must.

from hashlib import sha256

import pytest

from gossipsess.errors import ConfigError, SealError
from gossipsess.wire.keyring import ClusterKey, Keyring

SECRET = "correct-horse-battery"
OTHER_SECRET = "another-horse-battery"
ALICE, BOB = b"alice...", b"bob....."


def every_key(key: ClusterKey) -> list[bytes]:
    return [
        key.key_id,
        key.token_key,
        key.datagram_key(ALICE),
        key.datagram_key(BOB),
        *key.link_keys(b"r" * 32, b"g" * 68),
        *key.link_keys(b"R" * 32, b"g" * 68),
        *key.link_keys(b"r" * 32, b"G" * 68),
    ]


def test_no_two_purposes_senders_links_or_directions_share_a_key():
    """Two users of one key would use the same nonces, and AES-GCM gives its authentication key away then."""
    keys = every_key(ClusterKey(SECRET, "shop"))
    assert len(set(keys)) == len(keys)
    assert [len(key) for key in keys] == [4] + [32] * 9


@pytest.mark.parametrize("other", [ClusterKey(OTHER_SECRET, "shop"), ClusterKey(SECRET, "shop-staging")])
def test_another_secret_or_another_cluster_shares_no_key(other):
    """Staging started with production's secret must not join production."""
    assert not set(every_key(ClusterKey(SECRET, "shop"))) & set(every_key(other))


def test_the_same_secret_gives_the_same_keys_on_every_node():
    """Keys are never exchanged. Pinned too: a changed derivation would split a cluster during an upgrade."""
    keys = every_key(ClusterKey(SECRET, "shop"))
    assert keys == every_key(ClusterKey(SECRET.encode(), "shop"))
    assert keys[0].hex() == "2ba0f66a"
    assert sha256(b"".join(keys)).hexdigest() == "d781812a6f3bd5bdaa67546f59f7e904db5c26741588d643ed93988b97d72b9f"


def test_a_secret_from_the_environment_that_is_not_utf_8_counts_as_its_bytes():
    """Python shows such bytes as lone surrogates, which plain encoding refuses at the first start."""
    secret = b"\xff\xfe is not valid UTF-8"
    assert ClusterKey(secret.decode("utf-8", "surrogateescape"), "c").key_id == ClusterKey(secret, "c").key_id


def test_a_key_is_found_by_its_id_among_primary_and_fallbacks():
    """While a secret is replaced, nodes seal with different ones."""
    ring = Keyring.from_secrets("shop", SECRET, [OTHER_SECRET])
    assert ring.by_id(ClusterKey(SECRET, "shop").key_id) is ring.primary
    assert ring.by_id(ClusterKey(OTHER_SECRET, "shop").key_id) is ring.fallbacks[0]


def test_an_unknown_key_id_is_refused():
    """Another team's cluster in the same network segment is dropped after four bytes."""
    with pytest.raises(SealError, match="another secret or another cluster"):
        Keyring.from_secrets("shop", SECRET).by_id(ClusterKey(SECRET, "mail").key_id)


@pytest.mark.parametrize(
    ("setting", "secret", "fallbacks"),
    [
        ("secret", "hunter2-hunter2", []),
        ("secret", b"hunter2-hunter2", []),
        ("secret", "", []),
        ("secret_fallbacks", SECRET, [OTHER_SECRET, "hunter2-hunter2"]),
        ("secret_fallbacks", SECRET, OTHER_SECRET),  # one string where a list belongs
    ],
)
def test_a_short_secret_is_refused_by_setting_without_being_shown(setting, secret, fallbacks):
    """Who records one datagram can try short secrets at leisure; and the error will stand in a log."""
    with pytest.raises(ConfigError, match=rf"^{setting}: .*gossipsess keygen") as caught:
        Keyring.from_secrets("shop", secret, fallbacks)
    assert "hunter2" not in str(caught.value)


def test_sixteen_characters_are_enough():
    """The bound itself is allowed, as the error message says."""
    Keyring.from_secrets("shop", "x" * 16, ["y" * 16])


def test_no_repr_shows_a_secret_or_a_key():
    """A ring ends up in tracebacks and debug logs."""
    ring = Keyring.from_secrets("shop", SECRET, [OTHER_SECRET])
    shown = repr(ring)
    assert ring.primary.key_id.hex() in shown
    assert "horse" not in shown
    for key in (ring.primary, *ring.fallbacks):
        for hidden in every_key(key)[1:]:
            assert hidden.hex() not in shown
            assert repr(hidden) not in shown
