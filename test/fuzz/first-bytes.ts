/** First bytes of connections: a ClientHello, a request, or neither. */
import { FirstLine } from "../../src/net/first-line.ts";
import { parseClientHello } from "../../src/net/client-hello.ts";
import { parseHttpHead } from "../../src/net/sniff.ts";
import { clientHello, records } from "../support/client-hello.ts";
import { inPieces } from "../support/mutation.ts";
import { requestCorpus } from "../support/wire-corpus.ts";
import { splitProblem, type Target } from "./target.ts";

const hello: Target = {
  name: "client-hello",
  covers: ["/src/net/client-hello.ts"],
  seeds: [
    records(clientHello({ sni: "api.example.com", alpn: ["h2", "http/1.1"] })),
    records(clientHello({ sni: "a.example", raw: [[0xfe0d, Buffer.alloc(20)]] }), 50),
    records(clientHello({ extensions: "none" })),
    records(
      clientHello({
        raw: [
          [0, Buffer.of(0, 3, 0, 0, 0)],
          [16, Buffer.of(0, 1, 0)],
        ],
      }),
    ),
  ],
  words: [
    "\x16\x03\x01",
    "\x01\0\0",
    "\0\0",
    "\xff\xff",
    "\x00\x10",
    "\x00\x2b",
    "\xfe\x0d",
    "\x03\x04",
  ],
  check(bytes, dice) {
    const whole = parseClientHello(bytes);
    const outcome = whole.kind === "malformed" ? whole.reason : whole.kind;
    // Every prefix needs more, or says what the whole says.
    const prefix = parseClientHello(bytes.subarray(0, dice.below(bytes.length + 1)));
    const grows = prefix.kind === "need-more" || splitProblem(prefix, whole) === undefined;
    if (!grows)
      return { outcome, problem: `a prefix says ${JSON.stringify(prefix).slice(0, 200)}` };
    const longer = parseClientHello(Buffer.concat([bytes, Buffer.of(dice.below(256))]));
    const problem = whole.kind === "need-more" ? undefined : splitProblem(whole, longer);
    return { outcome, problem };
  },
};

const firstLine: Target = {
  name: "first-line",
  covers: ["/src/net/first-line.ts", "/src/net/sniff.ts"],
  seeds: requestCorpus.slice(0, 30).map((text) => Buffer.from(text, "latin1")),
  words: [
    "\r\n",
    "\n",
    " ",
    "GET / HTTP/1.1\r\n",
    " HTTP/1.1",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\0",
    "\t",
    "\x85",
    "Host: a\r\n",
  ],
  check(bytes, dice) {
    const once = new FirstLine().read(bytes);
    const reader = new FirstLine();
    let often: string | undefined;
    for (const piece of inPieces(bytes, dice)) often ??= reader.read(piece);
    const head = parseHttpHead(bytes);
    const outcome = `${String(once)} ${head.kind}`;
    // What comes behind the line may show that it is none, so that only a request that is found must be found twice.
    const isMissed =
      (once === "request" && often === "other") || (once === "other" && often === "request");
    if (isMissed) return { outcome, problem: `in one piece ${once}, in pieces ${String(often)}` };
    const more = parseHttpHead(Buffer.concat([bytes, Buffer.from("x")]));
    return { outcome, problem: head.kind === "head" ? splitProblem(head, more) : undefined };
  },
};

export const targets: readonly Target[] = [hello, firstLine];
