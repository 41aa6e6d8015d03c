/** What an operator sends to the session API, as a form. */
import { type Address, request, type RawResponse } from "./http-client.ts";

/** A process with a session API. */
interface Operated {
  address(name: "sessions"): Address;
}

/** Sends it with a secret, which may be a wrong one. */
export function sendOrder(
  proxy: Operated,
  path: string,
  form: Readonly<Record<string, string>>,
  secret: string,
): Promise<RawResponse> {
  return request(proxy.address("sessions"), {
    method: "POST",
    target: path,
    headers: {
      Host: "localhost",
      Authorization: `Bearer ${secret}`,
      "Content-Type": "application/x-www-form-urlencoded",
    },
    body: new URLSearchParams(form).toString(),
  });
}
