// A stand-in for an agent: GET /?url=https://host/ answers with what became of a request to there.
const http = require("node:http");

const server = http.createServer(async (request, response) => {
  const asked = new URL(request.url, "http://agent").searchParams.get("url");
  if (asked === null) return response.end("an agent; ask for /?url=https://host/\n");
  try {
    const answer = await fetch(asked, { signal: AbortSignal.timeout(10_000) });
    response.end(`${answer.status} ${(await answer.text()).slice(0, 1000)}\n`);
  } catch (error) {
    response.statusCode = 502;
    response.end(`${error.cause?.message ?? error.message}\n`);
  }
});

server.listen(Number(process.env.PORT), process.env.HOST);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
