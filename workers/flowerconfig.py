"""Flower's own settings: it looks, behind a password, and can neither act nor send.

The decision is docs/decisions/0029-make-flower-read-only.md.
"""

from flower.inspector import Inspector

from scheduler.settings import settings
from workers.app import app, watch_only

_chosen = settings()
if _chosen.is_production and _chosen.flower_redis_url is None:
    raise SystemExit(
        "FLOWER_REDIS_URL is not set. Production runs Flower as a Redis user that can only read: the README shows it."
    )
watch_only(app, _chosen)

basic_auth = [_chosen.flower_basic_auth.get_secret_value()]
# Every request that would send, revoke or change anything returns 403.
read_only = True
# Asking workers is a broadcast, and a user that may broadcast may shut them down. The workers' events are enough, and
# each worker sends them without being asked.
enable_events = False
Inspector.inspect_methods = ()
# Nobody needs to run or stop a task by hand: the rows decide, and a worker looks at them every few seconds.
tasks_columns = "name,uuid,state,args,received,started,runtime,worker"
# As many as anybody looks at: each costs some five kilobytes, and Flower's own hundred thousand half a gigabyte.
max_tasks = 10_000
