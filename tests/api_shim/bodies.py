"""Bodies of requests, with the people and times in them."""

from typing import Any

FIRST_NAME, LAST_NAME, EMAIL, NUMBER = "Zuzana", "Tajomná", "zuzana@example.com", "+421915123456"
PERSONAL = (FIRST_NAME, LAST_NAME, EMAIL, NUMBER)
TOLL_FREE = "+18004633339"
"""A number of many time zones."""
TOMORROW, AN_HOUR_LATER = "2026-04-03T07:00:00Z", "2026-04-03T08:00:00Z"
"""Nine and ten in the morning in Bratislava."""
EVERY_DAY = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
JOB: dict[str, Any] = {"title": "Warehouse operator", "description": "Picks and packs, in three shifts."}
ONLINE_AGENT = {"name": "Web interviewer", "type": "ONLINE", "focus": "GENERIC", "language": "EN", "duration": 30}


def candidate(**changes: Any) -> dict[str, Any]:
    usual = {
        "firstName": FIRST_NAME,
        "lastName": LAST_NAME,
        "gdprExpiryDate": "2030-12-31",
        "email": EMAIL,
        "phoneNumber": NUMBER,
    }
    return {name: value for name, value in (usual | changes).items() if value is not ...}
