/** One file, read as the Go program reads it: what is valid, what is refused, and how the refusal reads. */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import { type LogLine, runProgram, runWith, type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { WorkloadApi } from "../support/workload-api.ts";

const own = owner();
const backend = "http://127.0.0.1:9";
const both: Settings = { listener: { reverse_proxy_backend: backend } };
const forwardOnly: Settings = { listener: { roles: ["forward"] } };

interface Effective {
  readonly mode: string;
  readonly listener: Readonly<Record<string, unknown>>;
  readonly pipeline: Readonly<
    Record<"inbound" | "outbound", { readonly plugins: readonly Settings[] }>
  >;
  readonly session: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

/** The effective configuration that `check` prints for a valid file. */
async function effective(config: Settings | string): Promise<Effective> {
  const { code, stdout, stderr } = await runWith("check", config);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Effective;
}

/** Checks a bad file and answers its problems, one per line. */
async function problems(config: Settings | string): Promise<string> {
  const { code, stderr, stdout } = await runWith("check", config);
  expect(code, stdout).toBe(2);
  return stderr;
}

describe("addresses and roles", () => {
  test("A1: without addresses the ports of the Go program are used", async () => {
    const { listener, mode } = await effective(both);
    expect(mode).toBe("proxy-sidecar");
    expect(listener).toMatchObject({
      reverse_proxy_addr: ":8080",
      forward_proxy_addr: ":8081",
      transparent_proxy_addr: ":8082",
    });
    // The session API shows traffic: on loopback unless the file says otherwise.
    expect(listener["session_api_addr"]).toBe("127.0.0.1:9094");
  });

  test("A2: the forward role alone fills no reverse address", async () => {
    const { listener } = await effective(forwardOnly);
    expect(listener).toMatchObject({ forward_proxy_addr: ":8081" });
    expect(listener["reverse_proxy_addr"] ?? "").toBe("");
  });

  test("A3: the reverse role alone fills no forward and no transparent address", async () => {
    const { listener } = await effective(merge(both, { listener: { roles: ["reverse"] } }));
    expect(listener).toMatchObject({ reverse_proxy_addr: ":8080" });
    expect(listener["forward_proxy_addr"] ?? "").toBe("");
    expect(listener["transparent_proxy_addr"] ?? "").toBe("");
  });

  test("A4: an explicit address is kept", async () => {
    const { listener } = await effective(
      merge(both, { listener: { forward_proxy_addr: "127.0.0.1:18081" } }),
    );
    expect(listener["forward_proxy_addr"]).toBe("127.0.0.1:18081");
  });

  test("A5: both roles without a backend are refused", async () => {
    expect(await problems("mode: proxy-sidecar\n")).toContain("reverse_proxy_backend");
  });

  test("A6: the forward role needs no backend", async () => {
    await effective(forwardOnly);
  });

  test("A7: an unknown role is refused where it stands", async () => {
    const text = await problems("listener:\n  roles: [sideways]\n");
    expect(text).toMatch(/proxy\.yaml:2:11 listener\.roles\[0\]/);
  });

  test("A8: the TLS bridge needs the forward role", async () => {
    const config = merge(both, {
      listener: { roles: ["reverse"] },
      tls_bridge: { mode: "enabled", ca_dir: "/tmp/none" },
    });
    expect(await problems(config)).toMatch(/tls_bridge.*forward/);
  });

  test.each(["ext_authz_addr", "ext_proc_addr"])("A9: %s belongs to Envoy modes", async (key) => {
    expect(await problems(merge(both, { listener: { [key]: ":9090" } }))).toContain(key);
  });

  test("inbound interception of newer files: reverse-proxy is what it was before", async () => {
    const { listener } = await effective(
      merge(both, { listener: { inbound_interception: "reverse-proxy" } }),
    );
    expect(listener).not.toHaveProperty("transparent_inbound_addr");
    const empty = { inbound_interception: "", transparent_inbound_addr: "" };
    expect((await effective(merge(both, { listener: empty }))).mode).toBe("proxy-sidecar");
  });

  test("inbound interception: transparent opens :8083, and needs no backend", async () => {
    const { listener } = await effective(
      merge(both, { listener: { inbound_interception: "transparent", reverse_proxy_backend: "" } }),
    );
    expect(listener).toMatchObject({ transparent_inbound_addr: ":8083" });
    expect(listener).not.toHaveProperty("reverse_proxy_addr");
  });

  test.each([
    [{ transparent_inbound_addr: ":8083" }, "transparent_inbound_addr: needs"],
    [{ inbound_passthrough_ports: [25] }, "inbound_passthrough_ports: needs"],
    [{ inbound_interception: "sideways" }, "inbound_interception: must be"],
    [{ inbound_interception: "transparent", roles: ["forward"] }, "needs the role reverse"],
  ])("%o is refused", async (listener, expected) => {
    expect(await problems(merge(both, { listener }))).toContain(expected);
  });

  test.each(["envoy-sidecar", "waypoint", "nonsense"])(
    "A10: mode %s is refused by name",
    async (mode) => {
      expect(await problems(merge(both, { mode }))).toMatch(/mode.*proxy-sidecar/);
    },
  );

  test("A10: an empty mode is proxy-sidecar", async () => {
    expect((await effective(merge(both, { mode: "" }))).mode).toMatch(/^(proxy-sidecar)?$/);
  });
});

describe("pipeline entries", () => {
  test("A12, A13: a bare name, a full entry and a null configuration are all read", async () => {
    const { pipeline } = await effective(
      settings(
        outbound(
          "plain",
          { name: "plain", id: "second", on_error: "observe", config: null },
          { name: "recorder", config: { file: "x" } },
        ),
      ),
    );
    expect(pipeline.outbound.plugins).toMatchObject([
      { name: "plain", on_error: "enforce" },
      { name: "plain", id: "second", on_error: "observe" },
      { name: "recorder", on_error: "enforce" },
    ]);
    expect(pipeline.outbound.plugins[0]?.["id"] ?? "").toBe("");
  });

  test("A14: on_error takes enforce, observe and off", async () => {
    const { pipeline } = await effective(
      settings(
        outbound(...["enforce", "observe", "off"].map((on_error) => ({ name: "plain", on_error }))),
      ),
    );
    expect(pipeline.outbound.plugins.map((entry) => entry["on_error"])).toEqual([
      "enforce",
      "observe",
      "off",
    ]);
  });

  test("A14: any other on_error is refused where it stands", async () => {
    const text = "pipeline:\n  outbound:\n    plugins:\n    - {name: plain, on_error: maybe}\n";
    expect(await problems(`listener: {roles: [forward]}\n${text}`)).toMatch(
      /proxy\.yaml:5:\d+ pipeline\.outbound\.plugins\[0\]\.on_error/,
    );
  });

  test("an unknown field of an entry is refused", async () => {
    const text = await problems(settings(outbound({ name: "plain", onerror: "off" })));
    expect(text).toMatch(/onerror: unknown key \(did you mean on_error\?\)/);
  });

  test("weakening an authentication plugin is refused", async () => {
    const entry = { name: "gate", config: { key: "k" }, on_error: "observe" };
    expect(await problems(settings(outbound(entry)))).toContain("allow_weakened_auth");
    await effective(settings(outbound({ ...entry, allow_weakened_auth: true })));
  });

  // Files for both programs: the Go program refuses unknown keys of an entry, and passes over those of the file.
  test.each(["observe", "off"])(
    "the consent to on_error: %s can stand outside the entry, and every start tells of it",
    async (on_error) => {
      const config = { issuer: "http://127.0.0.1:9", audience: "a" };
      const file = merge(
        settings(merge(both, inbound({ name: "jwt-validation", config, on_error }))),
        { allow_weakened_auth: true },
      );
      const { code, stderr } = await runWith("check", file);
      expect(code, stderr).toBe(0);
      expect(stderr).toMatch(/warning: .*allow_weakened_auth: /);
      const proxy = await own(ProxyProcess.start(file));
      expect(proxy.logs).toContainEqual(
        expect.objectContaining({
          level: "warn",
          pipeline: "inbound",
          plugin: "jwt-validation",
          on_error,
          msg: expect.stringContaining("authentication is switched off"),
        }),
      );
      await proxy.reload(merge(file, { log: { level: "info" } }));
      const isTold = ({ msg }: LogLine): boolean => msg.includes("authentication is switched off");
      await eventually(() => proxy.logs.filter(isTold).length === 2);
      expect(await proxy.refusedReload(merge(file, { allow_weakened_auth: false }))).toMatch(
        /on_error.*allow_weakened_auth: true at the top of the file/,
      );
    },
  );
});

describe("blocks", () => {
  test.each([
    ["nothing", {}, true],
    ["true", { enabled: true }, true],
    ["false", { enabled: false }, false],
  ])("A15: session.enabled of %s", async (_name, session, expected) => {
    expect((await effective(merge(forwardOnly, { session }))).session["enabled"]).toBe(expected);
  });

  test("A16: an unknown mtls mode is refused", async () => {
    const config = merge(forwardOnly, { spiffe: {}, mtls: { mode: "bogus" } });
    expect(await problems(config)).toMatch(/mtls\.mode/);
  });

  test.each(["permissive", "strict"])("A16: the mtls mode %s is taken", async (mode) => {
    const config = merge(forwardOnly, { spiffe: {}, mtls: { mode } });
    expect((await effective(config))["mtls"]).toEqual({ mode });
  });

  test("A25: a spiffe block that a plugin uses is taken, and check dials nothing", async () => {
    const identity = { type: "spiffe", jwt_audience: "idp" };
    const agent = await own(WorkloadApi.start());
    await effective(
      merge(settings(outbound({ name: "identified", config: { identity } })), {
        spiffe: { socket: agent.address },
      }),
    );
    expect(agent.connections).toBe(0);
  });

  test("A17: an empty spiffe block has the defaults of the Go program and is inert", async () => {
    expect((await effective(merge(forwardOnly, { spiffe: {} })))["spiffe"]).toEqual({
      socket: "unix:///spiffe-workload-api/spire-agent.sock",
      mirror_files: true,
      mirror_dir: "/opt",
    });
  });

  test.each([
    ["/run/x.sock", "must start with unix://"],
    ["tcp://127.0.0.1:8081", "must start with unix://"],
    ["unix://run/x.sock", "must be unix:// and the absolute path"],
    ["unix://", "must be unix:// and the absolute path"],
    [`unix:///${"x".repeat(107)}`, "is longer than the 107 bytes"],
  ])("A18: the spiffe socket %s is refused", async (socket, why) => {
    expect(await problems(merge(forwardOnly, { spiffe: { socket } }))).toContain(
      `spiffe.socket: ${why}`,
    );
  });

  test("A19: an unknown key under mtls is no error", async () => {
    const config = merge(forwardOnly, { spiffe: {}, mtls: { mode: "strict", extra: 1 } });
    const { code, stderr } = await runWith("check", config);
    expect(stderr).toMatch(/^warning: .*mtls\.extra/m);
    expect(code).toBe(0);
  });

  test("A20: the bridge needs a directory and real ports", async () => {
    const config = merge(forwardOnly, { tls_bridge: { mode: "enabled", ports: [0, 70_000] } });
    const text = await problems(config);
    expect(text).toContain("tls_bridge.ca_dir");
    expect(text).toContain("tls_bridge.ports[0]");
    expect(text).toContain("tls_bridge.ports[1]");
  });

  test("A25: spiffe is only needed by mtls and by plugins that identify with it", async () => {
    await effective(merge(forwardOnly, { spiffe: {} }));
    expect(await problems(merge(forwardOnly, { mtls: { mode: "strict" } }))).toContain("spiffe");
  });

  test.each([":9094", "0.0.0.0:9094", "[::]:9094"])(
    "A21: the bridge moves the session API from %s to loopback",
    async (session_api_addr) => {
      const { listener } = await effective(
        settings({
          listener: { session_api_addr },
          tls_bridge: { mode: "enabled", ca: "ephemeral" },
        }),
      );
      expect(listener["session_api_addr"]).toBe("127.0.0.1:9094");
    },
  );

  test("a plugin that comes later is refused as not available in this version", async () => {
    const text = await problems(settings(outbound("lineage-telemetry", "cpex")));
    expect(text).toMatch(/lineage-telemetry.*not available in this version/);
    expect(text).toMatch(/cpex.*not available in this version/);
  });
});

describe("problems", () => {
  test("Z20: an unknown top-level key is an error that names the nearest key", async () => {
    const text = await problems("listener: {roles: [forward]}\npipelin: {}\n");
    expect(text).toMatch(/proxy\.yaml:2:1 pipelin: unknown key \(did you mean pipeline\?\)/);
  });

  test("a key that has no effect as the others stand is a warning of check, in the file and in a plugin", async () => {
    const idle = merge(settings({ session: { enabled: false, persist: { path: "events" } } }), {
      listener: { reverse_proxy_backend: backend, roles: ["reverse"] },
      ...inbound({
        name: "jwt-validation",
        config: { issuer: "http://idp.test", audience: "a", dpop: { nonce_lifetime: "1m" } },
      }),
    });
    const { code, stderr } = await runWith("check", idle);
    expect(code, stderr).toBe(0);
    for (const line of [
      /^warning: proxy\.yaml:\d+:\d+ session\.persist: has no effect with enabled: false$/m,
      /^warning: proxy\.yaml:\d+:\d+ listener\.session_api_addr: is not used with session/m,
      /^warning: proxy\.yaml:\d+:\d+ pipeline\.inbound\.plugins\[0\]\.config\.dpop\.nonce_lifetime: has no effect without nonce: true$/m,
    ])
      expect(stderr).toMatch(line);
  });

  test("--lenient turns unknown keys into warnings", async () => {
    const config = "listener: {roles: [forward]}\npipelin: {}\n";
    const { code, stderr } = await runWith("check", config, { args: ["--lenient"] });
    expect(code).toBe(0);
    expect(stderr).toMatch(/warning: .*proxy\.yaml:2:1 pipelin/);
  });

  test("all problems of a file are reported at once, plugins included", async () => {
    const text = await problems(`
listener:
  roles: [sideways]
  skip_hosts: ["*"]
pipeline:
  outbound:
    plugins:
    - nope
    - name: jwt-validation
      config: {}
    - name: static-inject
      config: {source: mappings, surprise: 1}
`);
    expect(text).toMatch(/:3:11 listener\.roles\[0\]/);
    expect(text).toMatch(/:4:16 listener\.skip_hosts\[0\]/);
    expect(text).toMatch(/:8:\d+ .*nope/);
    expect(text).toMatch(/:(9|10):\d+ .*issuer/);
    expect(text).toMatch(/:12:\d+ .*surprise/);
  });

  test("broken YAML is refused with its position", async () => {
    expect(await problems("listener:\n  roles: [forward\nstats: {}\n")).toMatch(
      /proxy\.yaml:[23]:\d+/,
    );
  });

  test("a key given twice is refused", async () => {
    expect(await problems("listener: {roles: [forward]}\nlistener: {}\n")).toMatch(/:2:1/);
  });

  test("a missing file is bad configuration", async () => {
    const { code, stderr } = await runProgram(["--config", "/does/not/exist.yaml"]);
    expect(code).toBe(2);
    expect(stderr).toContain("/does/not/exist.yaml");
  });

  test.each([
    ["no --config", []],
    ["an unknown flag", ["--config", "x.yaml", "--wat"]],
    ["an unknown command", ["wat"]],
    ["a flag without its value", ["--config"]],
  ])("bad usage (%s) ends with exit code 2 and says how to call it", async (_name, args) => {
    const { code, stderr } = await runProgram(args);
    expect(code).toBe(2);
    expect(stderr).toContain("--config FILE");
  });

  test("a file is named with one dash as well, and a mistyped option with the one that is meant", async () => {
    const [named, mistyped] = await Promise.all([
      runProgram(["-config", "/does/not/exist.yaml"]),
      runProgram(["-confg", "x.yaml"]),
    ]);
    expect(named).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("/does/not/exist.yaml"),
    });
    expect(mistyped).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("did you mean --config?"),
    });
  });

  test("--version and schema answer on stdout", async () => {
    const [version, oneDash, schema, policy] = await Promise.all([
      runProgram(["--version"]),
      runProgram(["-version"]),
      runProgram(["schema"]),
      runProgram(["policy", "schema"]),
    ]);
    expect(oneDash).toEqual(version);
    expect(version).toMatchObject({ code: 0 });
    expect(version.stdout).toMatch(/^authbridge-proxy \d+\.\d+\.\d+/);
    expect(schema.code).toBe(0);
    expect(JSON.parse(schema.stdout)).toMatchObject({ type: "object" });
    expect(policy).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(policy.stdout)).toEqual(
      JSON.parse(readFileSync(new URL("../../config/policy.schema.json", import.meta.url), "utf8")),
    );
  });

  test.each([
    ["listener", "reverse_proxy_addr"],
    ["listener", "health_addr"],
    ["stats", "address"],
  ])("an address of %s.%s that is taken is a failure that names the key", async (block, key) => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const address = taken.address();
    const port = typeof address === "object" ? address?.port : 0;
    try {
      const config = settings({ listener: { reverse_proxy_backend: "http://127.0.0.1:1" } });
      const { code, stderr } = await runWith(
        "run",
        merge(config, { [block]: { [key]: `127.0.0.1:${port}` } }),
      );
      expect(code).toBe(1);
      expect(stderr).toContain(`${block}.${key}: 127.0.0.1:${port} cannot be listened on`);
    } finally {
      await new Promise((resolve) => taken.close(resolve));
    }
  });

  test.each([
    ["127.0.0.1:7001", "127.0.0.1:7001"],
    [":7001", "127.0.0.1:7001"],
    ["[::]:7001", "127.0.0.1:7001"],
    ["0.0.0.0:7001", ":7001"],
    ["localhost:7001", "127.0.0.1:7001"],
  ])(
    "check refuses two listeners of which one could not be bound: %s and %s",
    async (one, other) => {
      const config = settings({ listener: { forward_proxy_addr: one, health_addr: other } });
      const { code, stderr } = await runWith("check", config);
      expect(code).toBe(2);
      expect(stderr).toMatch(
        /proxy\.yaml:\d+:\d+ listener\.health_addr: listens where listener\.forward_proxy_addr does/,
      );
    },
  );

  test("check tells of a listener on another one's default, at the key that the file has", async () => {
    const listener = { forward_proxy_addr: ":9091", health_addr: "" };
    const { code, stderr } = await runWith("check", settings({ listener }));
    expect(code).toBe(2);
    expect(stderr).toContain("listener.forward_proxy_addr");
    expect(stderr).toContain("(:9091");
  });

  test.each([
    ["127.0.0.1:7001", "127.0.0.2:7001"],
    ["[::1]:7001", "127.0.0.1:7001"],
    [":0", ":0"],
  ])("check takes %s and %s", async (one, other) => {
    const config = settings({ listener: { forward_proxy_addr: one, health_addr: other } });
    expect((await runWith("check", config)).code).toBe(0);
  });

  test("an address that is taken is a failure while running", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const address = taken.address();
    const port = typeof address === "object" ? address?.port : 0;
    try {
      const config = settings({ listener: { forward_proxy_addr: `127.0.0.1:${port}` } });
      const { code, stderr } = await runWith("run", config);
      expect(code).toBe(1);
      expect(stderr).toMatch(/listener\.forward_proxy_addr: 127\.0\.0\.1:\d+ cannot .*EADDRINUSE/);
    } finally {
      await new Promise((resolve) => taken.close(resolve));
    }
  });
});

describe("environment", () => {
  test("$VAR and ${VAR} are expanded before the file is parsed; unknown ones are refused", async () => {
    const config = [
      "listener: {roles: [forward], skip_hosts: [$HOST_A, '${HOST_B}']}",
      "plugin_modules: ['$NOT_SET_ANYWHERE/x.ts']",
      "stats: {address: '${STATS}'}",
    ].join("\n");
    const env = { HOST_A: "a.test", HOST_B: "b.test", STATS: "127.0.0.1:19093" };
    const { code, stderr, stdout } = await runWith("check", config, { env });
    expect(code).toBe(2);
    expect(stderr).toContain("the variable of ${NOT_SET_ANYWHERE} is not set");
    expect(stderr).toContain("${NOT_SET_ANYWHERE}/x.ts");
    const good = await runWith("check", config.replace(/plugin_modules.*\n/, ""), { env });
    expect(good.code, good.stderr).toBe(0);
    expect(JSON.parse(good.stdout)).toMatchObject({
      listener: { skip_hosts: ["a.test", "b.test"] },
      stats: { address: "127.0.0.1:19093" },
    });
    expect(stdout).toBe("");
  });

  const secrets: readonly (readonly [where: string, block: Settings])[] = [
    [
      "a mapping of static-inject",
      outbound({
        name: "static-inject",
        config: { source: "mappings", mappings: { "api.test": "$API_KEY" } },
      }),
    ],
    [
      "the secret of a client",
      outbound({
        name: "token-exchange",
        config: {
          token_url: "http://127.0.0.1:9/token",
          identity: { type: "client-secret", client_id: "c", client_secret: "${API_KEY}" },
        },
      }),
    ],
    [
      "the judge's bearer",
      outbound({
        name: "ibac",
        config: {
          judge_endpoint: "http://127.0.0.1:9",
          judge_model: "m",
          judge_bearer: "$API_KEY",
        },
      }),
    ],
    [
      "a password of the parent proxy",
      {
        upstream_proxy: {
          http_proxy: { url: "http://p.test", username: "u", password: "$API_KEY" },
        },
      },
    ],
    [
      "a field for the collector",
      {
        telemetry: {
          otlp: { endpoint: "http://127.0.0.1:9", headers: { Authorization: "Bearer ${API_KEY}" } },
        },
      },
    ],
  ];
  describe.each(secrets)("that is not set in %s", (_where, block) => {
    test.each(["check", "run"] as const)("is refused by %s with its name", async (command) => {
      const config = merge(settings(forwardOnly), block);
      const { code, stderr, stdout } = await runWith(command, config);
      expect(code, stdout).toBe(2);
      expect(stderr + stdout).toContain("${API_KEY}");
      expect(stderr + stdout).toContain("is not set in the environment");
    });
  });
});

describe("skip_hosts patterns", () => {
  const bad = ["", "   ", "*", "**", "otel-collector:8335"];
  test("G17: patterns that skip everything, nothing or a port are refused, each at its place", async () => {
    const text = await problems(
      merge(forwardOnly, { listener: { skip_hosts: ["fine.*", ...bad] } }),
    );
    for (let at = 1; at <= bad.length; at += 1)
      expect(text).toContain(`listener.skip_hosts[${at}]`);
    expect(text).not.toContain("skip_hosts[0]");
  });

  test("G17: the pattern [ is refused", async () => {
    const config = merge(forwardOnly, { listener: { skip_hosts: ["["] } });
    expect(await problems(config)).toContain("listener.skip_hosts[0]");
  });
});

describe("check", () => {
  test("M17: what check prints has no secret in it", async () => {
    const config = settings(
      outbound({
        name: "token-exchange",
        config: {
          token_url: "http://idp.test/token",
          identity: { type: "client-secret", client_id: "me", client_secret: "s3cret-value" },
        },
      }),
    );
    const { code, stdout, stderr } = await runWith("check", config);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("[REDACTED]");
    expect(stdout + stderr).not.toContain("s3cret-value");
  });

  test("a Go-style file with every block that is in scope loads unchanged", async () => {
    const config = `
mode: proxy-sidecar
listener:
  roles: [reverse, forward]
  reverse_proxy_addr: ":8080"
  reverse_proxy_backend: "http://127.0.0.1:8000"
  forward_proxy_addr: ":8081"
  transparent_proxy_addr: ":8082"
  session_api_addr: ":9094"
  skip_hosts: ["otel-collector*", "keycloak.**"]
pipeline:
  inbound:
    plugins:
      - name: jwt-validation
        id: front-door
        on_error: enforce
        config:
          issuer: "http://keycloak.localtest.me:8080/realms/rossoctl"
          keycloak_url: "http://keycloak:8080"
          keycloak_realm: rossoctl
          audience_mode: static
          audience: agent
          allowed_audiences: [agent-b]
          bypass_paths: ["/.well-known/*", "/healthz"]
          placeholder_mode: true
          placeholder_ttl: 30m
  outbound:
    plugins:
      - name: token-exchange
        config:
          keycloak_url: "http://keycloak:8080/"
          keycloak_realm: rossoctl
          default_policy: passthrough
          no_token_policy: allow
          audience_from_host: true
          resolve_placeholders: true
          identity:
            type: client-secret
            client_id_file: /shared/client-id.txt
            client_secret_file: /shared/client-secret.txt
          routes:
            rules:
              - {host: "*.tools.svc", target_audience: tools, token_scopes: "openid tools", action: exchange}
              - {host: "public.*", passthrough: true}
      - name: static-inject
        on_error: "off"
        config: {source: secret_dir, secret_dir: /secrets, key_by: host, placeholder: "x"}
session: {enabled: true, ttl: 30m, max_events: 500, max_sessions: 100}
stats: {address: ":9093"}
spiffe: {}
tls_bridge: {mode: disabled, ca_dir: /ca, generate_ca: true, passthrough_hosts: [a.test], ports: [443]}
`;
    const { code, stderr } = await runWith("check", config);
    expect(code, stderr).toBe(0);
  });
});

describe("a start without plugins", () => {
  test("A11: boots with exactly one warning for each empty chain", async () => {
    const proxy = await own(ProxyProcess.start(settings(both)));
    const warnings = proxy.logs.filter(
      (line) => line["level"] === "warn" && /pipeline has no plugins|has no plugins/.test(line.msg),
    );
    expect(new Set(warnings.map((line) => line["pipeline"]))).toEqual(
      new Set(["inbound", "outbound"]),
    );
    expect(warnings).toHaveLength(2);
  });

  test("A15: session.enabled false serves no session API", async () => {
    const proxy = await own(ProxyProcess.start(settings({ session: { enabled: false } })));
    expect(proxy.surfaces).not.toContain("sessions");
  });

  test("A22: an unreadable credential file keeps the proxy running but not ready", async () => {
    const proxy = await own(
      ProxyProcess.start(
        settings(
          merge(
            both,
            inbound({
              name: "jwt-validation",
              config: { issuer: "http://127.0.0.1:9", audience_file: "no-such-file" },
            }),
          ),
        ),
      ),
    );
    expect((await proxy.health("/healthz")).status).toBe(200);
    const ready = await proxy.health("/readyz");
    expect(ready.status).toBe(503);
    expect(ready.text).toContain("inbound plugin not ready: jwt-validation");
  });
});

describe("keys that are written without a value", () => {
  const chain = (direction: "inbound" | "outbound", entry: string): string =>
    `listener: {reverse_proxy_backend: "${backend}"}\npipeline: {${direction}: {plugins: [${entry}]}}\n`;
  const jwt = (more: string): string =>
    chain(
      "inbound",
      `{name: jwt-validation, on_error: "", config: {issuer: "https://idp.example", ${more}}}`,
    );
  const exchange = (more: string): string =>
    chain(
      "outbound",
      `{name: token-exchange, id: "", config: {token_url: "https://idp.example/t", identity: {type: client-secret, client_id: "", client_secret: null}, ${more}}}`,
    );

  test.each([
    [
      "of the file",
      `mode: ""\ntls_bridge: {mode: "", ca_dir: "", upstream_ca_bundle: "", ports: }\nsession: {ttl: "", bodies: ""}\nlog: {level: ""}\nstats: {address: ""}\nspiffe: \nlistener: {roles: , skip_hosts: , reverse_proxy_backend: "${backend}"}\n`,
    ],
    [
      "of jwt-validation",
      jwt(
        'audience_file: "", audience_mode: "", jwks_url: "", keycloak_url: "", keycloak_realm: "", bypass_paths: , placeholder_ttl: ""',
      ),
    ],
    [
      "of token-exchange",
      exchange('default_policy: "", no_token_policy: "", provider: "", provider_url: "", routes: '),
    ],
    [
      "of its routes",
      exchange(
        'routes: {file: "", rules: [{host: a.example, action: "", token_url: "", token_scopes: }]}',
      ),
    ],
  ])("%s are not set", async (_, text) => {
    const { code, stderr } = await runWith("check", text);
    expect(code, stderr).toBe(0);
  });

  test.each([
    [
      "a required key",
      chain("inbound", '{name: jwt-validation, config: {issuer: ""}}'),
      /config\.issuer: must not be blank/,
    ],
    [
      "a required key without anything",
      chain("inbound", "{name: jwt-validation, config: {issuer: }}"),
      /config\.issuer: must be a text, not nothing/,
    ],
    [
      "a block that lets in fewer",
      `${jwt("")}callers: \n`,
      /callers: must be a mapping, not nothing/,
    ],
    [
      "a list that lets through fewer",
      chain("outbound", "{name: egress-policy, config: {deny: [a.example], allow: }}"),
      /config\.allow: must be a list, not nothing/,
    ],
    [
      "a secret of the session API",
      `${jwt("")}session: {api_secret_file: ""}\n`,
      /session\.api_secret_file: must not be blank/,
    ],
    ["a check of tokens", jwt('token_type: ""'), /config\.token_type: must not be blank/],
  ])("%s stays an error", async (_, text, message) => {
    expect(await problems(text)).toMatch(message);
  });
});
