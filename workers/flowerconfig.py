"""Flower's own settings: read-only, behind a password.

The decision is docs/decisions/0029-make-flower-read-only.md.
"""

from flower.inspector import Inspector

from scheduler.logs import configure
from scheduler.process import raise_limit
from scheduler.start_checks import check_login
from workers.app import begin_proof, process_settings, starting, watch_only

configure()
raise_limit()
_chosen = process_settings()
if _chosen.is_production and _chosen.flower_redis_url is None:
    raise SystemExit(
        "FLOWER_REDIS_URL is not set. Production runs Flower as a read-only Redis user:"
        " see docs/how-to/integrate-over-celery.md."
    )
with starting():
    begin_proof(_chosen.duecall_proof_file)
    check_login(_chosen.redis if _chosen.flower_redis_url is None else _chosen.flower_redis_url.get_secret_value())
watch_only(_chosen)

basic_auth = [_chosen.flower_basic_auth.get_secret_value()]
# Every request that would send, revoke or change anything returns 403.
read_only = True
# Asking workers is a broadcast, and a user that may broadcast may shut them down. The workers' events are enough, and
# each worker sends them without being asked.
enable_events = False
Inspector.inspect_methods = ()
# Columns for reading only. Tasks need not be started or stopped by hand: hints for pending rows are sent again.
tasks_columns = "name,uuid,state,args,received,started,runtime,worker"
# Each costs about five kilobytes. Flower's default of 100,000 would need half a gigabyte.
max_tasks = 10_000
