"""jobs.notices on both databases: failures are reported once, messages are sent by one process and retried."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs import Failure, JobStore, Retry, Snooze
from jobs.notices.notice import ClientSnapshot, NewMessage, Notice, RecipientRef
from jobs.notices.outbox import FIRST_DELAY, GIVE_UP_AFTER, LEASE, LONGEST_DELAY, retry_delay
from jobs.notices.unreported_failures import UnreportedFailure
from tests.support.store_helpers import AT_ONCE, ELSEWHERE, LANE, ManualClock, begin, change, done, enqueue, finish, query, take

NEVER = Retry(max_retries=0)
ALICE, BOB = RecipientRef("a" * 16, "mailto:alice@x.example"), RecipientRef("b" * 16, "https://x.example/…")


def fail(store: JobStore, *keys: str) -> None:
    """Queue, claim and fail one job for each key, for good."""
    enqueue(store, keys)
    finish(store, *(done(job, Failure(f"{job.key} is bad"), retry=NEVER) for job in take(store)))


def write(store: JobStore, *to: RecipientRef, count: int = 1, subject: str = "s") -> None:
    """Store a notice with so many letters to these."""

    def decide(trouble: ClientSnapshot) -> tuple[list[Notice], list[NewMessage]]:
        notice = trouble.open.get(subject) or Notice(subject, "api", "error", trouble.now, trouble.now, trouble.now)
        letters = [
            NewMessage(notice, "opened", "sync.client.paused", "error", f"n{n}", "body", {"id": n}, to) for n in range(count)
        ]
        return [notice], letters

    assert store.notices.update(LANE.client, [], decide)


def due(store: JobStore) -> None:
    """Let every wait be over."""
    change(store, "UPDATE delivery SET next_at = '2000-01-01 00:00:00.000000+00'")


def deliveries(store: JobStore) -> list[dict[str, Any]]:
    """Return the rows."""
    return query(store, "SELECT * FROM delivery ORDER BY id")


# -- news ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-94")
def test_a_failure_is_news_in_its_own_transaction(store: JobStore) -> None:
    """A job that fails for good leaves a row for those who tell of it, in the transaction of its finish; nothing else does."""
    enqueue(store, ["bad", "good", "again", "later", "stale"])
    jobs = {job.key: job for job in take(store)}
    change(store, "UPDATE job SET claim_no = claim_no + 1 WHERE key = 'stale'")
    finish(
        store,
        done(jobs["bad"], Failure("no"), retry=NEVER), done(jobs["good"]),
        done(jobs["again"], Failure("once more"), retry=AT_ONCE),
        done(jobs["later"], Snooze(60)), done(jobs["stale"], Failure("not mine any more"), retry=NEVER),
    )  # fmt: skip
    (found,) = store.unreported.failures(LANE.client)
    assert (found.type, found.key, found.message, found.job_id) == (LANE.type, "bad", "no", jobs["bad"].id)


def test_one_job_alone_is_news_too(store: JobStore) -> None:
    """The short way of a single finish, and that of poison, leave the row as well."""
    fail(store, "alone")
    enqueue(store, ["deadly"])
    for _ in range(3):
        assert take(store) or take(store, suspects=True)
        change(store, "UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00' WHERE state = 'processing'")
        store.rescues.run([LANE.queue])
    assert [(one.key, one.message.partition(":")[0]) for one in store.unreported.failures(LANE.client)] == [
        ("alone", "alone is bad"),
        ("deadly", "poison"),
    ]


def test_failures_wait_for_company_and_for_their_run(store: JobStore) -> None:
    """They are told after a while; while a run of their sync lists they wait for its end, however long ago they came."""
    fail(store, "a")
    assert store.unreported.clients([LANE.client], window=3600) == []
    assert store.unreported.clients([LANE.client], window=3600, gather=0) == [LANE.client]
    assert store.unreported.clients(["somebody else"], window=3600, gather=0) == []
    change(store, "UPDATE news SET at = '2000-01-01 00:00:00.000000+00'")
    assert store.unreported.clients([LANE.client], window=3600) == [LANE.client]
    claim = begin(store)
    assert store.unreported.clients([LANE.client], window=3600) == []
    assert store.unreported.failures(LANE.client) == []
    assert len(store.unreported.failures(LANE.client, ended=LANE.type)) == 1
    store.listings.release(claim)
    assert store.unreported.clients([LANE.client], window=3600) == [LANE.client]


def test_looking_in_vain_writes_nothing(store: JobStore) -> None:
    """SQLite's one writer is not asked for by who finds nothing."""
    with ThreadPoolExecutor(1) as pool, store.db.write():
        looks = (
            lambda: store.unreported.clients([LANE.client], window=3600),
            lambda: store.outbox.claim([LANE.client]),
        )
        for look in looks:
            assert not pool.submit(look).result(timeout=60)


# -- folding -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-94")
def test_news_are_taken_in_once(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """Of eight that look at the same moment one tells; those who come too late are told so, and write nothing."""
    fail(store, *map(str, range(40)))
    stores = [open_store() for _ in range(8)]
    at_once = threading.Barrier(8)

    def look(one: JobStore) -> bool:
        news = one.unreported.failures(LANE.client)
        at_once.wait(60)

        def decide(trouble: ClientSnapshot) -> tuple[list[Notice], list[NewMessage]]:
            notice = Notice("s", "processing", "error", trouble.now, trouble.now, trouble.now, count=len(news))
            return [notice], [NewMessage(notice, "opened", "e", "error", "s", "b", {}, [ALICE, BOB, ALICE])]

        return one.notices.update(LANE.client, [found.id for found in news], decide)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(look, stores))
    assert sum(told) == 1
    assert [row["count"] for row in query(store, "SELECT count FROM notice")] == [40]
    assert [row["masked"] for row in deliveries(store)] == [ALICE.masked, BOB.masked]
    assert store.unreported.failures(LANE.client) == []


def test_what_fails_while_it_is_stored_is_still_news(store: JobStore) -> None:
    """A fold is one transaction: an error in the middle of it leaves everything as it was."""
    fail(store, "a")
    store.pauses.open(LANE.client, 60, cause="level", reason="r", set_by="w")
    news = store.unreported.failures(LANE.client)

    def decide(trouble: ClientSnapshot) -> tuple[list[Notice], list[NewMessage]]:
        assert [one.cause for one in trouble.pauses] == ["level"]
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        store.notices.update(LANE.client, [one.id for one in news], decide)
    assert store.unreported.failures(LANE.client) == news
    assert store.unreported.clients([LANE.client], window=3600, gather=0) == [LANE.client]


def test_each_pause_is_news_once(store: JobStore) -> None:
    """Whoever made it and whether anybody said so: what nobody took in is there, in order, with what became of it."""
    seen: list[ClientSnapshot] = []

    def decide(trouble: ClientSnapshot) -> tuple[list[Notice], list[NewMessage]]:
        seen.append(trouble)
        return [], []

    store.pauses.open(LANE.client, 60, cause="level", reason="first", set_by="w")
    store.pauses.open(LANE.client, None, cause="person", reason="second", set_by="anna")
    store.notices.update(LANE.client, [], decide)
    store.notices.update(LANE.client, [], decide)
    store.pauses.resume(LANE.client, by="anna")
    store.notices.update(LANE.client, [], decide)
    assert [[(one.reason, one.ended_by) for one in trouble.pauses] for trouble in seen] == [
        [("first", "anna"), ("second", None)], [], [],
    ]  # fmt: skip
    assert [trouble.known_pause is not None and trouble.known_pause.reason for trouble in seen] == [False, "second", "second"]
    assert [trouble.last_pause is not None and trouble.last_pause.ended_by for trouble in seen] == [None, None, "anna"]


def test_the_backlog_is_counted_so_far(store: JobStore) -> None:
    """What waited is said in numbers."""
    enqueue(store, ["a", "b", "c"])
    take(store, 1)
    assert store.unreported.count_queued(LANE.client) == 2
    assert store.unreported.count_queued("nobody") == 0


# -- letters -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-98")
def test_a_letter_is_one_process_s_to_send(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """Eight postmen at once: each letter is taken once, with all of its deliveries."""
    write(store, ALICE, BOB, count=1)
    for number in range(11):
        write(store, ALICE, BOB, subject=f"t{number}")
    stores = [open_store() for _ in range(8)]

    def work(one: JobStore) -> list[tuple[int, int]]:
        found, after = [], 0
        while (letter := one.outbox.claim([LANE.client], after=after)) is not None:
            after = letter.id
            found += [(letter.id, delivery.id) for delivery in letter.deliveries]
            assert all(one.outbox.mark_sent(delivery, via="direct") for delivery in letter.deliveries)
        return found

    with ThreadPoolExecutor(8) as pool:
        taken = [pair for found in pool.map(work, stores) for pair in found]
    assert len(taken) == len(set(taken)) == 24
    assert {row["state"] for row in deliveries(store)} == {"sent"}
    assert store.outbox.count_waiting() == 0


def test_a_stale_postman_notes_nothing(store: JobStore) -> None:
    """Whoever was away for longer than the lease finds the letter in other hands: neither its yes nor its no counts."""
    write(store, ALICE)
    first = store.outbox.claim([LANE.client])
    assert first is not None
    assert first.deliveries[0].is_orphan is False
    assert store.outbox.is_claimed(first.deliveries[0], seconds=10)
    assert not store.outbox.is_claimed(first.deliveries[0], seconds=LEASE + 10)
    assert store.outbox.claim([LANE.client]) is None
    change(store, "UPDATE delivery SET lease_until = '2000-01-01 00:00:00.000000+00'")
    assert not store.outbox.is_claimed(first.deliveries[0], seconds=0)
    second = store.outbox.claim([LANE.client])
    assert second is not None
    assert (second.id, second.deliveries[0].attempts, second.deliveries[0].is_orphan) == (first.id, 2, True)
    assert not store.outbox.mark_sent(first.deliveries[0], via="direct")
    assert not store.outbox.mark_failed(first.deliveries[0], "too late")
    assert store.outbox.mark_sent(second.deliveries[0], via="direct")
    assert [(row["state"], row["attempts"], row["error"]) for row in deliveries(store)] == [("sent", 2, None)]


def test_what_does_not_go_out_waits_longer_each_time(store: JobStore) -> None:
    """30 s, doubled, an hour at most; it is nobody's before that, and never an orphan."""
    assert [retry_delay(attempt) for attempt in (1, 2, 3, 7, 8, 1000)] == [
        FIRST_DELAY,
        60,
        120,
        1920,
        LONGEST_DELAY,
        LONGEST_DELAY,
    ]
    write(store, ALICE)
    for attempt in (1, 2):
        letter = store.outbox.claim([LANE.client])
        assert letter is not None
        assert store.outbox.mark_failed(letter.deliveries[0], "down")
        assert store.outbox.claim([LANE.client]) is None
        (row,) = deliveries(store)
        assert (row["attempts"], row["error"], row["lease_until"], row["state"]) == (attempt, "down", None, "waiting")
        due(store)
    assert letter is not None
    assert not letter.deliveries[0].is_orphan


def test_nobody_hears_of_an_end_before_the_beginning(store: JobStore) -> None:
    """To one reader the letters of a notice go one after the other; another reader, and another notice, wait for nobody."""
    write(store, ALICE, BOB)
    first = store.outbox.claim([LANE.client])
    assert first is not None
    alice, bob = first.deliveries
    store.outbox.mark_failed(alice, "down")
    store.outbox.mark_sent(bob, via="direct")
    write(store, ALICE, BOB)
    write(store, ALICE, subject="another")
    second = store.outbox.claim([LANE.client])
    third = store.outbox.claim([LANE.client])
    assert second is not None
    assert [one.masked for one in second.deliveries] == [BOB.masked]
    assert third is not None
    assert [one.masked for one in third.deliveries] == [ALICE.masked]
    assert store.outbox.claim([LANE.client]) is None
    due(store)
    again = store.outbox.claim([LANE.client])
    assert again is not None
    assert again.id == first.id


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_letter_is_given_up_in_the_end(open_store: Callable[..., JobStore]) -> None:
    """After three days nobody wants to hear of it any more; the row says why, and it keeps no other back."""
    clock = ManualClock()
    store = open_store(clock=clock)
    write(store, ALICE)
    write(store, ALICE)
    clock.forward(GIVE_UP_AFTER + 1)
    letter = store.outbox.claim([LANE.client])
    assert letter is not None
    assert letter.deliveries[0].is_last
    store.outbox.mark_failed(letter.deliveries[0], "down for days")
    assert [(row["state"], row["error"]) for row in deliveries(store)] == [("failed", "down for days"), ("waiting", None)]
    following = store.outbox.claim([LANE.client])
    assert following is not None
    assert following.id != letter.id


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_old_letters_go(open_store: Callable[..., JobStore]) -> None:
    """After ninety days, but not while somebody still waits for them; closed notices and forgotten news go too."""
    clock = ManualClock()
    store = open_store(clock=clock)
    write(store, ALICE)
    write(store, BOB, subject="other")
    letter = store.outbox.claim([LANE.client])
    assert letter is not None
    store.outbox.mark_sent(letter.deliveries[0], via="direct")
    fail(store, "a")
    assert store.outbox.prune() == 0
    assert len(store.unreported.failures(LANE.client)) == 1
    change(store, "UPDATE notice SET closed_at = opened_at WHERE subject = 's'")
    clock.forward(91 * 86_400)
    assert store.outbox.prune() == 1
    assert [row["masked"] for row in deliveries(store)] == [BOB.masked]
    assert [row["subject"] for row in query(store, "SELECT subject FROM notice")] == ["other"]
    assert store.unreported.failures(LANE.client) == []


def test_views_show_what_was_told(store: JobStore) -> None:
    """Letters with who has them, notices with what they count; by client, and only those that wait."""
    write(store, ALICE, BOB)
    letter = store.outbox.claim([LANE.client])
    assert letter is not None
    store.outbox.mark_sent(letter.deliveries[0], via="prefect")
    write(store)
    alone, (view) = store.notice_views.messages(LANE.client)
    assert alone.deliveries == []
    assert (view.subject, view.kind, view.level, view.what) == ("n0", "api", "error", "opened")
    assert [(one["to"], one["state"], one["via"]) for one in view.deliveries] == [
        (ALICE.masked, "sent", "prefect"), (BOB.masked, "waiting", None),
    ]  # fmt: skip
    assert [one.id for one in store.notice_views.messages(waiting=True)] == [view.id]
    assert store.notice_views.messages("nobody") == []
    assert [(one.client, one.sync, one.count) for one in store.notice_views.notices()] == [(LANE.client, "s", 0)]
    assert store.notice_views.notices("nobody") == []


def test_payloads_are_looked_up_by_job(store: JobStore) -> None:
    """Whoever words a notice needs them to keep them out of it; a job that is gone has none."""
    fail(store, "a")
    (one,) = store.unreported.failures(LANE.client)
    assert isinstance(one, UnreportedFailure)
    assert list(store.unreported.payloads([one.job_id, 10**9])) == [one.job_id]
    assert ELSEWHERE not in str(store.unreported.payloads([one.job_id]))
