/** (e) The DNS server is hung, refuses, fails, is late: who needs no look-up goes on, the others are told why. */
import { createSocket } from "node:dgram";
import { openTunnel } from "../../test/support/http-client.ts";
import type { ProxyProcess } from "../../test/support/proxy.ts";
import { end, type Ground, hear, takeStock } from "./ground.ts";
import type { Answer, Ledger } from "./ledger.ts";
import { ask } from "./mix.ts";
import { bytesOf, digestOf } from "./parties.ts";
import { askBytes, echoOn, recovers, type Stage } from "./stage.ts";

const lateMs = 500;
const moods = ["hung", "refusing", "failing", "late"] as const;
/** RCODE of RFC 1035 section 4.1.1. */
const codes = { well: 0, late: 0, failing: 2, refusing: 5 } as const;

/** Answers for every name with 127.0.0.1. */
class NameServer {
  mood: "well" | (typeof moods)[number] = "well";
  readonly #socket = createSocket("udp4");
  questions = 0;

  async start(): Promise<string> {
    this.#socket.on("message", (query, from) => {
      this.questions += 1;
      if (this.mood === "hung") return;
      const answer = answerTo(query, codes[this.mood]);
      const send = (): void => this.#socket.send(answer, from.port, from.address);
      if (this.mood === "late") setTimeout(send, lateMs);
      else send();
    });
    await new Promise<void>((resolve) => this.#socket.bind(0, "127.0.0.1", resolve));
    return `127.0.0.1:${this.#socket.address().port}`;
  }

  close(): void {
    this.#socket.close();
  }
}

function answerTo(query: Buffer, code: number): Buffer {
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) at += 1 + length;
  const hasAddress = code === 0 && query.readUInt16BE(at + 1) === 1;
  const head = Buffer.alloc(12);
  query.copy(head, 0, 0, 2);
  head.writeUInt16BE(0x8180 | code, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(hasAddress ? 1 : 0, 6);
  // The name of the question, type A, class IN, a minute, four bytes.
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
  const question = query.subarray(12, at + 5);
  return Buffer.concat([head, question, ...(hasAddress ? [record] : [])]);
}

export const namesFail: Stage = {
  name: "DNS hung, refusing, failing, late",
  weight: 5,
  async run({ ground, ledger, pace }) {
    const server = new NameServer();
    const address = await server.start();
    try {
      const proxy = await ground.start(
        ground.file({ egress: { dns_servers: [address], resolve_timeout: "3s" } }),
      );
      for (const _ of pace.cycles()) {
        // The names are the same in each cycle: what is kept of a name is no growth.
        for (const [at, mood] of moods.entries())
          await suffer({ ground, proxy, ledger, server }, mood, at);
        await takeStock(proxy, ledger);
      }
      await hear(proxy, ledger);
      await end(proxy, ledger);
      return { failures: moods.length * pace.done, questions: server.questions };
    } finally {
      server.close();
    }
  },
};

interface Scene {
  readonly ground: Ground;
  readonly proxy: ProxyProcess;
  readonly ledger: Ledger;
  readonly server: NameServer;
}

async function suffer(scene: Scene, mood: (typeof moods)[number], number: number): Promise<void> {
  const { ground, proxy, ledger, server } = scene;
  const { parties } = ground;
  const opened = `before-${number}.dns.test:${parties.echoPort}`;
  const { client, answer } = await openTunnel(proxy.forward, opened);
  ledger.answered("a tunnel to a name", { status: answer.status }, [200]);
  server.mood = mood;
  const bystanders = Array.from({ length: 8 }, (_, seed) => [
    askBytes(ground, proxy, seed),
    askName(scene, "mcp.test", seed),
  ]);
  const needy = Array.from({ length: 8 }, (_, at) => [
    askName(scene, `n${at}-${number}.dns.test`, 1),
    connectTo(scene, `t${at}-${number}.dns.test`),
  ]);
  for (const [seed, both] of bystanders.entries()) {
    for (const answer of await Promise.all(both)) {
      ledger.answered(`nobody to look up, DNS ${mood}`, answer, [200], digestOf(bytesOf(seed)));
    }
  }
  for (const answer of await Promise.all(needy.flat())) {
    const what = `a name, DNS ${mood}`;
    if (mood === "late") ledger.answered(what, answer, [200]);
    else {
      ledger.answered(what, answer, [502, 503, 504]);
      const isSaid = answer.text?.includes("could not be resolved") === true;
      if (answer.status >= 400 && !isSaid) ledger.lost(`${what}: no reason in ${answer.text}`);
    }
  }
  await echoOn(client, number, ledger);
  client.close();
  server.mood = "well";
  await recovers(`names after DNS was ${mood}`, ledger, () =>
    askName(scene, `after-${number}.dns.test`, 1),
  );
}

function askName({ ground, proxy }: Scene, name: string, seed: number): Promise<Answer> {
  const authority = `${name}:${ground.parties.origin.port}`;
  return ask({
    port: proxy.forward.port,
    path: `http://${authority}/bytes/${seed}`,
    agent: false,
    headers: { Host: authority },
  });
}

async function connectTo({ ground, proxy }: Scene, name: string): Promise<Answer> {
  const { client, answer } = await openTunnel(proxy.forward, `${name}:${ground.parties.echoPort}`);
  client.close();
  return { status: answer.status, text: answer.text };
}
