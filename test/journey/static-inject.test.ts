/** static-inject: a stored credential takes the place of the placeholder, on the wire, or nothing passes. */
import { mkdir, writeFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { get, request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings, type Settings } from "../support/proxy.ts";

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
