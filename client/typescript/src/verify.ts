// Read {body, headers, secrets} from standard input, verify the webhook and print its type and id.
import { readFileSync } from "node:fs";

import { verifyWebhook } from "./webhook.js";

const { body, headers, secrets } = JSON.parse(readFileSync(0, "utf-8"));
const event = verifyWebhook(body, headers, secrets);
console.log(event.type, event.deliveryId);
