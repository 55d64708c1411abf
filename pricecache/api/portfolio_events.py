"""What happened to a portfolio, for those who ask again and again instead of listening."""

from __future__ import annotations

from pricecache.api.call import Answer, Call
from pricecache.api.order_inputs import EventsQuery
from pricecache.api.portfolios import portfolio_of
from pricecache.core.stream_events import StreamEvent, channel_of
from pricecache.portfolio.event_data import event_fields


async def events(call: Call) -> Answer:
    query: EventsQuery = call.query
    portfolio = await portfolio_of(call)
    store = call.services.stream_events
    since = query.since if query.since is not None else await store.last(portfolio.id)
    page = await store.after(portfolio.id, since, query.limit)
    resumes = query.since is None or page.resumes(since, query.epoch)
    wanted = page.events if resumes and query.since is not None else ()
    seq = page.seq if wanted else page.last
    return Answer(
        {
            "portfolioId": portfolio.id,
            "epoch": page.epoch,
            "seq": seq,
            "oldest": page.oldest,
            "complete": seq == page.last,
            "resync": not resumes,
            "events": [event_fields(one) for one in wanted if _is_wanted(one, query)],
        }
    )


def _is_wanted(event: StreamEvent, query: EventsQuery) -> bool:
    return not query.channels or channel_of(event.type) in query.channels
