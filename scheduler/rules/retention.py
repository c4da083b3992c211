"""Retention: how long data is kept after it is no longer needed, and why. All are spans.

All other data is kept as long as its company: interviews and attempts are its records, usage and certificates are
accounts, and a token identifies the attempt of late news of a call, however late the news is.
"""

from datetime import timedelta

ANSWERS = timedelta(days=30)
"""An answered command, counted from its answer: for this time an idempotency key returns the same answer.

A command without an answer is kept, because it blocks the calls of its interview. A quarantined command that would
create an interview blocks no calls, but contains a person's name and number, so it is dropped after the same time.
"""
CARRIER_EVENTS = timedelta(days=30)
"""A processed callback, whose form is already deleted. The rest distinguishes a repetition from news for this time."""
HISTORY = timedelta(days=366)
"""The history of an attempt, for its explanation: as long as the longest period of usage, which it may have to explain.
"""
EVENTS = timedelta(days=30)
"""A numbered partner event. A partner that was away for so long reads the resources instead."""
BATCHES = timedelta(days=30)
"""A finished batch: as long as its idempotency key. A paused batch is cancelled after the same time, because the bodies
of its items are personal data."""
BACKOFFS = timedelta(days=7)
"""A back-off without new answers: as long as a call waits at most."""
INVITATIONS = timedelta(days=30)
"""An accepted, revoked or expired invitation, which contains an e-mail address."""
LINES = timedelta(days=1)
"""A free line that no pending attempt needs. It holds only the hash of a phone number and blocks no calls."""
ALARMS = timedelta(days=366)
"""An acknowledged alarm, as long as the history that explains it. An open alarm is kept."""
CALLER_DAYS = timedelta(days=366)
"""The counts of a caller id, as long as the history of its calls."""
CONSOLE_SESSIONS = timedelta(days=30)
"""An expired session of the operators' console, or an unused sign-in link. A used link is kept, as the audit is."""
