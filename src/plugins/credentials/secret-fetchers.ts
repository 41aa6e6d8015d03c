/** What asks the provider of a source, by the `type` of its configuration. */
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { durationMs } from "../../duration.ts";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";
import { readSigningKey } from "../../oauth/client-assertion.ts";
import { readCertificateChain } from "../../oauth/pem.ts";
import { PluginConfigError, type PluginDeps } from "../../pipeline/plugin.ts";
import type { Secret } from "../../secret.ts";
import { ExecSecret } from "../../secrets/exec-secret.ts";
import { GithubApp } from "../../secrets/github-app.ts";
import {
  GoogleServiceAccount,
  readServiceAccountKey,
} from "../../secrets/google-service-account.ts";
import {
  GoogleWorkloadIdentity,
  readExternalAccount,
} from "../../secrets/google-workload-identity.ts";
import { OauthGrant } from "../../secrets/oauth-grant.ts";
import type { ProviderMeans } from "../../secrets/provider-call.ts";
import { RefreshTokenFile } from "../../secrets/refresh-token-file.ts";
import { type SecretFetcher, unavailable } from "../../secrets/secret-source.ts";
import { type VaultAuth, VaultLogin } from "../../secrets/vault-login.ts";
import { VaultSecret } from "../../secrets/vault-secret.ts";
import { externalAccountOf } from "./google-secret-config.ts";
import type { SecretConfig, SecretConfigOf } from "./secret-config.ts";

/** What a source needs of its plugin. */
export type SecretDeps = Pick<
  PluginDeps,
  | "carry"
  | "clock"
  | "fetch"
  | "isAlone"
  | "jwtSvids"
  | "log"
  | "noteSecret"
  | "shared"
  | "x509Svids"
>;

/** The sources that are fetched. */
export type FetchedConfig = Exclude<SecretConfig, { type: "file" | "env" }>;

type Fetcher = SecretFetcher<Secret, ProviderMeans>;
/** Called where no running generation has one for the same configuration. */
type Make = () => Fetcher;
type MakerOf<Type extends FetchedConfig["type"]> = (
  config: SecretConfigOf<Type>,
  deps: SecretDeps,
) => Make;

const makers: { readonly [Type in FetchedConfig["type"]]: MakerOf<Type> } = {
  exec,
  vault,
  github_app: githubApp,
  google_service_account: googleServiceAccount,
  google_workload_identity: googleWorkloadIdentity,
  oauth_refresh_token: oauthGrant,
  oauth_client_credentials: oauthGrant,
};

/** Throws {@link PluginConfigError} for what can never work; what is only not there yet may come. */
export function fetcherOf(config: FetchedConfig, deps: SecretDeps): Make {
  // The table has the maker of each type; the types of a union are not followed into it.
  return (makers[config.type] as MakerOf<FetchedConfig["type"]>)(config, deps);
}

function refuse(key: string, message: string): never {
  throw new PluginConfigError([{ path: [key], message }]);
}

function exec({ command, env, ttl }: SecretConfigOf<"exec">, { clock }: SecretDeps): Make {
  const [program = "", ...args] = command;
  if (!program.startsWith("/"))
    refuse("command", "begins with the path of a program, from the root");
  if (existsSync(program)) {
    try {
      accessSync(program, constants.X_OK);
    } catch {
      refuse("command", `${program} cannot be executed by this process`);
    }
    if (!statSync(program).isFile()) refuse("command", `${program} is no file`);
  }
  return () =>
    new ExecSecret({
      command: [program, ...args],
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", ...env },
      ttlMs: ttl === undefined ? undefined : durationMs(ttl),
      clock,
    });
}

function vault(config: SecretConfigOf<"vault">, deps: SecretDeps): Make {
  const { clock, carry } = deps;
  const { namespace, engine, mount, field, ca_file: caFile } = config;
  const address = config.address.replace(/\/+$/, "");
  if (caFile !== undefined && !address.startsWith("https:"))
    refuse("ca_file", "has no effect: address is not https");
  const key = "ca_file";
  const authorities =
    caFile === undefined
      ? undefined
      : keyFile(key, caFile, (text) => ({ key, pem: readCertificateChain(text).pem }), deps);
  const server = { address, namespace, auth: vaultAuthOf(config), authorities, clock };
  // Sources of one server and one role share their login.
  const place = JSON.stringify([address, namespace, config.auth, caFile]);
  const login = carry(`vault-login:${place}`, () => new VaultLogin(server));
  const segments = [mount, ...(engine === "kv-v2" ? ["data"] : []), config.path];
  const path = segments
    .flatMap((part) => part.split("/"))
    .map(encodeURIComponent)
    .join("/");
  return () =>
    new VaultSecret({
      login,
      path,
      field,
      isVersioned: engine === "kv-v2",
      refreshMs: durationMs(config.refresh),
      maxAgeMs: durationMs(config.max_age),
      clock,
    });
}

function vaultAuthOf({ auth }: SecretConfigOf<"vault">): VaultAuth {
  switch (auth.method) {
    case "kubernetes":
    case "jwt": {
      const { method, mount, role, token_file: jwtFile } = auth;
      return { method, mount, role, jwtFile };
    }
    case "approle": {
      const { method, mount, role_id: roleId, secret_id_file: secretIdFile } = auth;
      return { method, mount, roleId, secretIdFile };
    }
    case "token":
      return { method: auth.method, tokenFile: auth.token_file };
  }
}

function githubApp(config: SecretConfigOf<"github_app">, deps: SecretDeps): Make {
  const read = (text: string) => readSigningKey(credentialText(text), "RS256");
  const key = keyFile("private_key_file", config.private_key_file, read, deps);
  const { installation_id: id, repository, organization, user } = config;
  const place =
    repository !== undefined
      ? `repos/${repository}`
      : organization !== undefined
        ? `orgs/${encodeURIComponent(organization)}`
        : `users/${encodeURIComponent(user ?? "")}`;
  const { repositories, permissions } = config;
  return () =>
    new GithubApp({
      apiUrl: config.api_url.replace(/\/+$/, ""),
      appId: String(config.app_id),
      key,
      installation:
        id === undefined ? { path: `/${place}/installation` } : { id: encodeURIComponent(id) },
      subset: {
        ...(repositories.length === 0 ? {} : { repositories }),
        ...(permissions === undefined ? {} : { permissions }),
      },
      clock: deps.clock,
    });
}

function googleServiceAccount(
  config: SecretConfigOf<"google_service_account">,
  deps: SecretDeps,
): Make {
  const { scopes = [], audience, subject, token_url: tokenUrl } = config;
  const key = keyFile("credentials_file", config.credentials_file, readServiceAccountKey, deps);
  const token = audience === undefined ? { scopes } : { audience };
  return () => new GoogleServiceAccount({ key, token, subject, tokenUrl, clock: deps.clock });
}

function googleWorkloadIdentity(
  config: SecretConfigOf<"google_workload_identity">,
  deps: SecretDeps,
): Make {
  const { scopes = [], id_token_audience: audience, credentials_file: path } = config;
  if (config.jwt_svid_audience !== undefined && deps.jwtSvids === undefined)
    refuse("jwt_svid_audience", "needs a spiffe block in the file");
  const given = externalAccountOf(config);
  const account =
    path === undefined ? () => given : keyFile("credentials_file", path, readExternalAccount, deps);
  if (path !== undefined && audience !== undefined && existsSync(path)) {
    if (account().impersonation === undefined)
      refuse("id_token_audience", "needs a service account to impersonate in credentials_file");
  }
  const token = audience === undefined ? { scopes } : { audience };
  return () => new GoogleWorkloadIdentity({ account, token, clock: deps.clock });
}

function oauthGrant(
  config: SecretConfigOf<"oauth_refresh_token" | "oauth_client_credentials">,
  { clock, log }: SecretDeps,
): Make {
  const { token_url: tokenUrl, scopes, audience, resource } = config;
  const refreshToken =
    config.type === "oauth_refresh_token" ? refreshTokenFile(config, log) : undefined;
  return () =>
    new OauthGrant({
      tokenUrl,
      wanted: { scopes, audience, resource },
      refreshToken,
      ttlMs: durationMs(config.ttl),
      timeoutMs: durationMs(config.timeout),
      clock,
    });
}

function refreshTokenFile(
  config: SecretConfigOf<"oauth_refresh_token">,
  log: SecretDeps["log"],
): RefreshTokenFile {
  const { refresh_token_file: path, rotated_token_file: rotatedPath } = config;
  const directory = dirname(rotatedPath ?? path);
  if (existsSync(directory)) {
    try {
      accessSync(directory, constants.W_OK);
    } catch {
      const key = rotatedPath === undefined ? "refresh_token_file" : "rotated_token_file";
      const message = `${directory} cannot be written, where a new refresh token has to go: set rotated_token_file`;
      refuse(key, message);
    }
  }
  const onUnwritten = (problem: string): void =>
    log.error({ problem }, "a new refresh token is in memory only, until it can be written");
  return new RefreshTokenFile({ path, rotatedPath, onUnwritten });
}

/** What a file holds as of now. A file that holds something else is a mistake of the operator; one that is not there may come. */
function keyFile<T>(
  key: string,
  path: string,
  parse: (text: string) => T,
  { clock, log }: SecretDeps,
): () => T {
  const file = new WatchedFile<T>({
    path,
    clock,
    parse,
    onProblem: (problem) => log.warn({ problem }, "credential file not usable"),
  });
  if (file.current() === undefined && existsSync(path))
    refuse(key, file.problem ?? "cannot be used");
  return () => {
    const value = file.current();
    if (value === undefined) throw unavailable(file.problem ?? `${path} was not read yet`);
    return value;
  };
}
