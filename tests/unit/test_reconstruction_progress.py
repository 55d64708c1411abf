"""What is told of a reconstruction while it goes on."""

from __future__ import annotations

from pricecache.portfolio.reconstruction_data import progress_data, progress_event
from pricecache.portfolio.reconstruction_progress import STAGES, Pace, ProgressTeller
from pricecache.stores.reconstructions import Ended, Failure, Progress, ReconstructionRecord
from tests.clock import START, ManualClock


def test_stages_follow_on_each_other_from_nothing_to_all() -> None:
    bounds = [(low, high) for low, high, _ in STAGES.values()]
    assert [low for low, _ in bounds] == [0, *(high for _, high in bounds[:-1])]
    assert bounds[-1][1] == 100


def test_a_security_is_told_with_its_number_and_the_percent_of_all() -> None:
    told: list[Progress] = []
    clock = ManualClock()
    teller = ProgressTeller(told.append, clock)
    teller.stage("reading")
    clock.advance(2)
    teller.stage("prices")
    clock.advance(8)
    teller.securities(15, 23, "AAPL")
    assert told[-1] == Progress(58, "prices", "Processing AAPL, 15 of 23 securities, 58 %", "AAPL", 15, 23, None)
    teller.securities(15, 23, None)
    assert told[-1] == told[-2]  # while nothing comes, what is said stays
    teller.stage("walking")
    teller.end()
    assert teller.seconds == {"reading": 2, "prices": 8, "walking": 0}


def test_how_long_it_takes_is_told_by_the_pace_of_securities_and_only_once_that_is_known() -> None:
    told: list[Progress] = []
    clock = ManualClock()
    teller = ProgressTeller(told.append, clock)
    teller.stage("reading")
    teller.stage("prices")
    for _ in range(5):  # the first calendar is built
        teller.securities(1, 10, None)  # and one is priced by the broker alone
        clock.advance(10)
    for number in range(2, 10):
        teller.securities(number, 10, f"S{number}")
        clock.advance(1)
        teller.securities(number, 10, None)  # looked at while nothing has come
        clock.advance(1)
    assert {one.eta_seconds for one in told[:9]} == {None}
    etas = [one.eta_seconds for one in told[9:] if one.eta_seconds is not None]
    assert len(etas) == len(told[9:])
    assert etas[0] == 7 * 2 + 1
    assert etas == sorted(etas, reverse=True)
    teller.securities(10, 10, "S10")
    assert told[-1].eta_seconds == 1
    teller.stage("walking")
    assert told[-1].eta_seconds == 1
    clock.advance(0.4)
    teller.stage("storing")
    assert told[-1].eta_seconds == 0.6
    clock.advance(30)
    teller.stage("materialising")
    assert told[-1].eta_seconds is None  # it waits for something, for nobody knows how long


def test_what_does_not_come_for_long_is_not_told_to_be_there() -> None:
    pace = Pace()
    for at, done in ((-30, 0), (0, 1), (2, 2)):
        pace.note(at, done)
    assert [pace.left(now, 5) for now in (2, 3, 4, 100)] == [6, 5, 4, 4]
    pace.note(102, 5)
    assert pace.left(102, 5) == 0


def record(**facts: object) -> ReconstructionRecord:
    return ReconstructionRecord("c", "ann", "p", **{  # type: ignore[arg-type]
        "state": "running", "requested_at": START, "queued_at": START, "requested_by": "ann",
        "progress": Progress(58, "prices", "Processing", "AAPL", 15, 23, 7.0), **facts,
    })  # fmt: skip


def test_what_is_over_has_no_stage_of_its_own_and_no_time_left() -> None:
    failure = Failure("away", "The database is away.", START)
    failed = progress_event(record(state="waiting", failure=failure, not_before=START + 60))
    assert failed["type"] == "reconstruction:progress"
    assert (failed["state"], failed["etaSeconds"], failed["security"]) == ("waiting", None, None)
    assert failed["nextAttempt"] == "2026-11-20T10:01:00Z"
    assert failed["error"] == {"code": "away", "detail": "The database is away.", "at": "2026-11-20T10:00:00Z"}
    assert progress_event(record(state="failed"))["type"] == "reconstruction:finished"
    done = progress_data(record(state="done", failure=failure))
    assert (done["percent"], done["message"], done["error"]) == (100, "Done", None)


def test_the_attempt_before_is_told_apart() -> None:
    failure = Failure("away", "The database is away.", START)
    told = progress_data(record(started_at=START + 60, last=Ended(START - 5, START, failure)))
    assert (told["startedAt"], told["endedAt"], told["error"]) == ("2026-11-20T10:01:00Z", None, None)
    assert told["lastAttempt"] == {
        "startedAt": "2026-11-20T09:59:55Z",
        "endedAt": "2026-11-20T10:00:00Z",
        "error": {"code": "away", "detail": "The database is away.", "at": "2026-11-20T10:00:00Z"},
    }
    assert progress_data(record())["lastAttempt"] is None
