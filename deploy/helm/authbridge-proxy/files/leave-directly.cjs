// helm test: nothing may leave an agent's pod but through the proxy. Exit code 1 when something does.
// DIRECT and DIRECT_UDP: host:port, separated by commas. PROXY: host:port that has to answer, or empty.
const dgram = require("node:dgram");
const net = require("node:net");
const tls = require("node:tls");

const limitMs = Number(process.env.LIMIT_MS || 5000);
const places = (text = "") => text.split(",").filter(Boolean);
const split = (place) => [
  place.slice(0, place.lastIndexOf(":")),
  Number(place.slice(place.lastIndexOf(":") + 1)),
];

// A redirected connection is accepted by the proxy: what counts is whether somebody behind it answers.
function tcp(place) {
  const [host, port] = split(place);
  return new Promise((resolve) => {
    const end = (what) => (clearTimeout(timer), socket.destroy(), resolve(what));
    const timer = setTimeout(() => end(undefined), limitMs);
    const secured = port === 443;
    const socket = secured
      ? tls.connect({ host, port, rejectUnauthorized: false, servername: "" }, () =>
          end("a TLS handshake was answered"),
        )
      : net.connect(port, host, () => socket.write(`HEAD / HTTP/1.0\r\nHost: ${host}\r\n\r\n`));
    socket.on("error", () => end(undefined));
    socket.on("close", () => end(undefined));
    if (!secured) {
      socket.on("data", (bytes) => {
        const head = bytes.toString("latin1");
        const refused = /^HTTP\/1\.[01] (?:403|407|421|50[234]) /.test(head);
        end(refused ? undefined : `it was answered: ${head.split("\r\n")[0]}`);
      });
    }
  });
}

// A DNS query for the root's name servers; anything else on that port may answer it, too.
const query = Buffer.from("1234010000010000000000000000020001", "hex");

function udp(place) {
  const [host, port] = split(place);
  return new Promise((resolve) => {
    const socket = dgram.createSocket(net.isIPv6(host) ? "udp6" : "udp4");
    const end = (what) => (clearTimeout(timer), socket.close(), resolve(what));
    const timer = setTimeout(() => end(undefined), limitMs);
    socket.on("error", () => end(undefined));
    socket.on("message", () => end("a datagram was answered"));
    socket.send(query, port, host);
  });
}

function proxyAnswers(place) {
  const [host, port] = split(place);
  return new Promise((resolve) => {
    const socket = net.connect(port, host, () => (socket.destroy(), resolve(true)));
    socket.setTimeout(limitMs, () => (socket.destroy(), resolve(false)));
    socket.on("error", () => resolve(false));
  });
}

async function main() {
  let failures = 0;
  for (const [kind, probe, list] of [
    ["TCP", tcp, process.env.DIRECT],
    ["UDP", udp, process.env.DIRECT_UDP],
  ]) {
    for (const place of places(list)) {
      const got = await probe(place);
      if (got !== undefined) failures += 1;
      console.log(
        got === undefined
          ? `ok: ${kind} to ${place} does not leave`
          : `FAILED: ${kind} to ${place} leaves: ${got}`,
      );
    }
  }
  for (const place of places(process.env.PROXY)) {
    const answers = await proxyAnswers(place);
    if (!answers) failures += 1;
    console.log(
      answers ? `ok: the proxy is at ${place}` : `FAILED: the proxy cannot be reached at ${place}`,
    );
  }
  if (failures > 0)
    console.log("Does the CNI enforce NetworkPolicy egress? See the chart's README.");
  process.exit(failures === 0 ? 0 : 1);
}

void main();
