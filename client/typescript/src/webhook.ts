// Verify webhooks with the package standardwebhooks.
import { Webhook } from "standardwebhooks";

import type { components } from "./duecall.js";

/** An event as a webhook delivers it: the same as in `GET /events`, without its place. */
export type Event = Omit<components["schemas"]["EventView"], "place">;

/**
 * Return the event of a webhook that is signed with one of these secrets. Throws an error if none matches.
 *
 * `body` is the body as it was received: JSON that was parsed and written again has another signature.
 */
export function verifyWebhook(body: string, headers: Record<string, string>, secrets: string[]): Event {
  let fault: unknown = new Error("no secret was given");
  for (const secret of secrets) {
    try {
      return new Webhook(secret).verify(body, headers) as Event;
    } catch (error) {
      fault = error;
    }
  }
  throw fault;
}
