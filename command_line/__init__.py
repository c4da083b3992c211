"""The command `duecall`: a module per group of commands, and their pages and lists.

It is the top floor: it imports from all packages, each module when a command runs, so that `--help` imports none.
`python -m scheduler` is the same command.
"""
