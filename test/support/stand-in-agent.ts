/** A program that stands in for an agent: it sends the requests of a list (argument 1, JSON) and prints what came of each. */

/** One request: method, URL, and a body where there is one. */
export type Asked = readonly [method: string, url: string, body?: unknown];

/** What came of it: the status, and whether the proxy refused it. */
export interface Outcome {
  readonly asked: Asked;
  readonly status: number;
  readonly isRefused: boolean;
}

if (import.meta.main) {
  const outcomes: Outcome[] = [];
  for (const asked of JSON.parse(process.argv[2] ?? "[]") as readonly Asked[])
    outcomes.push(await send(asked));
  process.stdout.write(`${JSON.stringify(outcomes)}\n`);
}

async function send(asked: Asked): Promise<Outcome> {
  const [method, url, body] = asked;
  try {
    const response = await fetch(url, {
      method,
      headers: { accept: "application/json, text/event-stream", "mcp-session-id": "1" },
      ...(body === undefined ? {} : jsonBody(body)),
    });
    const text = await response.text();
    const isRefused = /"error":"(?:policy|request)\./.test(text);
    return { asked, status: response.status, isRefused };
  } catch {
    return { asked, status: 0, isRefused: true };
  }
}

function jsonBody(body: unknown): RequestInit {
  return {
    body: JSON.stringify(body),
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-session-id": "1",
    },
  };
}
