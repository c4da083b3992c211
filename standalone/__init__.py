"""Duecall on one machine, for its users, developers and tests. Production needs nothing of it but the imports of files.

    system               the whole system of `duecall up`: servers, schema, first company, processes, run.json
    valkey_and_postgres  private servers
    private_server       their ports and files
    supervisor           starts the processes of the Procfile, restarts them, finds lost ones
    fork_server          starts them faster, by forking
    forked_program       the process that forks
    run_file             the file that names a running system, and the reasons for which a system does not start
    simulator            a carrier with Twilio's Calls API that rings no phone
    demo                 the sample calls of `duecall demo`
    importing            `duecall import`: a file of people becomes batches of the API
    api_client           requests of this machine to the API of Duecall, and a partner's events that are forwarded to it

The core and the console never import it. It may import all of the core.
"""
