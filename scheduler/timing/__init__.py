"""Rules of time: whether a phone may ring at an instant, and when next. Pure: `now` is a parameter.

requested_time   parses the time in a request
callee_zones     time zones of a phone number, its facts without its digits, and the clock that decides
call_windows     when a person may be called
zone_names       valid names of time zones, and facts about a zone's clock
time_texts       JSON <-> call time intervals, and time spans in words
"""

import zoneinfo

# The system's zone data differs between machines. The data of the tzdata package is the same everywhere and has a
# version that each decision records. Zones created before this import came from the system: remove them.
zoneinfo.reset_tzpath(to=())
zoneinfo.ZoneInfo.clear_cache()
