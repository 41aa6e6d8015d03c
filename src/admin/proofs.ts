/** Proofs over the decision log for whoever may read sessions. */
import { type ConsistencyProof, type InclusionProof, type NoProof } from "../receipts/proofs.ts";
import { type AdminReply, type AdminRoute, failure, json } from "./server.ts";

/** Where the proofs come from. */
export interface Prover {
  inclusion(id: string, size: number | undefined): Promise<InclusionProof | NoProof>;
  consistency(from: number, to: number): Promise<ConsistencyProof | NoProof>;
  /** The newest one, made now where something is not in one yet. */
  checkpoint(): Promise<string | undefined>;
}

/** Proofs read files: so many at a time. */
const maxAtOnce = 4;
const maxIdLength = 200;

/** GET /v1/decisions/ID/proof, GET /v1/checkpoint and GET /v1/checkpoint/consistency. */
export function proofRoutes(prover: Prover | undefined): AdminRoute[] {
  if (prover === undefined) return [];
  let running = 0;
  const proved = async (prove: () => Promise<object | NoProof>): Promise<AdminReply> => {
    if (running >= maxAtOnce) return failure(503, "proxy.overloaded", "proofs are being made");
    running += 1;
    try {
      const proof = await prove();
      return "missing" in proof ? refused(proof) : json(proof);
    } finally {
      running -= 1;
    }
  };
  return [
    {
      path: "/v1/decisions/",
      handle: async ({ rest, query }) => {
        const [, id] = /^([^/]+)\/proof$/.exec(rest) ?? [];
        if (id === undefined || id.length > maxIdLength) {
          return failure(404, "request.not-found", "ask for /v1/decisions/ID/proof");
        }
        const size = query.get("size");
        if (size !== null && !isSize(size)) return badSize("size");
        return proved(() => prover.inclusion(id, size === null ? undefined : Number(size)));
      },
    },
    {
      path: "/v1/checkpoint",
      handle: async () => {
        const note = await prover.checkpoint();
        return note === undefined
          ? failure(404, "request.not-found", "nothing is decided yet, or it cannot be written")
          : { status: 200, contentType: "text/plain; charset=utf-8", body: note };
      },
    },
    {
      path: "/v1/checkpoint/consistency",
      handle: async ({ query }) => {
        const [from, to] = [query.get("from") ?? "", query.get("to") ?? ""];
        if (!isSize(from) || !isSize(to)) return badSize("from and to");
        return proved(() => prover.consistency(Number(from), Number(to)));
      },
    },
  ];
}

function isSize(text: string): boolean {
  return /^[1-9]\d{0,14}$/.test(text);
}

function badSize(name: string): AdminReply {
  return failure(400, "request.malformed", `${name} must be the size of a checkpoint`);
}

function refused({ missing, message }: NoProof): AdminReply {
  return missing === "lines"
    ? failure(503, "proxy.unavailable", message)
    : failure(404, "request.not-found", message);
}
