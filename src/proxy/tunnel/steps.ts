/** What the life of a tunnel is made of: one step after another, and how it ends. */
import type { Denial } from "../../pipeline/decision.ts";
import type { Ending } from "../flow/finish.ts";

/** How a tunnel is spliced. */
export interface Opening {
  /** What its client said before the dial. */
  readonly head: Buffer;
  /** Its client has had its 200. */
  readonly isEstablished: boolean;
  /** The bridge would have looked inside: a TLS client must ask for the permitted host. */
  readonly checksName: boolean;
  /** Its client may turn out to speak plain HTTP, whose requests are judged. */
  readonly looks: boolean;
}

/** Goes on at once with what is there already. */
export function after<T>(
  given: T | Promise<T>,
  follow: (result: T) => void,
  fail: (error: unknown) => void,
): void {
  if (!(given instanceof Promise)) {
    follow(given);
    return;
  }
  given.then((result) => {
    try {
      follow(result);
    } catch (error) {
      fail(error);
    }
  }, fail);
}

/** Of a tunnel that carried bytes; `denial` where one of them was refused. */
export function splicedEnding(
  bytesUp: number,
  bytesDown: number,
  closed: string,
  denial?: Denial,
): Ending {
  return {
    status: 200,
    bytesReceived: bytesUp,
    bytesSent: bytesDown,
    refused: closed === "refused",
    cancelled: false,
    note: { closed },
    denial,
  };
}
