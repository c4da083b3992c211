"""Flower's own settings: a password always, tasks by their names, and no more of a task than its ids."""

from scheduler.settings import settings

basic_auth = [settings().flower_basic_auth.get_secret_value()]
# Nobody needs to run or stop a task by hand: the rows decide, and a worker looks at them every few seconds.
tasks_columns = "name,uuid,state,args,received,started,runtime,worker"
# As many as anybody looks at: each costs some five kilobytes, and Flower's own hundred thousand half a gigabyte.
max_tasks = 10_000
