/** Fields that the operator adds to each question. */
import { z } from "zod";
import { isFieldValue, isHopByHop, isToken } from "../../http/headers.ts";

const fieldName = z.string().refine(isToken, { error: "must be a header name" });
const fieldValue = z.string().max(8_192).refine(isFieldValue, {
  error: "has a character that a header cannot carry",
});

/** Fields and their values. */
export const addedFields = z
  .array(z.strictObject({ key: fieldName.describe("Name."), value: fieldValue.describe("Value.") }))
  .max(64)
  .default([]);

type AddedFields = z.output<typeof addedFields>;

interface Services {
  readonly grpc_service?: { readonly initial_metadata: AddedFields } | undefined;
  readonly http_service?:
    { readonly authorization_request: { readonly headers_to_add: AddedFields } } | undefined;
}

/** Fields that are not the operator's to set, as they frame the question. */
export function fieldProblems({ grpc_service: grpc, http_service: http }: Services) {
  const ofHttp = (http?.authorization_request.headers_to_add ?? []).map(({ key }, index) => ({
    key,
    path: ["http_service", "authorization_request", "headers_to_add", index, "key"],
    isFraming: key.toLowerCase() === "content-length" || isHopByHop(key),
  }));
  const ofGrpc = (grpc?.initial_metadata ?? []).map(({ key }, index) => ({
    key,
    path: ["grpc_service", "initial_metadata", index, "key"],
    isFraming: /^(?:grpc-|te$|content-type$|connection$)|-bin$/i.test(key),
  }));
  return [...ofHttp, ...ofGrpc].flatMap(({ key, path, isFraming }) =>
    isFraming ? [{ path, message: `${key} cannot be set` }] : [],
  );
}
