"""How long what is no longer needed is kept, and why so long. All are spans.

What is not here stays for as long as its company: interviews and attempts are its records, usage and certificates are
accounts, and a token leads late news of a call to its attempt, however late they are.
"""

from datetime import timedelta

ANSWERS = timedelta(days=30)
"""A command that was answered, from its answer on: for so long an idempotency key is promised to get it again.

One that was not answered yet stays: it holds its interview's calls. One in quarantine that would make an interview
holds none, and has a person's name and number in it: after the same time it is dropped.
"""
CARRIER_EVENTS = timedelta(days=30)
"""A callback that was heard; its form went when it was. What is left tells a repetition from news for that long."""
HISTORY = timedelta(days=366)
"""What happened to an attempt, for its explanation: as long as usage can be asked for at once, and so be questioned."""
BACKOFFS = timedelta(days=7)
"""Whose orders wait for the carrier by themselves, when nothing was heard of it: as long as a call waits at most."""
INVITATIONS = timedelta(days=30)
"""An invitation that was accepted, revoked or has expired: it names somebody's address."""
LINES = timedelta(days=1)
"""A line after it became free, when nobody waits for it: it stands for somebody's number and keeps nobody from it."""
