/** An OTLP/HTTP collector that reads the protobuf itself: what it sees is what any collector sees. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** One span, as far as tests look at it. */
export interface CollectedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  readonly kind: number;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
  /** 2 for an error. */
  readonly status: number;
}

/** One metric of a report. */
export interface CollectedMetric {
  readonly unit: string;
  readonly kind: "gauge" | "sum" | "histogram";
  /** Attributes of its data points. */
  readonly points: readonly CollectedSpan["attributes"][];
}

/** One field of a message: its number, and a number or bytes. */
type Field = readonly [number: number, value: bigint | Buffer];

/** The fields of one protobuf message (varint, fixed 64 and 32, length-delimited). */
function fieldsOf(bytes: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++] ?? 0;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const number = tag >> 3;
    switch (tag & 7) {
      case 0:
        fields.push([number, varint()]);
        break;
      case 1:
        fields.push([number, bytes.readBigUInt64LE(at)]);
        at += 8;
        break;
      case 2: {
        const length = Number(varint());
        fields.push([number, bytes.subarray(at, at + length)]);
        at += length;
        break;
      }
      case 5:
        fields.push([number, BigInt(bytes.readUInt32LE(at))]);
        at += 4;
        break;
      default:
        throw new Error(`wire type ${tag & 7}`);
    }
  }
  return fields;
}

const all = (fields: readonly Field[], number: number): Buffer[] =>
  fields.flatMap(([one, value]) => (one === number && typeof value !== "bigint" ? [value] : []));
const text = (fields: readonly Field[], number: number): string =>
  all(fields, number)[0]?.toString("utf8") ?? "";
const hex = (fields: readonly Field[], number: number): string =>
  all(fields, number)[0]?.toString("hex") ?? "";
const integer = (fields: readonly Field[], number: number): bigint => {
  const value = fields.find(([one]) => one === number)?.[1];
  return typeof value === "bigint" ? value : 0n;
};

function attributesOf(fields: readonly Field[], number: number): CollectedSpan["attributes"] {
  return Object.fromEntries(
    all(fields, number).map((bytes) => {
      const pair = fieldsOf(bytes);
      const [kind, value] = fieldsOf(all(pair, 2)[0] ?? Buffer.alloc(0))[0] ?? [1, Buffer.alloc(0)];
      const shown =
        typeof value === "bigint"
          ? kind === 2
            ? value === 1n
            : Number(value)
          : value.toString("utf8");
      return [text(pair, 1), shown];
    }),
  );
}

function spanOf(bytes: Buffer): CollectedSpan {
  const fields = fieldsOf(bytes);
  return {
    traceId: hex(fields, 1),
    spanId: hex(fields, 2),
    parentSpanId: hex(fields, 4),
    name: text(fields, 5),
    kind: Number(integer(fields, 6)),
    startNs: integer(fields, 7),
    endNs: integer(fields, 8),
    attributes: attributesOf(fields, 9),
    status: Number(integer(fieldsOf(all(fields, 15)[0] ?? Buffer.alloc(0)), 3)),
  };
}

/** Field numbers of opentelemetry.proto.metrics.v1: of the kind in a Metric, of the attributes in its points. */
const metricKinds = [
  ["gauge", 5, 7],
  ["sum", 7, 7],
  ["histogram", 9, 9],
] as const;

function metricOf(bytes: Buffer): readonly [name: string, metric: CollectedMetric] {
  const fields = fieldsOf(bytes);
  const found = metricKinds.find(([, number]) => all(fields, number).length > 0);
  if (found === undefined) throw new Error(`a metric of no known kind: ${text(fields, 1)}`);
  const [kind, number, attributes] = found;
  const points = all(fieldsOf(all(fields, number)[0] ?? Buffer.alloc(0)), 1).map((point) =>
    attributesOf(fieldsOf(point), attributes),
  );
  return [text(fields, 1), { unit: text(fields, 3), kind, points }];
}

/** A running collector. */
export class OtlpCollector {
  readonly spans: CollectedSpan[] = [];
  /** By name, as of the last report. */
  readonly metrics = new Map<string, CollectedMetric>();
  readonly resources: CollectedSpan["attributes"][] = [];
  readonly authorizations = new Set<string>();
  /** The status of every answer. */
  status = 200;
  reports = 0;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        this.reports += 1;
        this.authorizations.add(request.headers.authorization ?? "");
        if (this.status === 200) this.#take(request.url ?? "", Buffer.concat(parts));
        response.writeHead(this.status, { "Content-Type": "application/x-protobuf" }).end();
      });
    });
  }

  static async start(): Promise<OtlpCollector> {
    const collector = new OtlpCollector();
    await new Promise<void>((resolve) => {
      collector.#server.listen(0, "127.0.0.1", resolve);
    });
    return collector;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #take(path: string, body: Buffer): void {
    for (const resource of all(fieldsOf(body), 1)) {
      const fields = fieldsOf(resource);
      this.resources.push(attributesOf(fieldsOf(all(fields, 1)[0] ?? Buffer.alloc(0)), 1));
      for (const scope of all(fields, 2)) {
        const items = all(fieldsOf(scope), 2);
        if (path === "/v1/traces") this.spans.push(...items.map(spanOf));
        else for (const item of items) this.metrics.set(...metricOf(item));
      }
    }
  }
}
