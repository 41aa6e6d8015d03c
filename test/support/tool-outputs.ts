/** Outputs of tools in the shapes that agents really get, made anew from a seed, and requests of every API that carry them. */

/** Numbers that are the same in every run. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return state;
  };
}

const hex = (value: number): string => value.toString(16).padStart(8, "0");

/** Rows of an API, pretty-printed as many servers send them; one of them failed. */
export function apiRows(rows: number): string {
  const next = numbers(1);
  const items = Array.from({ length: rows }, (_, at) => ({
    id: `ord-${hex(next())}`,
    created_at: new Date(1_780_000_000_000 + at * 61_000).toISOString(),
    customer: { name: `Customer ${next() % 900}`, country: "DE", tags: ["retail", "newsletter"] },
    total: (next() % 100_000) / 100,
    status: at === Math.floor(rows / 2) ? "payment failed: card expired" : "shipped",
    items: [{ sku: `sku-${next() % 5_000}`, quantity: 1 + (next() % 4) }],
  }));
  return JSON.stringify({ total: rows, items, next: null }, null, 2);
}

/** A log of a service with one error in it. */
export function serviceLog(lines: number): string {
  const next = numbers(2);
  return Array.from({ length: lines }, (_, at) => {
    const time = new Date(1_780_000_000_000 + at * 137).toISOString();
    if (at === Math.floor(lines / 3)) {
      return `${time} ERROR db.pool: connection to 10.0.3.7:5432 refused after 3 attempts`;
    }
    const kind = next() % 3;
    if (kind === 0) return `${time} INFO  http: GET /v1/orders/${hex(next())} 200 ${next() % 90}ms`;
    if (kind === 1)
      return `${time} DEBUG cache: hit key=session:${hex(next())} size=${next() % 4096}`;
    return `${time} INFO  worker-${next() % 8}: job ${hex(next())} done in ${next() % 900}ms`;
  }).join("\n");
}

/** What a test run prints in colours, with a trace of 60 frames. */
export function testRun(): string {
  const passes = Array.from(
    { length: 400 },
    (_, at) =>
      `\u001b[32m ✓\u001b[39m test/unit/area-${at % 20}/file-${at}.test.ts (${at % 9} tests) ${at % 97}ms`,
  );
  const frames = Array.from(
    { length: 60 },
    (_, at) => `    at step${at} (/app/node_modules/lib-${at % 7}/index.js:${at * 3}:${at})`,
  );
  const fault = ["AssertionError: expected 3 to be 4", ...frames, "Caused by: Error: seed missing"];
  return [...passes, ...fault, "Tests  1 failed | 399 passed (400)"].join("\n");
}

/** A change of source files beside one of a lock file. */
export function gitDiff(): string {
  const file = (name: string, hunks: number): string =>
    [
      `diff --git a/${name} b/${name}`,
      "index 3f1c2aa..9b8d001 100644",
      `--- a/${name}`,
      `+++ b/${name}`,
      ...Array.from({ length: hunks }, (_, at) => [
        `@@ -${at * 40},9 +${at * 40},9 @@ export function part${at}() {`,
        ...Array.from({ length: 4 }, (__, row) => `   const kept${at}_${row} = read(${row});`),
        `-  return old(${at});`,
        `+  return fresh(${at});`,
        ...Array.from({ length: 4 }, (__, row) => `   const more${at}_${row} = read(${row});`),
      ]).flat(),
    ].join("\n");
  const lock = [
    "diff --git a/package-lock.json b/package-lock.json",
    "--- a/package-lock.json",
    "+++ b/package-lock.json",
    "@@ -1,900 +1,900 @@",
    ...Array.from({ length: 900 }, (_, at) => `+      "integrity": "sha512-${hex(at * 7_919)}",`),
  ].join("\n");
  return [file("src/api/orders.ts", 12), lock, file("src/api/customers.ts", 12)].join("\n");
}

/** A page of documentation with scripts and styles. */
export function webPage(): string {
  const style = `<style>${".c { color: red; margin: 0 auto }\n".repeat(400)}</style>`;
  const script = `<script>${"window.push({ event: 'x', value: 1 });\n".repeat(400)}</script>`;
  const parts = Array.from(
    { length: 40 },
    (_, at) =>
      `<section class="c wide" data-at="${at}"><h2>Part ${at}</h2><p>The option <code>key_${at}</code> sets &lt;${at}&gt;, see <a class="l" href="https://docs.example/${at}">there</a>.</p></section>`,
  );
  return `<!doctype html><html><head><title>Options</title>${style}</head><body>${script}${parts.join("")}</body></html>`;
}

/** Source code without a structure that helps. */
export function sourceCode(functions: number): string {
  const next = numbers(3);
  const word = (): string => `w${(next() % 100_000).toString(36)}`;
  return Array.from({ length: functions }, () => {
    const [a, b, c] = [word(), word(), word()];
    return `export function ${a}(${b}: string): string {\n  const ${c} = ${b}.trim();\n  return ${c}.${word()}(${word()});\n}\n`;
  }).join("\n");
}

/** Every kind, with its name. */
export const outputs: Readonly<Record<string, string>> = {
  "JSON of an API": apiRows(400),
  "log of a service": serviceLog(1_500),
  "run of tests": testRun(),
  diff: gitDiff(),
  "web page": webPage(),
  "source code": sourceCode(600),
};

/** A request of one API, whose last tool output is this text; `path` is where it goes. */
export interface CarriedOutput {
  readonly path: string;
  readonly body: object;
}

const user = "Why did the order fail?";

/** The same conversation in every API: the user asks, the model calls a tool, the tool gives the text. */
export function requestsWith(text: string): Readonly<Record<string, CarriedOutput>> {
  const call = { id: "c1", type: "function", function: { name: "look", arguments: "{}" } };
  const chat = [
    { role: "system", content: "You help." },
    { role: "user", content: user },
    { role: "assistant", content: null, tool_calls: [call] },
  ];
  const use = { type: "tool_use", id: "c1", name: "look", input: {} };
  return {
    "openai chat": {
      path: "/v1/chat/completions",
      body: {
        model: "m",
        messages: [...chat, { role: "tool", tool_call_id: "c1", content: text }],
      },
    },
    "openai chat, parts": {
      path: "/v1/chat/completions",
      body: {
        model: "m",
        messages: [
          ...chat,
          { role: "tool", tool_call_id: "c1", content: [{ type: "text", text }] },
        ],
      },
    },
    "openai responses": {
      path: "/v1/responses",
      body: {
        model: "m",
        input: [
          { role: "user", content: user },
          { type: "function_call", call_id: "c1", name: "look", arguments: "{}" },
          { type: "function_call_output", call_id: "c1", output: text },
        ],
      },
    },
    anthropic: {
      path: "/v1/messages",
      body: {
        model: "m",
        max_tokens: 9,
        messages: [
          { role: "user", content: user },
          { role: "assistant", content: [use] },
          {
            role: "user",
            content: [
              {
                type: "tool_result",
                tool_use_id: "c1",
                content: [{ type: "text", text }],
                cache_control: { type: "ephemeral" },
              },
              { type: "text", text: user },
            ],
          },
        ],
      },
    },
    "bedrock converse": {
      path: "/model/m/converse",
      body: {
        messages: [
          { role: "user", content: [{ text: user }] },
          {
            role: "assistant",
            content: [{ toolUse: { toolUseId: "c1", name: "look", input: {} } }],
          },
          { role: "user", content: [{ toolResult: { toolUseId: "c1", content: [{ text }] } }] },
        ],
      },
    },
    "bedrock invoke": {
      path: "/model/m/invoke",
      body: {
        anthropic_version: "bedrock-2023-05-31",
        max_tokens: 9,
        messages: [
          { role: "user", content: user },
          { role: "assistant", content: [use] },
          { role: "user", content: [{ type: "tool_result", tool_use_id: "c1", content: text }] },
        ],
      },
    },
    gemini: {
      path: "/v1beta/models/m:generateContent",
      body: {
        contents: [
          { role: "user", parts: [{ text: user }] },
          { role: "model", parts: [{ functionCall: { name: "look", args: {} } }] },
          {
            role: "user",
            parts: [{ functionResponse: { name: "look", response: { result: text } } }],
          },
        ],
      },
    },
    cohere: {
      path: "/v2/chat",
      body: {
        model: "m",
        messages: [
          { role: "user", content: user },
          { role: "assistant", tool_calls: [call] },
          {
            role: "tool",
            tool_call_id: "c1",
            content: [{ type: "document", document: { data: { result: text } } }],
          },
        ],
      },
    },
    ollama: {
      path: "/api/chat",
      body: {
        model: "m",
        messages: [
          { role: "user", content: user },
          { role: "tool", tool_name: "look", content: text },
        ],
      },
    },
  };
}
