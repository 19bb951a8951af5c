# Surplus: sessions that are held here although placement gives them to others; how those come to hold them, and when
# they may be dropped here.
#
#   Have -> Held    I hold these sessions of a partition; you are one of its holders, do you?
#
# Securing   after the layout changed, what this node holds no longer is offered to the new holders; so is, half a
#            second later, what came from somebody who took this node for a holder. What they lack is owed to them, and
#            asked about again until they hold it. A node that leaves has secured everything before it goes.
# Dropping   one partition after the other is checked, with one of its holders after the other: what the first has
#            newer comes with its answer, and the next is asked about that. A copy is dropped only if
#            1. the layout did not change for `QUIET_S`, and nobody used the copy for as long;
#            2. every holder of this node's layout said that it holds this very state, or a tombstone;
#            3. and that it is a holder itself, as it sees the cluster;
#            4. all of it within `FRESH_S` after the questions began;
#            5. the record has not changed since.
#
# Why no drop loses a state, though every node decides alone and by a view of its own. By 2 and 3 the copy is backed by
# the copies of as many nodes as shall hold it. Could one of them, B, drop its own, backed by this one, A? When B
# answered it was a holder by its own layout; to drop, its layout must change afterwards, and all questions of that drop
# come after this change (1 and 4: 60 s of quiet, questions not older than 10 s). When A backs such a drop, it is a
# holder then, and so A's layout changes later still, before A may drop. But A's questions also came after A's last
# change, and B's answer after A's question. So each drop that backs another has a later last change of the layout, and
# of drops in a circle each would be later than the next. Hence the last of any chain is backed by copies that stay.
# An answer so binds the answerer without a promise that it must remember. Crashes: at most those of the `FRESH_S`
# before a drop are not known to it.
#
# Not here: in which order is asked, and what a holder answers (offers.py); sending (replication.py); how a holder comes
# to hold what it does not know it lacks (sync.py).

from collections.abc import Collection
from math import inf
from typing import Final, NamedTuple, Protocol

from gossipsess.model.digest import partitions_in
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.model.record import Claims
from gossipsess.model.table import Table
from gossipsess.protocol.offers import NAMED_MAX, Offers, Question, gap_of
from gossipsess.protocol.placement import partition_of
from gossipsess.wire.messages import Have, Held

QUIET_S: Final = 60.0
"""How long the layout must not have changed, and the copy not have been used. Shorter: a node that restarts in place
gets back over the network what others had still held."""
FRESH_S: Final = 10.0
"""Within which all holders must have answered. Longer: more of them may have died since."""
SECURE_AFTER_S: Final = 10.0
"""After a layout change of a node that stays. The new holder asks all others by itself: offered at once, it would get
the same sessions from each of those that held them before."""
OFFER_AFTER_S: Final = 0.5
"""After a push from a node with another view: by then its view has mostly changed, and the holders have it too."""
REPEAT_S: Final = 1.0
"""After which an unanswered question is asked again."""
CHECK_EVERY_S: Final = 10.0
"""Between two looks for copies to drop."""
LOOKED_AT_ONCE: Final = 1024
"""Partitions and sessions looked at for that in one go; the rest follows at once, but others get their turn."""
CHECKED_MAX: Final = 128
"""Copies in one check: with sixteen claims each, a question about them is still one frame."""


class Layout(Protocol):
    """What is wanted of a placement."""

    def holders(self, partition: int) -> tuple[Member, ...]:
        """Return who holds a partition."""

    def holds(self, node: NodeId, partition: int) -> bool:
        """Say whether a node holds a partition."""

    def partitions_of(self, node: NodeId) -> int:
        """Return what a node holds, as a scope."""


class Step(NamedTuple):
    """What is to be done for surplus copies."""

    asks: tuple[tuple[NodeId, Have], ...] = ()
    owed: tuple[tuple[NodeId, Sid, Claims | None], ...] = ()
    """(peer, session, claims): the peer lacks what these claims do not cover; None: all of it."""
    dropped: tuple[Sid, ...] = ()
    """Not in the table any more; nothing is owed to anybody of these."""


class _Use(NamedTuple):
    used_s: float
    validated_s: float | None


class _Check:
    """Copies of one partition of which all holders are being asked whether they may be dropped here."""

    __slots__ = ("begun", "partition", "states", "turn", "until_s", "waiting")

    def __init__(self, partition: int, states: dict[Sid, int], holders: list[NodeId], now_s: float) -> None:
        self.partition = partition
        self.states = states
        """The copies, as they are; those that somebody lacks are taken out."""
        self.waiting = dict.fromkeys(holders)
        """Who has not answered."""
        self.turn: NodeId | None = holders[0]
        """Whom to ask next; None while one is being asked."""
        self.begun = False
        """One has answered, so that a copy that changes now is none that all are asked about."""
        self.until_s = now_s + FRESH_S


class _Asked(NamedTuple):
    round: int
    question: Question
    check: _Check | None
    again_at_s: float


class _Peer:
    __slots__ = ("asked", "linked", "offers")

    def __init__(self) -> None:
        self.offers = Offers()
        self.asked: _Asked | None = None
        self.linked = False


class Surplus:
    """One node's copies of what others hold. Times are seconds on the caller's monotonic clock."""

    def __init__(self, myself: NodeId, now_s: float) -> None:
        self.offered = 0
        """Sessions named in questions."""
        self.dropped = 0
        self._myself = myself
        self._changed_at_s = now_s
        self._peers: dict[NodeId, _Peer] = {}
        self._received: dict[Sid, float] = {}  # when to offer it
        self._uses: dict[int, dict[Sid, _Use]] = {}  # by partition
        self._round = 0
        self._check: _Check | None = None
        self._to_look_in: list[int] | None = None  # partitions that come next; None between two looks
        self._looked_in = 0
        self._unchecked: list[Sid] = []  # of the partition looked in last
        self._check_at_s = now_s + QUIET_S

    # --- what happens -------------------------------------------------------------------------------------

    def layout_changed(
        self,
        before: Layout,
        after: Layout,
        table: Table,
        now_s: float,
        *,
        at_once: bool = False,
        filling: Collection[NodeId] = (),
    ) -> None:
        """Offer what is held here no longer to who holds it now, and did not before.

        What was still to be offered stays so, to those that hold it in the new layout. `at_once`: this node leaves,
        and nobody will find the sessions here later. `filling`: who has just started, say, and may not have come to
        what this node held with it.
        """
        myself = self._myself
        self._changed_at_s = now_s
        self._check_at_s = now_s + QUIET_S
        self._to_look_in, self._unchecked = None, []
        held_now = after.partitions_of(myself)
        for node, peer in self._peers.items():
            wanted = after.partitions_of(node) & ~held_now
            peer.offers.forget([partition for partition in peer.offers.partitions if not wanted >> partition & 1])
        self._uses = {partition: uses for partition, uses in self._uses.items() if not held_now >> partition & 1}
        due_s = now_s if at_once else now_s + SECURE_AFTER_S
        for partition in partitions_in(table.occupied & ~held_now):
            held = before.holds(myself, partition)
            for member in after.holders(partition):
                if not before.holds(member.node, partition) or (held and member.node in filling):
                    self._peer(member.node).offers.offer_all(partition, due_s)
        if at_once:
            self._received = dict.fromkeys(self._received, now_s)
            for peer in self._peers.values():
                peer.offers.hurry(now_s)
        for node in [node for node, peer in self._peers.items() if not peer.linked and not peer.offers.partitions]:
            del self._peers[node]

    def offer_to(self, node: NodeId, layout: Layout, table: Table, now_s: float) -> None:
        """Offer a holder all that is held here for it: what it was owed has been given up."""
        for_it = layout.partitions_of(node) & ~layout.partitions_of(self._myself)
        for partition in partitions_in(table.occupied & for_it):
            self._peer(node).offers.offer_all(partition, now_s)

    def link_up(self, node: NodeId) -> None:
        """A link to a member is in use: it can be asked."""
        self._peer(node).linked = True

    def link_down(self, node: NodeId, now_s: float) -> None:
        """The link to a member is lost. Whether what it has said still holds, nobody knows."""
        peer = self._peers.get(node)
        if peer is not None:
            self._give_back(node, peer, now_s)
            peer.linked = False
        self._check = None

    def received(self, sid: Sid, now_s: float) -> None:
        """A session came that is not held here by placement, and not from one of its holders."""
        self._received.setdefault(sid, now_s + OFFER_AFTER_S)
        self.used(sid, now_s)

    def used(self, sid: Sid, now_s: float) -> None:
        """A request read or wrote a surplus copy."""
        uses = self._uses.setdefault(partition_of(sid), {})
        before = uses.get(sid)
        uses[sid] = _Use(now_s, before.validated_s if before is not None else None)

    def validated(self, sid: Sid, now_s: float, *, used: bool = True) -> None:
        """A holder has confirmed that a surplus copy is what it holds itself, or made it so.

        Not `used`: no request here had asked it to.
        """
        uses = self._uses.setdefault(partition_of(sid), {})
        before = uses.get(sid)
        unused_s = before.used_s if before is not None else -inf
        uses[sid] = _Use(now_s if used else unused_s, now_s)

    def validated_s(self, sid: Sid) -> float | None:
        """Return when a holder last confirmed a surplus copy; None where that is not known. From any thread."""
        use = self._uses.get(partition_of(sid), {}).get(sid)
        return use.validated_s if use is not None else None

    def asks(self, peer: NodeId, sid: Sid) -> bool:
        """Say whether a peer is being asked whether it holds a session: what it pushes of it goes before its answer."""
        asking = self._peers.get(peer)
        asked = asking.asked if asking is not None else None
        return asked is not None and any(gap.sid == sid for gap in asked.question.gaps)

    def forget(self, sid: Sid) -> None:
        """A session has ended."""
        self._received.pop(sid, None)
        partition = partition_of(sid)
        uses = self._uses.get(partition)
        if uses is not None and uses.pop(sid, None) is not None and not uses:
            del self._uses[partition]

    def held(self, peer: NodeId, message: Held, layout: Layout, table: Table, now_s: float) -> Step:
        """Take a holder's answer: owe it what it lacks, drop what all hold, and ask on."""
        asking = self._peers.get(peer)
        asked = asking.asked if asking is not None else None
        if asking is None or asked is None or asked.round != message.round:
            return Step()  # it was asked again meanwhile
        asking.asked = None
        partition = asked.question.partition
        owed: tuple[tuple[NodeId, Sid, Claims | None], ...] = ()
        dropped: tuple[Sid, ...] = ()
        if layout.holds(peer, partition) and not layout.holds(self._myself, partition):
            owed = self._lacking(peer, asking, asked, message, table, now_s)
            if asked.check is not None and asked.check is self._check:
                dropped = self._checked(peer, asked.check, message, layout, table, now_s)
        return Step(self._asks(layout, table, now_s), owed, dropped)

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when `timeout` has work to do at the latest."""
        due_s = self._check_at_s if self._check is None else self._check.until_s
        for received_s in self._received.values():
            due_s = min(due_s, received_s)
            break  # the first is the oldest
        for peer in self._peers.values():
            if peer.linked:
                due_s = min(due_s, peer.asked.again_at_s if peer.asked else peer.offers.next_deadline())
        return due_s

    def timeout(self, now_s: float, layout: Layout, table: Table) -> Step:
        """Ask whatever is due. A call names at most 256 sessions to each peer; a large table takes many."""
        return Step(self._asks(layout, table, now_s))

    @property
    def securing(self) -> int:
        """How many partitions have sessions of which not all holders that should be asked are known to hold them."""
        partitions = dict.fromkeys(map(partition_of, self._received))
        for peer in self._peers.values():
            partitions.update(dict.fromkeys(peer.offers.partitions))
            if peer.asked is not None and peer.asked.check is None:
                partitions[peer.asked.question.partition] = None
        return len(partitions)

    # --- inside -------------------------------------------------------------------------------------------

    def _peer(self, node: NodeId) -> _Peer:
        return self._peers.setdefault(node, _Peer())

    def _lacking(
        self, node: NodeId, peer: _Peer, asked: _Asked, message: Held, table: Table, now_s: float
    ) -> tuple[tuple[NodeId, Sid, Claims | None], ...]:
        """Note what a holder lacks; return what it is owed."""
        question = asked.question
        theirs = {gap.sid: gap for gap in message.lacking}
        lacking: dict[Sid, int] = {}
        owed: list[tuple[NodeId, Sid, Claims | None]] = []
        for mine in question.gaps:
            sid = mine.sid
            gap = theirs.get(sid)
            record = table.records.get(sid)
            if record is None:
                continue
            # What it has more came before its answer. Where that made the states equal, it lacks nothing; asked again
            # instead, a session that is written all the time would never be found equal, and no drain would end.
            if gap is not None and gap.state_hash != record.state_hash:
                # Lacking the same as before: its claims cover what it does not hold. Only the whole record can help.
                whole = question.lacked.get(sid) == gap.state_hash
                owed.append((node, sid, None if whole else gap.claims))
                lacking[sid] = gap.state_hash
            elif not message.holder and asked.check is None:
                lacking[sid] = record.state_hash  # it does not know yet that it is to hold it, or this node errs
        if question.lacked:
            peer.offers.asked_again(any(sid in lacking for sid in question.lacked))
        if lacking:
            peer.offers.lacks(question.partition, lacking, now_s)
        return tuple(owed)

    def _checked(
        self, node: NodeId, check: _Check, message: Held, layout: Layout, table: Table, now_s: float
    ) -> tuple[Sid, ...]:
        """Take one holder's answer for a check; return what was dropped, if it was the last."""
        check.waiting.pop(node, None)
        check.turn = next(iter(check.waiting), None)
        if not message.holder:
            check.states.clear()
        for gap in message.lacking:
            named = check.states.pop(gap.sid, None) is not None
            # What the first holder has newer came before its answer. If that is all there is, its state is this copy's
            # now, and the others are asked about it; else the copy is not in that state, and is let alone.
            if named and not check.begun:
                check.states[gap.sid] = gap.state_hash
        check.begun = True
        if check.waiting and check.states:
            return ()
        self._check = None
        if now_s > check.until_s or now_s < self._changed_at_s + QUIET_S:
            return ()
        dropped = tuple([sid for sid, state in check.states.items() if self._may_go(sid, state, table, now_s)])
        for sid in dropped:
            table.drop(sid, self._myself, now_s)
            self.forget(sid)
        self.dropped += len(dropped)
        return dropped

    def _may_go(self, sid: Sid, state: int, table: Table, now_s: float) -> bool:
        record = table.records.get(sid)
        return record is not None and record.state_hash == state and self._is_idle(sid, now_s)

    def _is_idle(self, sid: Sid, now_s: float) -> bool:
        use = self._uses.get(partition_of(sid), {}).get(sid)
        return use is None or use.used_s + QUIET_S <= now_s

    def _asks(self, layout: Layout, table: Table, now_s: float) -> tuple[tuple[NodeId, Have], ...]:
        self._offer_received(layout, now_s)
        self._begin_check(layout, table, now_s)
        asks: list[tuple[NodeId, Have]] = []
        for node, peer in self._peers.items():
            if not peer.linked:
                continue
            if peer.asked is not None:
                if now_s < peer.asked.again_at_s:
                    continue
                self._give_back(node, peer, now_s)
            check = None
            question = peer.offers.next_question(table, now_s)
            if question is None and self._check is not None and node == self._check.turn:
                check = self._check
                check.turn = None
                question = _check_question(check, table)
            if question is not None:
                self._round += 1
                self.offered += len(question.gaps)
                peer.asked = _Asked(self._round, question, check, now_s + REPEAT_S)
                asks.append((node, Have(self._round, question.partition, question.gaps)))
        return tuple(asks)

    def _give_back(self, node: NodeId, peer: _Peer, now_s: float) -> None:
        """Ask again what was not answered."""
        asked, peer.asked = peer.asked, None
        if asked is None:
            return
        if asked.check is None:
            peer.offers.offer(asked.question.partition, [gap.sid for gap in asked.question.gaps], now_s)
        elif node in asked.check.waiting:
            asked.check.turn = node

    def _offer_received(self, layout: Layout, now_s: float) -> None:
        due: list[Sid] = []
        for sid, due_s in self._received.items():
            if due_s > now_s or len(due) == NAMED_MAX:
                break
            due.append(sid)
        for sid in due:
            del self._received[sid]
            partition = partition_of(sid)
            if not layout.holds(self._myself, partition):
                for member in layout.holders(partition):
                    self._peer(member.node).offers.offer(partition, (sid,), now_s)

    def _begin_check(self, layout: Layout, table: Table, now_s: float) -> None:
        if self._check is not None and self._check.until_s <= now_s:
            self._check = None
        if self._check is not None or now_s < self._check_at_s:
            return
        if self._to_look_in is None:
            self._to_look_in = partitions_in(table.occupied & ~layout.partitions_of(self._myself))
        looked = 0
        while looked < LOOKED_AT_ONCE:
            if self._unchecked:
                named, self._unchecked = self._unchecked[:CHECKED_MAX], self._unchecked[CHECKED_MAX:]
                states = {sid: table.records[sid].state_hash for sid in named if sid in table.records}
                if states:
                    holders = [member.node for member in layout.holders(self._looked_in)]
                    self._check = _Check(self._looked_in, states, holders, now_s)
                    return
            elif self._to_look_in:
                self._looked_in = self._to_look_in.pop()
                self._unchecked = self._idle_in(self._looked_in, layout, table, now_s)
                looked += 1 + len(self._unchecked)
            else:
                self._to_look_in = None
                self._check_at_s = now_s + CHECK_EVERY_S
                return

    def _idle_in(self, partition: int, layout: Layout, table: Table, now_s: float) -> list[Sid]:
        """Return the surplus copies of a partition that nobody used; none where its holders cannot all be asked."""
        peers = [self._peers.get(member.node) for member in layout.holders(partition)]
        if any(peer is None or not peer.linked for peer in peers):
            return []
        return [sid for sid in table.in_partition(partition) if self._is_idle(sid, now_s)]


def _check_question(check: _Check, table: Table) -> Question:
    """Name the copies of a check; those that have changed since it began are not part of it any more."""
    named = [(gap_of(table, sid), state) for sid, state in check.states.items()]
    gaps = [gap for gap, state in named if gap is not None and gap.state_hash == state]
    check.states = {gap.sid: gap.state_hash for gap in gaps}
    return Question(check.partition, tuple(gaps), {})
