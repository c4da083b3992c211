// Schedule an interview with the types of the API, and list the calls of today.
import { randomUUID } from "node:crypto";

import type { components, operations } from "./duecall.js";

type Schemas = components["schemas"];
type CallsQuery = NonNullable<operations["listCompanyCallAttempts"]["parameters"]["query"]>;

export class Duecall {
  constructor(
    private readonly url: string,
    private readonly key: string,
  ) {}

  /** Schedule an interview. A 202 has the id of a command, whose result is at `GET /commands/{id}`. */
  async schedule(
    interview: Schemas["InterviewRequest"],
    idempotencyKey: string = randomUUID(),
  ): Promise<Schemas["InterviewAnswer"]["data"] | Schemas["WaitingAnswer"]["data"]> {
    const answer = await this.send<Schemas["InterviewAnswer"] | Schemas["WaitingAnswer"]>("/interviews", {
      method: "POST",
      body: JSON.stringify(interview),
      headers: { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey },
    });
    return answer.data;
  }

  /** Return the calls that a query finds, page after page. */
  async *calls(query: CallsQuery): AsyncGenerator<Schemas["CompanyAttemptsAnswer"]["data"]["items"][number]> {
    let cursor: string | null = null;
    do {
      const words = new URLSearchParams();
      for (const [name, value] of Object.entries({ ...query, ...(cursor === null ? {} : { cursor }) })) {
        for (const each of Array.isArray(value) ? value : [value]) words.append(name, String(each));
      }
      const answer: Schemas["CompanyAttemptsAnswer"] = await this.send(`/call-attempts?${words}`);
      yield* answer.data.items;
      cursor = answer.data.pagination.nextCursor;
    } while (cursor !== null);
  }

  private async send<Answer>(path: string, request: RequestInit = {}): Promise<Answer> {
    const headers = { ...request.headers, Authorization: `Bearer ${this.key}` };
    const response = await fetch(this.url + path, { ...request, headers });
    if (!response.ok) {
      const { error } = (await response.json()) as Schemas["ErrorAnswer"];
      throw new Error(`${response.status} ${error.code}: ${error.message}`);
    }
    return (await response.json()) as Answer;
  }
}

/** Print the calls of one day that ended without an answer. */
export async function printUnanswered(duecall: Duecall, from: string, to: string): Promise<void> {
  for await (const call of duecall.calls({ scheduledFrom: from, scheduledTo: to, status: ["FAILED"] })) {
    console.log(call.id, call.reasonCode);
  }
}
