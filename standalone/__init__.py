"""Duecall on one machine, for its users, developers and tests. Production needs nothing of it but the imports of files.

    system             the whole system of `duecall up`: servers, schema, first company, processes, run.json
    postgres, valkey   private servers, below private_server, private_files and left_overs
    processes          the commands of the Procfile
    supervisor         starts processes and restarts them, by child_process, fork_server and forked_program
    ports, run_file    free ports, and the file that names a running system
    errors             the reasons for which a system does not start
    simulator/         a carrier with Twilio's Calls API that rings no phone
    demo/              the sample calls of `duecall demo`
    importing/         `duecall import`: a file of people becomes batches of the API
    api_client         requests of this machine to the API of Duecall, for importing and for
    event_api, forwarding   `duecall webhooks forward`: a partner's events on a developer's machine

The core and the console never import it. Of the core it may import everything but `scheduler.cli`.
"""
