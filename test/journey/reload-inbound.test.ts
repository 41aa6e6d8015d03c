/** What is open on the reverse port when the file changes: it goes on while the file lets it, and ends when it does not. */
import { createHash } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import { DpopKey } from "../support/dpop.ts";
import { RawClient } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const identity = { type: "client-secret", client_id: "agent", client_secret: "agent-secret" };
let agent: TcpOrigin;
let idp: StubIdp;
let key: DpopKey;

/** The agent switches to whatever is asked for, and says again what it hears. */
beforeAll(async () => {
  idp = await own(StubIdp.start());
  idp.issue = () => ({
    active: true,
    sub: "alice",
    client_id: "frontend",
    aud: "agent",
    exp: Math.floor(Date.now() / 1_000) + 3_600,
  });
  key = await DpopKey.make();
  agent = await own(
    TcpOrigin.start(async (connection) => {
      const head = await connection.reader.until("\r\n\r\n");
      const field = (name: string): string =>
        new RegExp(`^${name}: (\\S+)`, "im").exec(head)?.[1] ?? "";
      const accept = createHash("sha1")
        .update(`${field("sec-websocket-key")}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        .digest("base64");
      const fields = ["Connection: Upgrade", `Upgrade: ${field("upgrade")}`];
      if (field("upgrade") === "websocket") fields.push(`Sec-WebSocket-Accept: ${accept}`);
      await connection.send(`HTTP/1.1 101 Switching Protocols\r\n${fields.join("\r\n")}\r\n\r\n`);
      for (
        let bytes = await connection.reader.some(600_000);
        bytes !== undefined;
        bytes = await connection.reader.some(600_000)
      )
        await connection.send(bytes);
    }),
  );
});

function fileOf(config: Settings = {}, over: Settings = {}): Settings {
  const base = settings({
    listener: { reverse_proxy_backend: `http://${agent.authority}`, roles: ["reverse"] },
    limits: { drain_timeout: "0s" },
  });
  const guard = {
    name: "jwt-validation",
    config: {
      issuer: idp.issuer,
      audience: "agent",
      introspection: { identity },
      dpop: { nonce: false },
      ...config,
    },
  };
  return merge(merge(base, inbound(guard)), over);
}

/** A frame of a client, with a mask of zeros. */
const frame = Buffer.from([0x81, 0x84, 0, 0, 0, 0, 0x70, 0x69, 0x6e, 0x67]);

class Open {
  readonly name: string;
  readonly #client: RawClient;

  private constructor(name: string, client: RawClient) {
    this.name = name;
    this.#client = client;
  }

  static async upgrade(
    { reverse }: ProxyProcess,
    name: string,
    protocol: string,
    credentials: (url: string) => Promise<Readonly<Record<string, string>>>,
  ): Promise<Open> {
    const client = await own(RawClient.connect(reverse));
    const Host = `${reverse.host}:${reverse.port}`;
    client.write({
      target: `/${name}`,
      headers: {
        Host,
        Connection: "Upgrade",
        Upgrade: protocol,
        ...(protocol === "websocket"
          ? { "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==" }
          : {}),
        ...(await credentials(`http://${Host}/${name}`)),
      },
    });
    expect((await client.head()).head.startLine, name).toMatch(/ 101 /);
    return new Open(`${name} ${protocol}`, client);
  }

  async isThere(): Promise<void> {
    this.#client.socket.write(frame);
    const echoed = await this.#client.reader.exactly(frame.length);
    expect(echoed, this.name).toEqual(frame);
  }

  async isCut(): Promise<void> {
    await this.#client.untilClosed();
  }
}

const bound = (): Promise<string> => idp.token({ claims: { cnf: key.cnf } });
const kinds: [string, (url: string) => Promise<Readonly<Record<string, string>>>][] = [
  ["bearer", async () => ({ Authorization: `Bearer ${await idp.token()}` })],
  [
    "dpop",
    async (url) => {
      const token = await bound();
      return { Authorization: `DPoP ${token}`, DPoP: await key.proof({ url, token }) };
    },
  ],
  ["opaque", () => Promise.resolve({ Authorization: "Bearer an-opaque-one" })],
];

async function openAll(proxy: ProxyProcess): Promise<readonly Open[]> {
  const all = kinds.flatMap(([name, credentials]) =>
    ["websocket", "custom/1"].flatMap((protocol) =>
      // Of several threads each has some.
      Array.from({ length: 4 }, () => Open.upgrade(proxy, name, protocol, credentials)),
    ),
  );
  return Promise.all(all);
}

describe.each([1, 2])("%s threads", (workers) => {
  const file = (config: Settings = {}, over: Settings = {}): Settings =>
    fileOf(config, merge({ workers }, over));

  test("what the new file allows goes on, also when the generation is gone that let it in", async () => {
    const proxy = await own(ProxyProcess.start(file()));
    const open = await openAll(proxy);
    const files = [
      file({}, { limits: { max_body: "1MiB" } }),
      file({ clock_skew: "2s" }),
      file({ dpop: { nonce: true } }),
      file({ dpop: { proof_lifetime: "1s" } }),
    ];
    // More often than old generations are kept.
    for (const one of [...files, ...files, ...files]) {
      await proxy.reload(one);
      for (const each of open) await each.isThere();
    }
    expect(
      proxy.logs.filter(({ msg }) => msg === "tunnels that the new rules refuse were closed"),
    ).toEqual([]);
  });

  const refusing: [string, () => Settings][] = [
    ["another issuer", () => ({ issuer: "http://other.test", jwks_url: `${idp.issuer}/none` })],
    ["another audience", () => ({ audience: "somebody-else" })],
    ["a scope that none has", () => ({ required_scopes: ["never"] })],
  ];
  test.each(refusing)("%s ends all of it", async (_what, config) => {
    const proxy = await own(ProxyProcess.start(file()));
    const open = await openAll(proxy);
    await proxy.reload(file(config()));
    for (const each of open) await each.isCut();
  });

  test("a policy that denies ends it, and so does a file that asks for keys alone", async () => {
    const proxy = await own(ProxyProcess.start(file()));
    const open = await openAll(proxy);
    const ofKeys = (one: Open): boolean => one.name.startsWith("dpop");
    await proxy.reload(file({ dpop: { required: true } }));
    for (const one of open) await (ofKeys(one) ? one.isThere() : one.isCut());
    await proxy.reload(file({}, inbound({ name: "denier", config: {} })));
    for (const one of open.filter(ofKeys)) await one.isCut();
  });
});
