"""The parts of the dialler: claims in, calls out, records in.

claimer   claims in: which hinted attempts to claim, when, and how many
hand      the hints that wait, in the order of their turns
claim     the transaction of a claim
sender    calls out: one task for each claimed call, and its permit to leave
look      last looks: their query, their verdicts, and how many are made at once
record    records in: answers until they are written, and their transaction
watch     deadlines, threads, and alarms of a dial worker

What the answers mean for the calls that follow: `shared/carrier_state`.
"""

ACTOR = "dial"
"""The cause of these events in the history of attempts."""
