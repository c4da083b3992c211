"""Twilio's refusals: an HTTP status, an error code and a sentence."""

from typing import Any

REASONS = {
    13227: (400, "No international permission for this country"),
    20001: (400, "Invalid parameter"),
    20003: (401, "Authenticate"),
    20005: (403, "The account is not active"),
    20403: (403, "The account may not use the API"),
    20404: (404, "The requested resource was not found"),
    20405: (405, "Method not allowed"),
    20429: (429, "Too Many Requests"),
    20500: (500, "An internal server error has occurred"),
    20503: (503, "Service Unavailable"),
    21201: (400, "No 'To' number is specified"),
    21203: (400, "International calls are not enabled for this account"),
    21205: (400, "Url is not a valid URL"),
    21208: (400, "Timeout must be a whole number of seconds between 1 and 600"),
    21210: (400, "The 'From' number is not verified for this account"),
    21211: (400, "The 'To' number is not a valid phone number"),
    21212: (400, "The 'From' number is not a valid phone number, or is not a caller id of this account"),
    21213: (400, "The 'From' number is missing"),
    21215: (400, "Account not authorized to call this number; check its geographic permissions"),
    21216: (400, "The account is not allowed to call this number"),
    21220: (400, "Call is not in-progress. Cannot redirect."),
    21609: (400, "The 'StatusCallback' URL is not a valid URL"),
    22005: (400, "The queue of calls to be placed would take more than 24 hours"),
    32205: (403, "No geographic permission for this destination"),
}


class RefusedByTwilio(Exception):
    """The request was refused with one of Twilio's error codes."""

    def __init__(self, code: int, *, message: str | None = None, status: int | None = None) -> None:
        usual_status, usual_message = REASONS.get(code, (400, f"Error {code}"))
        self.code = code
        self.status = status or usual_status
        self.message = message or usual_message
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }
