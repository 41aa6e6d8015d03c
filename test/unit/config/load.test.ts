import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadConfig, parseConfig, type LoadOptions } from "../../../src/config/load.ts";
import type { Config } from "../../../src/config/presets.ts";
import { formatProblem, type Problem } from "../../../src/yaml/problem.ts";
import { needsSpiffe } from "../../../src/config/workload-needs.ts";

const folder = mkdtempSync(join(tmpdir(), "config-"));
afterAll(() => rmSync(folder, { recursive: true }));

function parse(yaml: string, options: LoadOptions = {}) {
  return parseConfig(Buffer.from(yaml), "config.yaml", options);
}

function load(yaml: string, options: LoadOptions = {}): Config {
  const loaded = parse(yaml, options);
  if (loaded.kind === "rejected") throw new Error(loaded.problems.map(formatProblem).join("\n"));
  return loaded.config;
}

function warningsOf(yaml: string, options: LoadOptions = {}): string[] {
  const loaded = parse(yaml, options);
  if (loaded.kind === "rejected") throw new Error(loaded.problems.map(formatProblem).join("\n"));
  return loaded.warnings.map(formatProblem);
}

function problemsOf(yaml: string, options: LoadOptions = {}): readonly Problem[] {
  const loaded = parse(yaml, options);
  return loaded.kind === "loaded" ? [] : loaded.problems;
}

const both = "listener: {reverse_proxy_backend: 'http://127.0.0.1:8000'}\n";
const forward = "listener: {roles: [forward]}\n";

describe("presets", () => {
  test("A1 addresses that are left out are those of the Go program", () => {
    expect(load(both).listener).toEqual({
      roles: ["reverse", "forward"],
      reverse_proxy_addr: ":8080",
      reverse_proxy_backend: "http://127.0.0.1:8000",
      forward_proxy_addr: ":8081",
      forward_proxy_socks: true,
      transparent_proxy_addr: ":8082",
      transparent: {
        pin: "strict",
        sniff_timeout: "5s",
        opaque_ports: [21, 22, 25, 110, 143, 587, 3306, 5432],
      },
      session_api_addr: "127.0.0.1:9094",
      health_addr: ":9091",
      skip_hosts: [],
    });
    expect(load(both).stats.address).toBe(":9093");
  });

  test("A2 A6 the role forward alone opens no reverse surface and needs no backend", () => {
    const { listener } = load(forward);
    expect(listener).not.toHaveProperty("reverse_proxy_addr");
    expect(listener).toMatchObject({
      forward_proxy_addr: ":8081",
      transparent_proxy_addr: ":8082",
    });
  });

  test("A3 the role reverse alone opens no forward surface", () => {
    const { listener } = load(
      "listener: {roles: [reverse], reverse_proxy_backend: 'http://127.0.0.1:8000'}",
    );
    expect(listener.reverse_proxy_addr).toBe(":8080");
    expect(listener).not.toHaveProperty("forward_proxy_addr");
    expect(listener).not.toHaveProperty("transparent_proxy_addr");
  });

  test("A4 an address in the file is kept, and an empty one is filled", () => {
    const { listener } = load(
      'listener: {roles: [forward], forward_proxy_addr: "127.0.0.1:0", transparent_proxy_addr: ""}',
    );
    expect(listener.forward_proxy_addr).toBe("127.0.0.1:0");
    expect(listener.transparent_proxy_addr).toBe(":8082");
  });

  test("the transparent listener can be switched off", () => {
    const { listener } = load("listener: {roles: [forward], transparent_proxy_addr: off}");
    expect(listener).not.toHaveProperty("transparent_proxy_addr");
  });

  test("an address of a surface that is not opened is warned about", () => {
    expect(warningsOf('listener: {roles: [forward], reverse_proxy_addr: ":1"}')).toContain(
      "config.yaml:1:30 listener.reverse_proxy_addr: is not used: the role reverse is not in listener.roles",
    );
  });

  test("without sessions there is no session API", () => {
    expect(load(`${forward}session: {enabled: false}`).listener).not.toHaveProperty(
      "session_api_addr",
    );
  });

  test.each([
    ["A21 on all interfaces", 'session_api_addr: ":9094"', "127.0.0.1:9094"],
    ["Z8 that is not set", "", "127.0.0.1:9094"],
    ["on an IPv6 wildcard", 'session_api_addr: "[::]:7"', "127.0.0.1:7"],
    ["on loopback already", 'session_api_addr: "[::1]:7"', "[::1]:7"],
  ])("the TLS bridge confines a session API %s", (_, address, effective) => {
    const config = load(`
listener:
  roles: [forward]
  ${address}
tls_bridge: {mode: enabled, ca: ephemeral}
`);
    expect(config.listener.session_api_addr).toBe(effective);
  });

  test.each(["max_events", "max_sessions"] as const)("session.%s of 0 means its default", (key) => {
    const expected = load(forward).session[key];
    expect(load(`${forward}session: {${key}: 0}`).session[key]).toBe(expected);
  });
});

describe("compatibility with files of the Go program", () => {
  test.each(["", "mode: proxy-sidecar\n", 'mode: ""\n', "mode:\n"])(
    "the mode %j is proxy-sidecar",
    (mode) => {
      expect(load(mode + forward).mode).toBe("proxy-sidecar");
    },
  );

  test("A11 an empty pipeline loads with one warning per stage", () => {
    const stages = warningsOf(forward).filter((line) => line.includes("has no plugins"));
    expect(stages).toHaveLength(2);
  });

  test("A12 a bare name and a full entry are the same kind of entry", () => {
    const config = load(`${forward}
pipeline:
  inbound:
    plugins:
      - opa
      - {name: x, id: y, on_error: observe, config: {a: 1}}
`);
    expect(config.pipeline.inbound.plugins).toEqual([
      { name: "opa", on_error: "enforce", allow_weakened_auth: false },
      { name: "x", id: "y", on_error: "observe", config: { a: 1 }, allow_weakened_auth: false },
    ]);
  });

  test("A13 config: null is the same as no config, and null inside is kept", () => {
    const [none, inner] = load(`${forward}
pipeline: {outbound: {plugins: [{name: a, config: null}, {name: b, config: {c: null}}]}}
`).pipeline.outbound.plugins;
    expect(none).not.toHaveProperty("config");
    expect(inner?.config).toEqual({ c: null });
  });

  test.each(["enforce", "observe", "off"])("A14 on_error: %s is kept as it is", (word) => {
    const yaml = `${forward}pipeline: {outbound: {plugins: [{name: a, on_error: ${word}}]}}`;
    expect(load(yaml).pipeline.outbound.plugins[0]?.on_error).toBe(word);
  });

  test.each([
    ["", true],
    ["session: {enabled: true}", true],
    ["session: {enabled: false}", false],
    ["session:", true],
  ])("A15 %j makes sessions %s", (yaml, enabled) => {
    expect(load(`${forward}${yaml}`).session.enabled).toBe(enabled);
  });

  test("A16 A17 mtls and spiffe have the defaults of the Go program", () => {
    const config = load(`${forward}mtls: {}\nspiffe: {}`);
    expect(config.mtls).toEqual({ mode: "permissive" });
    expect(config.spiffe).toEqual({
      socket: "unix:///spiffe-workload-api/spire-agent.sock",
      mirror_files: true,
      mirror_dir: "/opt",
    });
  });

  test("A19 unknown keys of mtls are warnings", () => {
    expect(warningsOf(`${forward}spiffe: {}\nmtls: {mode: strict, other: 1}`)).toContain(
      "config.yaml:3:22 mtls.other: unknown key",
    );
  });

  test.each(["forever", "30", 30, "0s", "-5m"])(
    "a session.ttl of %s is 30m with a warning",
    (ttl) => {
      const yaml = `${forward}session: {ttl: ${ttl}}`;
      expect(load(yaml).session.ttl).toBe("30m");
      expect(warningsOf(yaml)).toContain(
        "config.yaml:2:11 session.ttl: is not a duration; 30m is used",
      );
    },
  );

  test("words that Go reads as booleans are booleans, with a warning", () => {
    const yaml = `${forward}session: {enabled: no}\nreload: {enabled: Yes}`;
    expect(load(yaml)).toMatchObject({ session: { enabled: false }, reload: { enabled: true } });
    expect(warningsOf(yaml)).toContain(
      "config.yaml:2:11 session.enabled: is read as false; write true or false",
    );
  });

  test("Z20 lenient turns unknown keys into warnings, but not inside a pipeline", () => {
    const yaml = `${forward}other: {a: 1}\nsession: {tll: 3m}\n`;
    expect(problemsOf(yaml)).toHaveLength(2);
    expect(warningsOf(yaml, { lenient: true })).toEqual(
      expect.arrayContaining([
        "config.yaml:2:1 other: unknown key",
        "config.yaml:3:11 session.tll: unknown key (did you mean ttl?)",
      ]),
    );
    const entry = `${forward}pipeline: {inbound: {plugins: [{name: a, nmae: b}]}}`;
    expect(problemsOf(entry, { lenient: true }).map((problem) => problem.keyPath)).toEqual([
      "pipeline.inbound.plugins[0].nmae",
    ]);
  });

  test("a file that only skips is warned about once, unless it says what it wants", () => {
    const plugins = "pipeline: {outbound: {plugins: [a]}}";
    const explicit = "pipeline: {outbound: {plugins: [a], default: allow}}";
    const about = (yaml: string) =>
      warningsOf(forward + yaml).filter((line) => line.includes("outbound.default"));
    expect(about(plugins)).toHaveLength(1);
    expect(about(explicit)).toHaveLength(0);
  });

  test.each([
    ["spiffe: {}", false],
    ["spiffe: {}\nmtls: {}", true],
    ["pipeline: {outbound: {plugins: [{name: t, config: {identity: {type: spiffe}}}]}}", true],
    [
      "pipeline: {outbound: {plugins: [{name: t, config: {mappings: {h: {identity: {type: spiffe}}}}}]}}",
      true,
    ],
    [
      "pipeline: {outbound: {plugins: [{name: t, config: {rules: [{bearer: {identity: {type: tls-client-auth}}}]}}]}}",
      true,
    ],
    [
      "pipeline: {outbound: {plugins: [{name: t, config: {identity: {type: spiffe, jwt_svid_file: f}}}]}}",
      false,
    ],
    [
      "pipeline: {outbound: {plugins: [{name: t, config: {identity: {type: client-secret}}}]}}",
      false,
    ],
    [
      "pipeline: {outbound: {plugins: [{name: t, on_error: off, config: {identity: {type: spiffe}}}]}}",
      false,
    ],
  ])("A25 %s needs SPIFFE: %s", (yaml, needed) => {
    expect(needsSpiffe(load(`${forward}${yaml}`))).toBe(needed);
  });
});

describe("YAML", () => {
  test("anchors and merge keys work, and a merged key is found at its anchor", () => {
    const yaml = `listener: &base
  roles: [forward]
limits:
  <<: {max_tunnels: 7}
  max_headers: 9
`;
    expect(load(yaml).limits).toMatchObject({ max_tunnels: 7, max_headers: 9 });
    expect(problemsOf(yaml.replace("7", "none")).map(formatProblem)).toEqual([
      "config.yaml:4:8 limits.max_tunnels: must be a number, not a text",
    ]);
  });

  test("an alias bomb is one problem", () => {
    const levels = "bcdefghi"
      .split("")
      .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${"abcdefgh"[i]}`).join(",")}]`);
    const yaml = `a: &a [x,x,x,x,x,x,x,x,x]\n${levels.join("\n")}\n`;
    expect(problemsOf(yaml).map(formatProblem)).toEqual(["config.yaml:1:1 has too many aliases"]);
  });

  test("a merge key without a mapping is called that", () => {
    const [problem] = problemsOf("listener: {<<: 3}\n").map(formatProblem);
    expect(problem).toBe("config.yaml:1:1 has a merge key (<<) whose value is no mapping");
  });

  test("deep nesting is a problem and not a crash", () => {
    const messages = problemsOf(`a: ${"[".repeat(100_000)}`).map(({ message }) => message);
    expect(messages).toContain("is nested too deeply");
  });

  test("a key called __proto__ is an unknown key and changes no object", () => {
    const yaml = `${forward}__proto__: {polluted: yes}\negress: {hosts: {__proto__: [127.0.0.1]}}`;
    expect(problemsOf(yaml).map((problem) => problem.keyPath)).toContain("__proto__");
    expect(load(`${forward}egress: {hosts: {__proto__: [127.0.0.1]}}`).egress.hosts).toEqual({});
    expect({}).not.toHaveProperty("polluted");
  });

  test("a flood of unknown keys is told in part", () => {
    const yaml = Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join("\n");
    const problems = problemsOf(yaml);
    expect(problems.length).toBeLessThan(300);
    expect(problems.map(({ message }) => message)).toContain("has 19800 further problems");
  });
});

describe("the file itself", () => {
  const write = (name: string, bytes: string | Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return path;
  };

  test.each([
    ["a missing file", () => join(folder, "none.yaml"), "cannot be read: there is no such file"],
    ["a directory", () => folder, "cannot be read: it is a directory"],
    ["an empty file", () => write("empty.yaml", ""), "is empty"],
    ["a file of comments", () => write("comments.yaml", "# nothing\n"), "is empty"],
    [
      "bytes that are no text",
      () => write("bytes.yaml", Buffer.from([0xff, 0xfe, 0x00])),
      "is not valid UTF-8",
    ],
    [
      "more than 4 MiB",
      () => write("large.yaml", "#".repeat(4 * 1024 * 1024 + 1)),
      "is larger than 4 MiB",
    ],
    ["a device without end", () => "/dev/zero", "is larger than 4 MiB"],
  ])("%s is one clear problem", async (_, path, message) => {
    const file = path();
    const loaded = await loadConfig(file);
    expect(loaded).toEqual({
      kind: "rejected",
      problems: [{ file, line: 1, column: 1, keyPath: "", message }],
    });
  });

  test("the digest is of the bytes before variables are expanded", async () => {
    const text = 'listener: {roles: [forward], health_addr: "$ADDRESS"}\n';
    const path = write("digest.yaml", text);
    const loaded = await loadConfig(path, { env: { ADDRESS: ":1" } });
    if (loaded.kind === "rejected") throw new Error("must load");
    expect(loaded.config.listener.health_addr).toBe(":1");
    expect(loaded.sha256).toBe(createHash("sha256").update(text).digest("hex"));
    expect(loaded.path).toBe(path);
  });

  test("a byte order mark is passed over", () => {
    expect(load(`\uFEFF${forward}`).listener.roles).toEqual(["forward"]);
  });
});

describe("places of later problems", () => {
  const loaded = parse(
    `listener: {roles: [forward]}
pipeline:
  inbound:
    plugins:
      - opa
      - name: x
        config:
          routes:
            - host: a
            - host: $VALUE
              audience: b
`,
    { env: { VALUE: "v\n" } },
  );
  if (loaded.kind === "rejected") throw new Error("must load");
  const config = ["pipeline", "inbound", "plugins", 1, "config"];

  test.each([
    [[], 7, 9],
    [["routes"], 8, 11],
    [["routes", 1], 10, 15],
    [["routes", 1, "audience"], 11, 15],
    [["routes", 1, "missing", "deeper"], 10, 15],
    [["absent"], 7, 9],
  ])("%j of a plugin's settings is at %d:%d", (path, line, column) => {
    expect(loaded.locate([...config, ...path])).toEqual({ line, column });
  });

  test("a problem can be made of a path", () => {
    expect(formatProblem(loaded.problemAt([...config, "routes", 0], "is bad"))).toBe(
      "config.yaml:9:15 pipeline.inbound.plugins[1].config.routes[0]: is bad",
    );
  });
});

describe("a variable that is not set", () => {
  const yaml = `${forward}# $IN_COMMENT
pipeline: {outbound: {default: deny, plugins: [{name: a, config: {b: "$UNSET"}}]}}
`;
  const told = "config.yaml:3:71 the variable of ${UNSET} is not set in the environment";

  test("is refused outside comments, also of a lenient reader", () => {
    expect(problemsOf(yaml).map(formatProblem)).toEqual([told]);
    expect(problemsOf(yaml, { lenient: true }).map(formatProblem)).toEqual([told]);
    expect(problemsOf(yaml, { env: { UNSET: "" } })).toEqual([]);
  });

  test("is a warning for a command that serves nothing", () => {
    const warnings = warningsOf(yaml, { allowUnset: true });
    expect(warnings.filter((line) => line.includes("not set"))).toEqual([told]);
  });

  test.each(["pa$$word", "half${way", "${}"])("counts where a value says %s", (value) => {
    const faults = problemsOf(
      `${forward}pipeline: {outbound: {default: deny, plugins: [{name: a, config: {b: '${value}'}}]}}`,
    ).map(formatProblem);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatch(/^config\.yaml:2:\d+ (?:the variable of \$\{…\}|has "\$\{" without)/);
  });

  test("is told with the line that it makes unreadable, and once", () => {
    const broken = `${forward}pipeline: {outbound: {plugins: [{name: a, config: {b: $UNSET, c: d}, on_error: off}]}}\n`;
    expect(problemsOf(broken).map(formatProblem)).toEqual([
      "config.yaml:2:55 the variable of ${UNSET} is not set in the environment",
      "config.yaml:2:55 has something unexpected here",
      "config.yaml:2:83 is indented wrongly",
    ]);
  });
});

describe("egress_enforcement", () => {
  test("is enforce-redirect unless the file says otherwise", () => {
    expect(load(forward).egress_enforcement).toBe("enforce-redirect");
    expect(load(`${forward}egress_enforcement: none`).egress_enforcement).toBe("none");
  });

  test("none opens no listener for redirected connections unless the file wants it", () => {
    const none = `${forward}egress_enforcement: none\n`;
    expect(load(none).listener.transparent_proxy_addr).toBeUndefined();
    const wanted = `listener: { roles: [forward], transparent_proxy_addr: ":8082" }\negress_enforcement: none\n`;
    expect(load(wanted).listener.transparent_proxy_addr).toBe(":8082");
    expect(load(forward).listener.transparent_proxy_addr).toBe(":8082");
  });

  test("is none where that listener is off", () => {
    const off = 'listener: { roles: [forward], transparent_proxy_addr: "off" }\n';
    expect(load(off).egress_enforcement).toBe("none");
  });

  test("none is warned about until its limits are acknowledged", () => {
    const none = `${forward}egress_enforcement: none\n`;
    expect(warningsOf(none).join("\n")).toContain("nothing keeps an agent from leaving");
    const known = warningsOf(`${none}acknowledge_cooperative_mode: true\n`).join("\n");
    expect(known).not.toContain("nothing keeps an agent from leaving");
  });

  test("an acknowledgement of nothing is warned about", () => {
    const warnings = warningsOf(`${forward}acknowledge_cooperative_mode: true\n`).join("\n");
    expect(warnings).toContain("is not used without egress_enforcement: none");
  });

  test("another word is refused", () => {
    expect(problemsOf(`${forward}egress_enforcement: redirect`)).toHaveLength(1);
  });
});
