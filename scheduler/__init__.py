"""Scheduling of phone calls, and the history of each call.

The life of an attempt has seven stages, one module each:

    submit   scheduler.use_cases.submit   Submit.command      stores a command durably and accepts it
    apply    scheduler.use_cases.apply    Apply.command       applies the command once, in a worker
    release  scheduler.use_cases.release  Release.round       sends hints for due attempts
    dial     scheduler.use_cases.dial     Dialler.claim_and_send  claim, last look, one POST, record
    hear     scheduler.use_cases.hear     Hear.event          applies a carrier callback to its attempt
    settle   scheduler.use_cases.settle   Settle.round        polls the carrier for missing news, or gives up
    explain  scheduler.use_cases.explain  Explain.interview   explains what an attempt waits for, and its history

Imports run one way: api_shim -> workers -> assembly -> use_cases -> persistence, carriers, wire -> rules ->
lifecycle -> timing -> domain. The last four use no network, database, clock or environment. `make check` enforces it.
The packages `console` (of operators) and `standalone` (one machine) are above these, and `command_line` (the command
`duecall`) above all.
"""
