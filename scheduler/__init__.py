"""When may this phone ring, and what happened to it.

An attempt's story has seven stops, one module each:

    submit   scheduler.use_cases.submit   Submit.command      a command becomes durable and is accepted
    apply    scheduler.use_cases.apply    Apply.command       a worker does what it asks, once
    release  scheduler.use_cases.release  Release.due         what is due is rung for
    dial     scheduler.use_cases.dial     Dial.claim          claim, last look, one POST, record
    hear     scheduler.use_cases.hear     Hear.event          what the carrier says changes the attempt
    settle   scheduler.use_cases.settle   Settle.round        what nobody speaks of is asked for, or given up
    explain  scheduler.use_cases.explain  Explain.interview   what it waits for, and what happened so far

Imports run one way: api_shim, workers -> assembly -> use_cases -> persistence, carriers, wire -> lifecycle ->
timing -> domain. lifecycle, timing and domain touch neither network, database, clock nor environment. `make check`
keeps it so.
"""
