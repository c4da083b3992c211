"""Operations: work of operators, of the clock and of the installation around the calls.

For operators, by `duecall` and in the console, which has reads of its own in `console/reads`:

    pauses               stop and resume the calls of one company, or all; the highest limits of a company; back-offs
    unknown_outcomes     a work list of calls about which the carrier proved nothing; cancellation of pending attempts
    quarantine           commands and callbacks that failed five times: retry or drop
    counts               all numbers of `/metrics` and of `duecall status`
    evidence             the document that explains one call to a reader who was not there
    new_calls            when the last of some calls would start
    reconcile            calls that a restored database does not contain
    webhooks             list, disable, enable and replay webhooks of partners; encrypt them after a new WEBHOOK_KEY
    installation         initial data; sessions that keep rows locked; settings of the database, compared at each start

By the clock:

    counts               adds counters and histograms to their totals, and raises alarms about caller ids
    erase                deletes companies, the interviews of erased people, and rows whose retention has ended
    number_events        gives partners' events their places in the order, and reports refusals that no request returned
    stale_times          recomputes due times after changed settings or zone data, and bounds impossible times
"""
