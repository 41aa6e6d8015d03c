/** dlp on the wire: rules, redaction in the grammar of the text, detectors of the file, responses, tunnels. */
import { writeFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { checkDigits } from "../../src/dlp/key-formats.ts";
import { eventually } from "../support/eventually.ts";
import { openTunnel, RawClient, request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const stored = "sTored-Credential_0123456789";
const random = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT";
const githubKey = `ghp_${random}${checkDigits(random)}`;
const card = "4111111111111111";

const names = [
  "redact.test",
  "stars.test",
  "watch.test",
  "free.test",
  "other.test",
  "listed.test",
  "inject.test",
];
const hosts = Object.fromEntries(names.map((name) => [name, ["127.0.0.1"]]));
const detectors = ["standard", "financial", "named_secrets", "email"];
const responses = ["own_secrets", "provider_keys"];

const config = {
  rules: [
    {
      name: "out",
      hosts: ["redact.test"],
      detectors,
      response_detectors: responses,
      action: "redact",
    },
    { hosts: ["stars.test"], detectors, action: "redact", mask: "same_length" },
    { name: "seen", hosts: ["watch.test"], detectors, action: "observe" },
    {
      hosts: ["free.test"],
      detectors: ["standard", "ticket"],
      response_detectors: ["own_secrets"],
      action: "pass",
    },
    { hosts: ["listed.test"], detectors: ["ticket", "names"], action: "refuse" },
  ],
  patterns: [{ name: "ticket", pattern: "PROJ-[0-9]{4}" }],
  lists: [{ name: "names", file: "./names.txt" }],
  default: { action: "refuse" },
};
const inject = {
  name: "static-inject",
  config: { source: "mappings", mappings: { "inject.test": stored }, placeholder: "STAND-IN" },
};

let origin: HttpOrigin;
let proxy: ProxyProcess;

function file(over: object = {}): Settings {
  return merge(
    settings({ egress: { hosts }, limits: { max_body: "64KiB" } }),
    outbound(
      { name: "dlp", config: { ...config, ...over } },
      { ...inject, config: { ...inject.config, hosts: ["inject.test"] } },
    ),
  );
}

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  proxy = await own(
    ProxyProcess.start(file(), { files: { "names.txt": "# people\nProject Bluebird\n" } }),
  );
});

let counter = 0;

interface Shape {
  readonly path?: string;
  readonly headers?: readonly (readonly [string, string])[];
  readonly body?: string;
  readonly method?: string;
}

async function send(host: string, { path = "/", headers = [], ...shape }: Shape, through = proxy) {
  const mark = `call-${(counter += 1)}`;
  const authority = `${host}:${origin.port}`;
  const answer: RawResponse = await request(through.forward, {
    method: shape.body === undefined ? "GET" : "POST",
    target: `http://${authority}${path}`,
    headers: [["Host", authority], ["X-Mark", mark], ...headers],
    ...shape,
  });
  const seen = origin.requests.find((one) => one.header("x-mark") === mark);
  return { answer, seen };
}

const json = [["Content-Type", "application/json"]] as const;

describe("redact", () => {
  test("leaves JSON what it was, down to its spaces and numbers", async () => {
    const body = `{ "n": 1.50,\n "key":"${githubKey}", "deep":[{"card": ${card}, "note":"pay \\"${card}\\" now"}], "big": 12345678901234567890 }`;
    const { answer, seen } = await send("redact.test", { headers: json, body });
    expect(answer.status).toBe(200);
    expect(seen?.text).toBe(
      '{ "n": 1.50,\n "key":"[redacted:provider_keys]", "deep":[{"card": "[redacted:cards]", "note":"pay \\"[redacted:cards]\\" now"}], "big": 12345678901234567890 }',
    );
    expect(seen?.header("content-length")).toBe(String(seen?.body.length));
  });

  test("takes out what is below a coding, whole", async () => {
    const hidden = Buffer.from(`x ${stored} y`).toString("base64");
    const { seen } = await send("redact.test", {
      headers: json,
      body: JSON.stringify({ a: `see ${hidden} there` }),
    });
    expect(seen?.text).toContain("[redacted:own_secrets]");
    expect(Buffer.from(seen?.text ?? "", "base64").toString("latin1")).not.toContain(stored);
  });

  test("a name that says what a value is", async () => {
    const { seen } = await send("redact.test", {
      headers: json,
      body: '{"user":"a","client_secret":"q8Zt4Lk2Wm9Xr7Vb3Np6"}',
    });
    expect(seen?.text).toBe('{"user":"a","client_secret":"[redacted:named_secrets]"}');
  });

  test("parameters of forms and queries, and segments of paths", async () => {
    const { seen } = await send("redact.test", {
      path: `/a/${githubKey}/b?x=1&card=${card}&y=a%20b`,
      headers: [["Content-Type", "application/x-www-form-urlencoded"]],
      body: `a=b+c&mail=someone%40mail.example&card=4111+1111+1111+1111`,
    });
    expect(seen?.target).toBe(
      "/a/%5Bredacted%3Aprovider_keys%5D/b?x=1&card=%5Bredacted%3Acards%5D&y=a%20b",
    );
    expect(seen?.text).toBe("a=b+c&mail=%5Bredacted%3Aemail%5D&card=%5Bredacted%3Acards%5D");
  });

  test("fields; where a client's own key belongs, only secrets of the proxy are looked for", async () => {
    const { seen } = await send("redact.test", {
      headers: [
        ["X-Note", `key ${githubKey}!`],
        ["Authorization", `Bearer ${githubKey}`],
      ],
    });
    expect(seen?.header("x-note")).toBe("key [redacted:provider_keys]!");
    expect(seen?.header("authorization")).toBe(`Bearer ${githubKey}`);
  });

  test("by stars of the same length", async () => {
    const body = JSON.stringify({ a: `${card}.` });
    const { seen } = await send("stars.test", { headers: json, body });
    expect(seen?.text).toBe(`{"a":"${"*".repeat(card.length)}."}`);
  });

  test.each<[string, Shape]>([
    ["the name of a member", { headers: json, body: JSON.stringify({ [githubKey]: 1 }) }],
    [
      "what has a digest",
      {
        headers: [...json, ["Content-Digest", "sha-256=:x:"]],
        body: JSON.stringify({ a: githubKey }),
      },
    ],
  ])("%s cannot be redacted, and is refused", async (_what, shape) => {
    const { answer, seen } = await send("redact.test", shape);
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "dlp.refused", plugin: "dlp" });
    expect(seen).toBeUndefined();
  });
});

describe("rules", () => {
  test("observe lets everything pass, and records where it was and not what", async () => {
    const { answer, seen } = await send("watch.test", {
      headers: json,
      body: JSON.stringify({ messages: [{ content: githubKey }] }),
    });
    expect([answer.status, seen?.text.includes(githubKey)]).toEqual([200, true]);
    const { text } = await proxy.sessions("/v1/sessions/default");
    expect(text).toContain("provider_keys (github) in body $.messages[0].content");
    expect(text).not.toContain(githubKey);
  });

  test("pass: nothing is looked for, and a body of any size is streamed", async () => {
    const { answer, seen } = await send("free.test", {
      body: `${githubKey}${"x".repeat(200_000)}`,
    });
    expect([answer.status, seen?.body.length]).toEqual([200, 200_040]);
  });

  test("a larger body that cannot be streamed is refused, and the refusal names the key", async () => {
    const { answer, seen } = await send("other.test", {
      headers: [["Content-Encoding", "br"]],
      body: "x".repeat(200_000),
    });
    expect(answer.status).toBe(413);
    expect(answer.text).toContain("limits.max_body");
    expect(seen).toBeUndefined();
  });

  test("the default stands behind them, and the refusal names the tool", async () => {
    const call = {
      jsonrpc: "2.0",
      id: "a",
      method: "tools/call",
      params: { name: "gist", arguments: { text: githubKey } },
    };
    const { answer, seen } = await send("other.test", {
      headers: json,
      body: JSON.stringify(call),
    });
    expect(seen).toBeUndefined();
    expect(answer.json()).toMatchObject({ jsonrpc: "2.0", id: "a" });
    expect(answer.text).toContain("body $.params.arguments.text, an argument of tool gist");
    expect(
      (await send("other.test", { headers: json, body: JSON.stringify({ card }) })).answer.status,
    ).toBe(200);
  });

  test("patterns and lists of the file", async () => {
    for (const body of [
      "about PROJ-1234",
      `base64 ${Buffer.from("with PROJ-1234 in it").toString("base64")}`,
      "Project Bluebird",
    ])
      expect((await send("listed.test", { body })).answer.status).toBe(403);
    expect((await send("listed.test", { body: "PROJ-12 Project Redbird" })).answer.status).toBe(
      200,
    );
  });

  test("a list is read again when it changes", async () => {
    await writeFile(proxy.path("names.txt"), "Project Redbird\n");
    await eventually(
      async () => (await send("listed.test", { body: "Project Redbird" })).answer.status === 403,
    );
    expect((await send("listed.test", { body: "Project Bluebird" })).answer.status).toBe(200);
  });

  test("a credential that is attached later is not in the way", async () => {
    const { answer, seen } = await send("inject.test", {
      headers: [["Authorization", "Bearer STAND-IN"]],
    });
    expect([answer.status, seen?.header("authorization")]).toEqual([200, `Bearer ${stored}`]);
  });
});

describe("responses", () => {
  const event = (text: string): string => `data: ${JSON.stringify({ delta: text })}\n\n`;

  test("JSON is redacted, and stays JSON", async () => {
    origin.on("/json", () =>
      reply(200, JSON.stringify({ you: [stored], n: 1 }), { "Content-Type": "application/json" }),
    );
    const { answer } = await send("redact.test", { path: "/json" });
    expect(answer.json()).toEqual({ you: ["[redacted:own_secrets]"], n: 1 });
  });

  test("a field is redacted", async () => {
    origin.on("/field", () => reply(200, "ok", { Location: `http://x.test/?t=${stored}` }));
    const { answer } = await send("redact.test", { path: "/field" });
    expect(answer.header("location")).toBe("http://x.test/?t=[redacted:own_secrets]");
  });

  test("a body that is redacted has no digest, tag or ranges of the one that came", async () => {
    const fields = {
      "Content-Type": "text/plain",
      "Content-Digest": "sha-256=:AA==:",
      "Content-MD5": "AA==",
      ETag: '"x"',
      "Accept-Ranges": "bytes",
    };
    const names = Object.keys(fields).slice(1);
    origin.on("/tagged", () => reply(200, `a ${stored} b`, fields));
    origin.on("/kept", () => reply(200, "a b", fields));
    const [redacted, kept] = [
      (await send("redact.test", { path: "/tagged" })).answer,
      (await send("redact.test", { path: "/kept" })).answer,
    ];
    expect(redacted.text).toBe("a [redacted:own_secrets] b");
    expect(names.map((name) => redacted.header(name))).toEqual(names.map(() => undefined));
    expect(names.map((name) => kept.header(name))).not.toContain(undefined);
  });

  test.each<[string, number, Readonly<Record<string, string>>]>([
    ["a part of a document", 206, { "Content-Range": "bytes 0-31/99" }],
    [
      "a body whose digest is signed",
      200,
      {
        "Content-Digest": "sha-256=:AA==:",
        "Signature-Input": 'sig=("content-digest");created=1;keyid="k"',
        Signature: "sig=:AA==:",
      },
    ],
  ])("%s is refused where it would be redacted", async (name, status, fields) => {
    const path = `/${name.replaceAll(" ", "-")}`;
    origin.on(path, () =>
      reply(status, `a ${stored} b`, { "Content-Type": "text/plain", ...fields }),
    );
    const { answer } = await send("redact.test", { path });
    expect(answer.status).toBe(502);
    expect(answer.text).toContain("upstream.bad-response");
    expect(answer.text).not.toContain(stored);
  });

  test("an event is redacted, and one that ends what another began is refused", async () => {
    origin.on("/events", () =>
      reply(200, event("a") + event(stored) + event("b"), { "Content-Type": "text/event-stream" }),
    );
    const { answer } = await send("redact.test", { path: "/events" });
    expect(answer.text).toBe(event("a") + event("[redacted:own_secrets]") + event("b"));
    origin.on("/spread", () =>
      reply(200, event(stored.slice(0, 9)) + event(stored.slice(9)) + event("end"), {
        "Content-Type": "text/event-stream",
      }),
    );
    const client = await RawClient.connect(proxy.forward);
    const authority = `redact.test:${origin.port}`;
    client.send(`GET http://${authority}/spread HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
    const seen = await client.ended();
    expect(seen).toMatch(/^HTTP\/1.1 200 /);
    expect(seen).not.toContain(stored.slice(9));
    expect(seen).not.toContain('"end"');
  });

  test("an archive larger than a body may be is no text, and passes", async () => {
    origin.on("/archive", () =>
      reply(200, "x".repeat(200_000), { "Content-Type": "application/octet-stream" }),
    );
    const { answer } = await send("other.test", { path: "/archive" });
    expect([answer.status, answer.body.length]).toEqual([200, 200_000]);
  });
});

describe("tunnels", () => {
  test("one that cannot be read is refused, and the words name the key", async () => {
    const { answer } = await openTunnel(proxy.forward, "other.test:443");
    expect(answer.status).toBe(403);
    expect(answer.text).toContain("opaque_tunnels");
  });

  test("opaque_tunnels: pass leaves them alone; those to hosts of pass are alone anyway", async () => {
    const open = await own(
      ProxyProcess.start(file({ opaque_tunnels: "pass", lists: [], rules: [] })),
    );
    const ask = async (through: ProxyProcess, host: string): Promise<number> =>
      (await openTunnel(through.forward, `${host}:${origin.port}`)).answer.status;
    expect(await ask(open, "other.test")).toBe(200);
    expect(await ask(proxy, "free.test")).toBe(200);
  });
});

test("in the inbound pipeline it looks through what callers send, and what the agent answers", async () => {
  const agent = await own(HttpOrigin.launch());
  agent.on("/leak", () => reply(200, `the key is ${stored}`, { "Content-Type": "text/plain" }));
  const guarded = await own(
    ProxyProcess.start(
      merge(
        settings({ listener: { reverse_proxy_backend: `http://${agent.authority}` } }),
        merge(
          inbound({ name: "dlp", config: { default: { action: "refuse" } } }),
          outbound(inject),
        ),
      ),
    ),
  );
  const ask = async (target: string, body = ""): Promise<RawResponse> =>
    request(guarded.reverse, { method: "POST", target, headers: [["Host", "agent.test"]], body });
  expect((await ask("/fine", "hello")).status).toBe(200);
  expect((await ask("/", `take ${githubKey}`)).status).toBe(403);
  const fields = [
    ["Host", "agent.test"],
    ["Authorization", `Bearer ${stored}`],
  ] as const;
  expect((await request(guarded.reverse, { target: "/", headers: fields })).status).toBe(200);
  const leak = await ask("/leak");
  expect([leak.status, leak.text.includes(stored)]).toEqual([502, false]);
});

test("with two threads, each looks for the secrets of the file", async () => {
  const two = await own(ProxyProcess.start(merge(file({ lists: [], rules: [] }), { workers: 2 })));
  const body = JSON.stringify({ a: Buffer.from(stored).toString("hex") });
  const all = await Promise.all(
    Array.from({ length: 12 }, () => send("other.test", { headers: json, body }, two)),
  );
  expect(new Set(all.map(({ answer }) => answer.status))).toEqual(new Set([403]));
});

test("a reload takes new rules", async () => {
  const changing = await own(ProxyProcess.start(file({ lists: [], rules: [] })));
  const body = JSON.stringify({ card });
  expect((await send("other.test", { headers: json, body }, changing)).answer.status).toBe(200);
  await changing.reload(
    file({ lists: [], rules: [], default: { detectors: ["cards"], action: "refuse" } }),
  );
  expect((await send("other.test", { headers: json, body }, changing)).answer.status).toBe(403);
});

test.each<[string, object, string]>([
  [
    "a detector that nobody knows",
    { default: { detectors: ["cardz"], action: "refuse" } },
    "cardz",
  ],
  [
    "a pattern that backtracks",
    { patterns: [{ name: "ticket", pattern: "(a)\\1" }] },
    "linear time",
  ],
  [
    "a list that is not there",
    { lists: [{ name: "names", file: "./none.txt" }] },
    "does not exist",
  ],
  ["a name that is taken", { patterns: [{ name: "cards", pattern: "x" }] }, "another detector"],
])("%s is found before the start", async (_what, over, words) => {
  const { code, stdout, stderr } = await runWith("check", file({ rules: [], lists: [], ...over }));
  expect(code).not.toBe(0);
  expect(stdout + stderr).toContain(words);
});

test("under on_error: observe, plugins that judge the facts of parsers judge what is sent", async () => {
  const judge = `export const plugins = [{ name: "facts-judge", description: "", create: () => ({
    onRequest: ({ facts }) => JSON.stringify(facts.get("mcp")).includes("${card}")
      ? { action: "deny", reason: "card", denial: { code: "policy.forbidden", message: "no card" } }
      : undefined,
  }) }];`;
  const through = await own(
    ProxyProcess.start(
      merge(
        settings({ plugin_modules: ["./judge.mjs"] }),
        outbound(
          "mcp-parser",
          {
            name: "dlp",
            on_error: "observe",
            config: { default: { detectors: ["financial"], action: "refuse" } },
          },
          "facts-judge",
        ),
      ),
      { files: { "judge.mjs": judge } },
    ),
  );
  const params = { name: "pay", arguments: { card } };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  const { answer, seen } = await send("127.0.0.1", { path: "/mcp", headers: json, body }, through);
  expect(answer.text).toContain("no card");
  expect(seen).toBeUndefined();
});
