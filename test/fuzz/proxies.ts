/** What parents of the site answer while they open a tunnel, and what clients of our own SOCKS5 port say. */
import { ProxyError } from "../../src/errors.ts";
import { parseAuthority } from "../../src/net/destination.ts";
import {
  readCredentials,
  readGreeting,
  readRequest,
  SocksRefusal,
} from "../../src/listener/socks-messages.ts";
import { Secret } from "../../src/secret.ts";
import { ConnectDialogue } from "../../src/upstream/parent/connect-dialogue.ts";
import type { Dialogue } from "../../src/upstream/parent/dialogue.ts";
import type { ParentProxy } from "../../src/upstream/parent/parent-proxy.ts";
import { Socks5Dialogue } from "../../src/upstream/parent/socks5-dialogue.ts";
import { inPieces } from "../support/mutation.ts";
import { caught, splitProblem, type Target } from "./target.ts";

const parent: ParentProxy = {
  kind: "http",
  destination: parseAuthority("parent.example:3128", "tcp"),
  connectBy: "name",
  credentials: { username: "user", password: new Secret("password") },
  label: "http://parent.example:3128",
};
/** More would be a conversation that does not end. */
const maxSteps = 64;

/** What was sent and what is left for the tunnel, as the proxy converses. */
function conversation(dialogue: Dialogue, chunks: readonly Buffer[]): readonly unknown[] {
  const said: unknown[] = [];
  let received: Buffer = Buffer.alloc(0);
  let isOpen = false;
  const read = caught(() => {
    for (const chunk of chunks) {
      received = Buffer.concat([received, chunk]);
      for (let left = maxSteps; !isOpen; left -= 1) {
        if (left === 0) throw new RangeError("it does not end");
        const step = dialogue.step(received);
        if (step.kind === "more") break;
        if (step.used > received.length) throw new RangeError("it used what did not come");
        received = received.subarray(step.used);
        isOpen = step.kind === "done";
        if (step.kind === "send" && step.bytes.length > 0) said.push(step.bytes.toString("hex"));
      }
    }
  }, ProxyError);
  if ("refusal" in read) return ["refused"];
  return isOpen ? [...said, "open", received.toString("hex")] : [...said, "waits"];
}

function dialogueTarget(
  name: string,
  open: () => Dialogue,
  rest: Pick<Target, "covers" | "seeds" | "words">,
): Target {
  return {
    name,
    ...rest,
    check(bytes, dice) {
      const whole = conversation(open(), [bytes]);
      const parts = conversation(open(), inPieces(bytes, dice));
      const outcome = `${whole.length} ${String(whole.find((word) => word === "open" || word === "waits" || word === "refused"))}`;
      // A peer that is refused early for its first bytes is refused however they came.
      return { outcome, problem: splitProblem(whole, parts) };
    },
  };
}

/** What one message of a client comes to. */
function readOf(read: (seen: Buffer) => unknown, bytes: Buffer): string {
  try {
    return (
      JSON.stringify(read(bytes), (_key, value: unknown) =>
        value instanceof Set ? [...value] : value,
      ) ?? "more"
    );
  } catch (error) {
    if (error instanceof SocksRefusal)
      return `refused with ${Buffer.from(error.bytes).toString("hex")}`;
    throw error;
  }
}

const socksClient: Target = {
  name: "socks-client",
  covers: ["/src/listener/socks-messages.ts", "/src/net/destination.ts"],
  seeds: [
    Buffer.from([5, 2, 0, 2]),
    Buffer.from([1, 4, 117, 115, 101, 114, 2, 112, 119]),
    Buffer.from([5, 1, 0, 1, 127, 0, 0, 1, 0, 80]),
    Buffer.concat([Buffer.from([5, 1, 0, 3, 9]), Buffer.from("a.example"), Buffer.from([1, 187])]),
    Buffer.concat([Buffer.from([5, 1, 0, 4]), Buffer.alloc(16, 1), Buffer.from([0, 1])]),
    Buffer.from([5, 3, 0, 1, 0, 0, 0, 0, 0, 0]),
    Buffer.from([4, 1, 0, 80, 0, 0, 0, 1, 0]),
  ],
  words: [
    "\x05\x01\x00",
    "\x03\x09",
    "\x03\xff",
    "127.0.0.1",
    "0x7f.1",
    "::1",
    "%",
    "\0",
    ".",
    "\x01\x00",
  ],
  check(bytes, dice) {
    const cut = dice.below(bytes.length + 1);
    const outcomes: string[] = [];
    for (const read of [readGreeting, readCredentials, readRequest]) {
      const [whole, prefix] = [readOf(read, bytes), readOf(read, bytes.subarray(0, cut))];
      // A prefix wants more, or says what the whole says.
      const isSame = prefix === "more" || prefix === whole;
      if (!isSame) return { outcome: "", problem: `${read.name}: ${prefix} becomes ${whole}` };
      outcomes.push(whole === "more" || whole.startsWith("refused") ? whole : "read");
    }
    return { outcome: outcomes.join() };
  },
};

export const targets: readonly Target[] = [
  socksClient,
  dialogueTarget("parent-connect", () => new ConnectDialogue(parent, "a.example:443"), {
    covers: ["/src/upstream/parent/connect-dialogue.ts"],
    seeds: [
      "HTTP/1.1 200 OK\r\n\r\nrest",
      "HTTP/1.0 200\r\nVia: x\r\n\r\n",
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
      "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
      "SSH-2.0-x\r\n",
    ].map((text) => Buffer.from(text, "latin1")),
    words: [
      "\r\n",
      "\r\n\r\n",
      "HTTP/1.1 ",
      "200",
      "101",
      "407",
      " ",
      ":",
      "Content-Length: 0\r\n",
      "\0",
      "\n",
    ],
  }),
  dialogueTarget("parent-socks5", () => new Socks5Dialogue(parent, "a.example", 443), {
    covers: ["/src/upstream/parent/socks5-dialogue.ts"],
    seeds: [
      Buffer.from([5, 0, 5, 0, 0, 1, 127, 0, 0, 1, 0, 80, 1, 2]),
      Buffer.from([5, 2, 1, 0, 5, 0, 0, 3, 1, 97, 0, 80]),
      Buffer.from([5, 2, 1, 1]),
      Buffer.concat([Buffer.from([5, 0, 5, 0, 0, 4]), Buffer.alloc(18)]),
      Buffer.from([5, 255]),
    ],
    words: ["\x05\x00", "\x05\x02", "\x01\x00", "\x05", "\0", "\x03\xff", "\xff"],
  }),
];
