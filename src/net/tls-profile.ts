/** What every TLS server of this program offers, to old clients too: forward secrecy and authenticated encryption, or nothing. */
import { constants } from "node:crypto";
import type { SecureContextOptions } from "node:tls";

const suites = [
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "TLS_AES_128_GCM_SHA256",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
];

/** The cipher suites and curves that Mozilla recommends for general use, with the hybrid group of TLS 1.3. */
export const serverProfile = {
  ciphers: suites.join(":"),
  ecdhCurve: "X25519MLKEM768:X25519:prime256v1:secp384r1",
  // Each renegotiation costs a server more than its client.
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
} as const satisfies SecureContextOptions;
