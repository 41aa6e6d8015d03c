import { expect, test } from "vitest";
import { isIdentifier } from "../../../src/policy/identifier.ts";

test.each([
  "42",
  "3f2a9c1",
  "da39a3ee5e6b4b0d3255bfef95601890afd80709",
  "sha256:0f343b0931126a20f133d67c2b018a3b1f4d2a8c5e6f7a8b9c0d1e2f3a4b5c6d",
  "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
  "2026-11-29",
  "2026-11-29T10:20:30Z",
  "01ARZ3NDEKTSV4RRFFQ69G5FAV",
  "msg_01XFDUDYJgAACzvnptvVoYEL",
  "V1StGXR8Z5jdHi6BmyTa",
])("%s names one thing among many", (text) => expect(isIdentifier(text)).toBe(true));

test.each([
  "",
  "v1",
  "users",
  "deadbeef",
  "facade",
  "chat",
  "1.2.3",
  "left-pad",
  "gpt-4o-mini",
  "claude-sonnet-4-5",
  "@scope%2Fname",
  "read_only_view",
  "well-known",
  "openid-configuration",
])("%s is a name", (text) => expect(isIdentifier(text)).toBe(false));
