"""Results of tries: the state of a delivery and of its webhook after the answer of a receiver."""

from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.domain.partner_event import EventType
from scheduler.domain.webhook import Outcome, WebhookAnswer
from scheduler.domain.webhook_delivery import Delivery, DeliveryState
from scheduler.rules.webhook_circuit import Circuit, after_failure, after_gone, after_success
from scheduler.rules.webhook_tries import try_again_at

NOT_SENT_AGAIN_AFTER = timedelta(minutes=5)
"""The wait of a message that this installation could not send. It is no try, because the receiver has no part in it."""


def delivery_after(delivery: Delivery, answer: WebhookAnswer, now: datetime, *, jitter: float) -> Delivery:
    """Return the delivery after a try. A test is not tried again: its result is what the partner asked for.

    After a 410, too, it waits for its next try: a partner that enables the webhook again gets the message.
    """
    tried = replace(delivery, tries=delivery.tries + 1)
    if answer.outcome is Outcome.DELIVERED:
        return replace(tried, state=DeliveryState.DELIVERED)
    again_at = None
    if delivery.type is not EventType.PING:
        again_at = try_again_at(tried.tries, now, jitter=jitter, retry_after=answer.retry_after)
    failed = replace(tried, first_failed_at=delivery.first_failed_at or now)
    if again_at is None:
        return replace(failed, state=DeliveryState.FAILED)
    return replace(failed, send_at=again_at)


def not_sent(delivery: Delivery, now: datetime) -> Delivery:
    """Return a delivery that was claimed and not sent."""
    return replace(delivery, send_at=now + NOT_SENT_AGAIN_AFTER)


def circuit_after(circuit: Circuit, delivery: Delivery, answer: WebhookAnswer, now: datetime) -> Circuit:
    """Return the circuit of the webhook after a try."""
    if delivery.is_apart:  # guard: replay_circuit
        return circuit
    match answer.outcome:
        case Outcome.DELIVERED:
            return after_success(circuit)
        case Outcome.GONE:
            return after_gone(circuit, now)
        case Outcome.FAILED:
            return after_failure(circuit, now)
