"""Columns of migration 0035 that seal the history of attempts, and who may read what the evidence of a call shows."""

SEALS = """
ALTER TABLE attempts ADD COLUMN history_seal bytea;
ALTER TABLE attempt_history ADD COLUMN seal bytea;
GRANT SELECT (history_seal) ON attempts TO duecall_operator;
GRANT SELECT (received_at) ON carrier_events TO duecall_api
"""
