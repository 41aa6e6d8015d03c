/** static-inject: a stored credential takes the place of the placeholder, on the wire, or nothing passes. */
import { execFile, spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { get, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let target: HttpOrigin;
let bearer: ProxyProcess;
let header: ProxyProcess;

const names = ["api.test", "unsafe.test", "empty.test", "unknown.test", "blank.test"];
const hosts = Object.fromEntries(names.map((name) => [name, ["127.0.0.1"]]));

function injecting(config: Settings): Promise<ProxyProcess> {
  return ProxyProcess.start(
    merge(settings({ egress: { hosts } }), outbound({ name: "static-inject", config })),
  );
}

beforeAll(async () => {
  target = await own(HttpOrigin.launch());
  const mappings = {
    "api.test": "REAL",
    "unsafe.test": "evil\r\nX-Evil: 1",
    "empty.test": "",
    "blank.test": "  ",
  };
  [bearer, header] = await Promise.all([
    own(injecting({ source: "mappings", mappings, placeholder: "PLACEHOLDER" })),
    own(
      injecting({
        source: "mappings",
        mappings: { "api.test": "REALKEY" },
        inject_header: "x-api-key",
      }),
    ),
  ]);
});

let counter = 0;

async function call(
  proxy: ProxyProcess,
  name: string,
  headers: readonly (readonly [string, string])[] = [["Authorization", "Bearer PLACEHOLDER"]],
) {
  const path = `/call-${(counter += 1)}`;
  const authority = `${name}:${target.port}`;
  const answer = await request(proxy.forward, {
    target: `http://${authority}${path}`,
    headers: [["Host", authority], ...headers],
  });
  return { answer, seen: target.requestsFor(path)[0] };
}

describe("a bearer credential", () => {
  test("O1: takes the place of the placeholder", async () => {
    const { answer, seen } = await call(bearer, "api.test");
    expect(answer.status).toBe(200);
    expect(seen?.head.all("authorization")).toEqual(["Bearer REAL"]);
  });

  const refusals = [
    ["O3: no Authorization", "api.test", [], "static-inject.missing-auth"],
    [
      "O3: another scheme",
      "api.test",
      [["Authorization", "Basic abc"]],
      "static-inject.missing-auth",
    ],
    [
      "O3: another placeholder",
      "api.test",
      [["Authorization", "Bearer OTHER"]],
      "static-inject.placeholder-mismatch",
    ],
    ["O3: a host without a credential", "unknown.test", undefined, "static-inject.unresolved-key"],
    ["O4: a value with CR and LF", "unsafe.test", undefined, "static-inject.unsafe-value"],
    ["O5: an empty value", "empty.test", undefined, "static-inject.unsafe-value"],
    ["O5: a value of blanks", "blank.test", undefined, "static-inject.unsafe-value"],
  ] as const;
  test.each(refusals)("%s is 401 and nothing leaves", async (_id, name, headers, code) => {
    const { answer, seen } = await call(bearer, name, headers);
    expect(answer.status).toBe(401);
    expect(answer.json()).toMatchObject({ error: code, plugin: "static-inject" });
    expect(answer.text).not.toMatch(/REAL|PLACEHOLDER|evil/);
    expect(seen).toBeUndefined();
  });

  test("a denial is in the session record", async () => {
    await call(bearer, "unknown.test");
    const { text } = await bearer.sessions("/v1/sessions/default");
    expect(text).toContain("static-inject.unresolved-key");
  });

  test("M17: /config and /v1/pipeline do not show the credentials", async () => {
    const shown =
      (await bearer.stats("/config")).text + (await bearer.sessions("/v1/pipeline")).text;
    expect(shown).not.toContain("REAL");
  });

  test("CRED-09: a redirect does not carry the credential anywhere", async () => {
    target.on(
      "/redirected",
      () => "HTTP/1.1 302 Found\r\nLocation: http://unknown.test/\r\nContent-Length: 0\r\n\r\n",
    );
    const before = target.requests.length;
    const answer = await get(bearer.forward, `http://api.test:${target.port}/redirected`, {
      Authorization: "Bearer PLACEHOLDER",
    });
    expect(answer.status).toBe(302);
    expect(target.requests).toHaveLength(before + 1);
  });
});

describe("another header", () => {
  test("O2, Z6: carries the bare value, and no Authorization goes with it", async () => {
    const { answer, seen } = await call(header, "api.test");
    expect(answer.status).toBe(200);
    expect(seen?.head.all("x-api-key")).toEqual(["REALKEY"]);
    expect(seen?.header("authorization")).toBeUndefined();
  });

  test.each(["X-Api-Key", "x_api_key", "X.Api.Key"])(
    "CRED-11: the client's own %s is removed",
    async (name) => {
      const { seen } = await call(header, "api.test", [
        ["Authorization", "Bearer PLACEHOLDER"],
        [name, "CLIENTS-OWN"],
      ]);
      expect(seen?.head.text).not.toContain("CLIENTS-OWN");
      expect(seen?.head.all("x-api-key")).toEqual(["REALKEY"]);
    },
  );
});

describe("the placeholder is replaced where the client puts it", () => {
  const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;
  type Fields = readonly (readonly [string, string])[];
  const inFields: readonly (readonly [what: string, sent: Fields, seen: Fields])[] = [
    ["x-api-key", [["x-api-key", "PLACEHOLDER"]], [["x-api-key", "REAL"]]],
    ["X-Goog-Api-Key", [["X-Goog-Api-Key", "PLACEHOLDER"]], [["x-goog-api-key", "REAL"]]],
    ["api-key", [["api-key", "PLACEHOLDER"]], [["api-key", "REAL"]]],
    ["token", [["Authorization", "token PLACEHOLDER"]], [["authorization", "token REAL"]]],
    ["no scheme", [["Authorization", "PLACEHOLDER"]], [["authorization", "REAL"]]],
    [
      "a password, as git sends it",
      [["Authorization", basic("x-access-token:PLACEHOLDER")]],
      [["authorization", basic("x-access-token:REAL")]],
    ],
    [
      "a user, as git and pip send it",
      [["Authorization", basic("PLACEHOLDER:")]],
      [["authorization", basic("REAL:")]],
    ],
    [
      "a user and a password",
      [["Authorization", basic("PLACEHOLDER:PLACEHOLDER")]],
      [["authorization", basic("REAL:REAL")]],
    ],
    [
      "two places",
      [
        ["Authorization", "Bearer PLACEHOLDER"],
        ["api-key", "PLACEHOLDER"],
      ],
      [
        ["authorization", "Bearer REAL"],
        ["api-key", "REAL"],
      ],
    ],
    [
      "x-api-key, beside another spelling of it",
      [
        ["x-api-key", "PLACEHOLDER"],
        ["X_Api_Key", "OWN"],
      ],
      [["x-api-key", "REAL"]],
    ],
  ];
  test.each(inFields)("in a field: %s", async (_what, sent, expected) => {
    const { answer, seen } = await call(bearer, "api.test", sent);
    expect(answer.status, answer.text).toBe(200);
    for (const [name, value] of expected) expect(seen?.head.all(name)).toEqual([value]);
    expect(seen?.head.text).not.toMatch(/PLACEHOLDER|OWN/);
  });

  const inUrls = [
    ["/v1/models?alt=sse&key=PLACEHOLDER", "/v1/models?alt=sse&key=REAL"],
    ["/v1/models?key=PLACE%48OLDER&b=%2F", "/v1/models?key=REAL&b=%2F"],
    ["/v1/models?API_KEY=PLACEHOLDER", "/v1/models?API_KEY=REAL"],
    ["/hooks/PLACEHOLDER/x?y=1", "/hooks/REAL/x?y=1"],
    ["/botPLACEHOLDER/sendMessage", "/botREAL/sendMessage"],
  ] as const;
  test.each(inUrls)("in a URL: %s", async (sent, expected) => {
    const answer = await get(bearer.forward, `http://api.test:${target.port}${sent}`);
    expect(answer.status, answer.text).toBe(200);
    expect(target.requests.at(-1)?.head.text).toContain(`GET ${expected} HTTP/1.1`);
    const { text } = await bearer.sessions("/v1/sessions/default");
    expect(text + bearer.stderr).not.toContain("REAL");
  });

  const elsewhere = [
    "/search?q=PLACEHOLDER",
    "/search?key=PLACEHOLDERS",
    "/PLACEHOLDER-2/x",
    "/x.PLACEHOLDER",
  ];
  test.each(elsewhere)("%s has none", async (sent) => {
    const answer = await get(bearer.forward, `http://api.test:${target.port}${sent}`);
    expect(answer.status).toBe(401);
    expect(answer.json()).toMatchObject({ error: "static-inject.missing-auth" });
    expect(target.requestsFor(sent)).toHaveLength(0);
  });

  test.each([
    ["a field that servers repeat", [["X-Request-Id", "PLACEHOLDER"]], "missing-auth"],
    ["another value", [["x-api-key", "OTHER"]], "placeholder-mismatch"],
    ["Basic of others", [["Authorization", basic("a:b")]], "missing-auth"],
  ] as const)("%s has none either", async (_what, sent, code) => {
    const { answer, seen } = await call(bearer, "api.test", sent);
    expect(answer.json()).toMatchObject({ error: `static-inject.${code}` });
    expect(seen).toBeUndefined();
  });

  const git = spawnSync("git", ["--version"]).status === 0;
  test.skipIf(!git)("git, which waits to be asked for its credential", async () => {
    const commit = "a".repeat(40);
    const refs = `${commit}\trefs/heads/main\n`;
    target.on("/team/repository.git/info/refs", () => reply(200, refs));
    target.on("/team/repository.git/HEAD", () => reply(200, "ref: refs/heads/main\n"));
    const proxy = `http://127.0.0.1:${bearer.forward.port}`;
    const site = `api.test:${target.port}/team/repository.git`;
    const { stdout } = await promisify(execFile)(
      "git",
      ["ls-remote", `http://x-access-token:PLACEHOLDER@${site}`],
      { env: { ...process.env, http_proxy: proxy, no_proxy: "", GIT_TERMINAL_PROMPT: "0" } },
    );
    expect(stdout).toContain(`${commit}\trefs/heads/main`);
    const seen = target.requestsFor("/team/repository.git/info/refs").at(-1);
    expect(seen?.header("authorization")).toBe(basic("x-access-token:REAL"));
  });

  test("a request without it is asked for it, in the schemes that it may come in", async () => {
    const { answer } = await call(bearer, "api.test", []);
    expect(answer.status).toBe(401);
    expect(answer.header("www-authenticate")).toBe(
      'Basic realm="authbridge", Bearer realm="authbridge"',
    );
  });

  test("a response that repeats the URL does not show the credential", async () => {
    const body = '{"error":"Invalid URL (GET /botREAL/lost?key=REAL)"}';
    const head = `Location: /botREAL/lost/?key=REAL\r\nContent-Type: application/json`;
    target.on(
      "/botREAL/lost",
      () => `HTTP/1.1 308 Moved\r\n${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    const path = "/botPLACEHOLDER/lost?key=PLACEHOLDER";
    const answer = await get(bearer.forward, `http://api.test:${target.port}${path}`);
    expect(answer.status).toBe(308);
    expect(answer.header("location")).toBe("/botPLACEHOLDER/lost/?key=PLACEHOLDER");
    expect(answer.text).toBe(body.replaceAll("REAL", "PLACEHOLDER"));
  });

  test("a stream that repeats it does not either, event by event", async () => {
    const events = "data: one REAL\n\ndata: two\n\n";
    target.on(
      "/stream",
      () =>
        `HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: ${events.length}\r\n\r\n${events}`,
    );
    const url = `http://api.test:${target.port}/stream?key=PLACEHOLDER`;
    const answer = await get(bearer.forward, url);
    expect(answer.text).toBe("data: one PLACEHOLDER\n\ndata: two\n\n");
  });

  test("another field of the file gets it, whichever has the placeholder", async () => {
    const mappings = { "api.test": "REAL" };
    const proxy = await own(
      injecting({
        source: "mappings",
        mappings,
        placeholder: "PLACEHOLDER",
        inject_header: "x-api-key",
      }),
    );
    for (const sent of ["x-api-key", "api-key"]) {
      const { seen } = await call(proxy, "api.test", [[sent, "PLACEHOLDER"]]);
      expect(seen?.head.all("x-api-key")).toEqual(["REAL"]);
      expect(seen?.head.text).not.toContain("PLACEHOLDER");
    }
  });

  test("placeholder_in narrows where it may be", async () => {
    const proxy = await own(
      injecting({
        source: "mappings",
        mappings: { "api.test": "REAL" },
        placeholder: "PLACEHOLDER",
        placeholder_in: ["authorization"],
      }),
    );
    expect((await call(proxy, "api.test")).answer.status).toBe(200);
    expect((await call(proxy, "api.test", [["x-api-key", "PLACEHOLDER"]])).answer.status).toBe(401);
    const answer = await get(proxy.forward, `http://api.test:${target.port}/?key=PLACEHOLDER`);
    expect(answer.status).toBe(401);
  });

  test("without a placeholder any value of such a field is one", async () => {
    const { answer, seen } = await call(header, "api.test", [["x-api-key", "whatever"]]);
    expect(answer.status).toBe(200);
    expect(seen?.head.all("x-api-key")).toEqual(["REALKEY"]);
  });
});

describe("where the value comes from", () => {
  test("O6: key_by static takes one key whatever the host", async () => {
    const proxy = await own(
      injecting({ source: "mappings", mappings: { X: "ONE" }, key_by: "static", key: "X" }),
    );
    for (const name of ["api.test", "unknown.test"]) {
      const { seen } = await call(proxy, name);
      expect(seen?.header("authorization")).toBe("Bearer ONE");
    }
  });

  test("CRED-10: a file per key is read at every request, host:port before host", async () => {
    const proxy = await own(injecting({ source: "secret_dir", secret_dir: "secrets" }));
    await mkdir(proxy.path("secrets"));
    expect((await call(proxy, "api.test")).answer.status).toBe(401);
    await writeFile(proxy.path("secrets/api.test"), "first\n");
    expect((await call(proxy, "api.test")).seen?.header("authorization")).toBe("Bearer first");
    await writeFile(proxy.path("secrets/api.test"), "second\n");
    expect((await call(proxy, "api.test")).seen?.header("authorization")).toBe("Bearer second");
    await writeFile(proxy.path(`secrets/api.test:${target.port}`), "with-port\n");
    expect((await call(proxy, "api.test")).seen?.header("authorization")).toBe("Bearer with-port");
  });

  test("CRED-03: allow_plaintext false refuses a plain request", async () => {
    const proxy = await own(
      injecting({ source: "mappings", mappings: { "api.test": "REAL" }, allow_plaintext: false }),
    );
    const { answer, seen } = await call(proxy, "api.test");
    expect([401, 403]).toContain(answer.status);
    expect(seen).toBeUndefined();
  });
});
