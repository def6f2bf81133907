"""What is written down of an exchange. It knows where each figure stands; it refuses to know who reads it."""

from llm_router.core.words import Outcome
from llm_router.host.desk import Exchange, Lease
from llm_router.host.road.incoming import Request
from llm_router.wire.answer import Terms


def record(
    lease: Lease,
    request: Request,
    terms: Terms,
    *,
    ident: str,
    status: int,
    stream: bool,
    outcome: Outcome,
    first_byte_s: float | None,
    total_s: float,
) -> Exchange:
    """The record of a granted request that is over. Times in seconds."""
    meter = terms.meter
    return Exchange(
        ticket=lease.ticket,
        model=lease.model,
        path=request.path.decode("latin-1"),
        status=status,
        stream=stream,
        outcome=outcome,
        waited_s=lease.waited_s,
        loaded_s=lease.loaded_s,
        first_byte_s=first_byte_s,
        total_s=total_s,
        prompt_tokens=meter.prompt,
        completion_tokens=meter.tokens or None,
        cached_tokens=meter.cached,
        tokens_per_s=meter.per_second(),
        prompt_per_s=meter.prompt_per_s,
        estimated=meter.estimated and meter.tokens > 0,
        request_id=ident,
        caller=request.visitor.caller,
    )
