/** The live feed: server-sent events over fetch, because an EventSource cannot send a secret. */

/** @typedef {import("./flow.js").SessionEvent} SessionEvent */
/** @typedef {"live" | "connecting" | "closed"} FeedState */

const shortestWaitMs = 1_000;
const longestWaitMs = 30_000;

/**
 * Reads frames out of text that comes in pieces (WHATWG HTML, section 9.2).
 *
 * @param {(frame: { event: string, id: string | undefined, data: string }) => void} onFrame
 * @returns {(text: string) => void}
 */
export function frameReader(onFrame) {
  let rest = "";
  let event = "";
  /** @type {string | undefined} */
  let id;
  /** @type {string[]} */
  let data = [];
  /** @param {string} line */
  const take = (line) => {
    if (line === "") {
      if (data.length > 0) onFrame({ event: event || "message", id, data: data.join("\n") });
      event = "";
      data = [];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event = value;
    else if (name === "id") id = value;
    else if (name === "data") data.push(value);
  };
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r/);
    rest = lines.pop() ?? "";
    for (const line of lines) take(line);
  };
}

/** Follows the feed, comes back after a cut, and asks for what it has missed. */
export class Feed {
  /** @type {import("./api.js").Api} */
  #api;
  /** @type {(event: SessionEvent) => void} */
  #onEvent;
  /** @type {(state: FeedState) => void} */
  #onState;
  /** @type {string | undefined} */
  #lastId;
  #waitMs = shortestWaitMs;

  /**
   * @param {import("./api.js").Api} api
   * @param {(event: SessionEvent) => void} onEvent
   * @param {(state: FeedState) => void} onState
   */
  constructor(api, onEvent, onState) {
    this.#api = api;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  /** Never settles: a page follows its feed until it is closed. */
  async run() {
    for (;;) {
      this.#onState("connecting");
      try {
        await this.#follow();
      } catch {
        // Told by the state; the next attempt comes by itself.
      }
      this.#onState("closed");
      await new Promise((resolve) => setTimeout(resolve, this.#waitMs));
      this.#waitMs = Math.min(longestWaitMs, this.#waitMs * 2);
    }
  }

  async #follow() {
    /** @type {Record<string, string>} */
    const headers = this.#lastId === undefined ? {} : { "Last-Event-ID": this.#lastId };
    const response = await this.#api.open("v1/events", headers);
    if (response.body === null) throw new Error("the feed has no body");
    this.#onState("live");
    this.#waitMs = shortestWaitMs;
    const read = frameReader(({ event, id, data }) => {
      if (id !== undefined) this.#lastId = id;
      if (event === "session-event") this.#onEvent(JSON.parse(data));
    });
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) read(text);
  }
}
