"""An applicant tracking system with one company, over HTTP."""

from typing import Any

from tests.conftest import wait_until
from tests.containers.deployment import API, session

ALWAYS = [{"days": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"], "start": "00:00", "end": "24:00"}]


class Ats:
    def __init__(self, key: str, api: str = API) -> None:
        """Create a company that may call at any time."""
        self._client, self._api = session(key), api
        company = self._sent("/company", {"name": "Acme", "settings": {"callTimeIntervals": ALWAYS}})
        self.company_id = str(company["id"])
        self._mine = f"?companyId={self.company_id}"
        [caller] = self._read("/phone-numbers")["items"]
        agent = {"name": "Screening", "type": "PHONE", "focus": "GENERIC", "language": "SK", "duration": 15}
        self._agent = agent | {"companyPhoneNumberId": caller["id"]}

    def order(self, number: str, **more: Any) -> str:
        """Order an interview with a new person. Return its id."""
        candidate = {"firstName": "Ada", "lastName": "King", "phoneNumber": number, "gdprExpiryDate": "2099-01-01"}
        body = {"agent": self._agent, "candidate": candidate, **more}
        return str(self._sent(f"/interviews{self._mine}", body)["id"])

    def status(self, interview_id: str) -> str:
        return str(self._read(f"/interviews/{interview_id}")["status"])

    def wait_until_completed(self, interview_id: str) -> None:
        wait_until(
            lambda: self.status(interview_id) == "COMPLETED", seconds=60, says="the callbacks have ended the interview"
        )

    def _read(self, path: str) -> Any:
        return self._client.get(f"{self._api}{path}{self._mine}", timeout=40).json()["data"]

    def _sent(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._client.post(f"{self._api}{path}", json=body, timeout=40)
        assert answer.ok, answer.text
        return answer.json()["data"]
