"""Whether a phone may ring at this instant, and when next. Pure: `now` is a parameter, nothing is fetched.

requested_time   text -> the time that was asked for
callee_zones     phone number -> zones; whose clock decides
call_windows     when a person may be rung
interval_texts   JSON <-> call time intervals
zone_names       which names name a clock
"""

import zoneinfo

# The system's zone data differ from machine to machine; the wheel's are the same everywhere and have a
# version that each decision records. Zones that somebody made before us came from the system: forget them.
zoneinfo.reset_tzpath(to=())
zoneinfo.ZoneInfo.clear_cache()
