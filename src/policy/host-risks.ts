/** What speaks against a host by its name alone. */

/** Under these anybody can have a place of their own, to bring things from and to take things to. */
const shared = [
  "amazonaws.com",
  "azurewebsites.net",
  "blob.core.windows.net",
  "cloudfront.net",
  "discord.com",
  "firebaseio.com",
  "gist.github.com",
  "gist.githubusercontent.com",
  "github.io",
  "gitlab.io",
  "herokuapp.com",
  "hooks.slack.com",
  "netlify.app",
  "ngrok-free.app",
  "ngrok.io",
  "pages.dev",
  "pastebin.com",
  "r2.dev",
  "raw.githubusercontent.com",
  "storage.googleapis.com",
  "t.me",
  "trycloudflare.com",
  "vercel.app",
  "webhook.site",
  "workers.dev",
];

/** Registries, forges and models that agents usually talk to. */
const usual = [
  "anthropic.com",
  "cohere.com",
  "crates.io",
  "debian.org",
  "docker.com",
  "docker.io",
  "files.pythonhosted.org",
  "generativelanguage.googleapis.com",
  "ghcr.io",
  "github.com",
  "gitlab.com",
  "githubusercontent.com",
  "golang.org",
  "huggingface.co",
  "mistral.ai",
  "nodejs.org",
  "npmjs.org",
  "openai.com",
  "pypi.org",
  "rubygems.org",
  "ubuntu.com",
  "yarnpkg.com",
];

/** Notes for whoever reads a suggestion. */
export function hostRisks(host: string): readonly string[] {
  const below = (names: readonly string[]): boolean =>
    names.some((name) => host === name || host.endsWith(`.${name}`));
  if (below(shared)) return ["a public suffix in effect: anybody can have a place under that name"];
  return below(usual) ? [] : ["an unknown host: none of the usual registries and model services"];
}
