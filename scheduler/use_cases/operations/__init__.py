"""Operations: work of operators, of the clock and of the installation around the calls.

For operators, by `duecall` and in the console, which has reads of its own in `console/reads`:

    pauses               stop and resume the calls of one company, or all
    unknown_outcomes     a work list of calls about which the carrier proved nothing, and the decisions about them
    quarantine           commands and callbacks that failed five times: retry or drop
    alarms               stored alarms, and their acknowledgement
    acts                 the audit of operators and API keys, for reading
    certificates         what was erased of deleted companies
    operator_commands    commands of operators: they cancel pending attempts in the turn of each interview
    backlog              counts of commands that are not applied, of callbacks in quarantine and of open erasures
    counts               all numbers of `/metrics`
    carrier_waits        back-offs of the carrier by country and caller number, and stray calls
    database_sessions    sessions that keep rows locked
    reconcile            finds calls that a restored database does not contain
    webhooks             lists the webhooks of partners, disables, enables and replays them
    encrypt_webhooks     encrypts the secrets of webhooks again, after a new WEBHOOK_KEY
    installation         initial data
    installation_marks   settings that belong to the database, compared at each start

By the clock:

    alarm_posts          posts new alarms to the webhook
    correct              bounds impossible times that a wrong clock wrote
    erase                deletes the data of deleted companies
    erase_people         cancels the interviews of erased people
    number_events        gives partners' events their places in the order, and reports refusals that no request returned
    purge                deletes rows whose retention has ended
    recompute_schedules  recomputes due times after changes of settings or of the tz database
    tallies              adds counters and histograms to their totals
"""
