/**
 * `callers`: who may use the forward proxy, where several agents share it.
 */
import { z } from "zod";
import { listOf, words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

/** A user-id of Basic cannot hold a colon (RFC 7617 section 2); control characters belong nowhere. */
const callerName = z
  .string()
  .regex(/^[^\s:\p{Cc}][^:\p{Cc}]{0,254}$/u, { error: "must be a name without a colon" });

const clientSchema = z
  .strictObject({
    name: callerName.describe("Name of the caller: its user name, and what policies select by."),
    password: guarded(
      words().optional().describe("Its password. Prefer password_file: this file is easily shown."),
    ),
    password_file: guarded(
      words()
        .optional()
        .describe("File with its password; a changed file is used within a second."),
    ),
    certificate: guarded(
      words()
        .optional()
        .describe(
          "A URI or DNS name in the subject alternative names of its client certificate, such as a SPIFFE ID; needs listener.forward_proxy_tls.client_ca_file.",
        ),
    ),
  })
  .superRefine((client, context) => {
    const { password, password_file: file, certificate } = client;
    if (password !== undefined && file !== undefined) {
      const message = "has no effect beside password_file";
      context.addIssue({ code: "custom", path: ["password"], message });
    }
    if (password === undefined && file === undefined && certificate === undefined) {
      const message = "needs one of password_file, password, certificate";
      context.addIssue({ code: "custom", message });
    }
  });

/** The `callers` block; without it everybody who reaches the forward proxy may use it. */
export const callersSchema = z
  .strictObject({
    clients: listOf(clientSchema).describe("The callers. Default []."),
    directory: words()
      .optional()
      .describe(
        "Directory with one file per caller: the file's name is the caller's name, its content the password, as Kubernetes mounts a Secret.",
      ),
    realm: z
      .string()
      .regex(/^[\w .:/-]{1,100}$/, { error: "must be letters, digits, spaces and . : / - _" })
      .default("authbridge")
      .describe("Realm of the Proxy-Authenticate challenge. Default authbridge."),
  })
  .superRefine(({ clients, directory }, context) => {
    if (clients.length === 0 && directory === undefined) {
      context.addIssue({ code: "custom", message: "needs clients or directory" });
    }
    for (const key of ["name", "certificate"] as const) {
      const seen = new Set<string>();
      for (const [index, client] of clients.entries()) {
        const value = client[key];
        if (value === undefined) continue;
        if (seen.has(value)) {
          context.addIssue({
            code: "custom",
            path: ["clients", index, key],
            message: "is given twice",
          });
        }
        seen.add(value);
      }
    }
  });
