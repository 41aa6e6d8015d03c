# syntax=docker/dockerfile:1
# The proxy. Build it in the root of the repository: docker build -t authbridge-proxy .
# The image that redirects a pod's egress is another one: deploy/proxy-init/Dockerfile.
# Pin it by digest where builds have to be repeatable: --build-arg NODE_IMAGE=node:24-slim@sha256:…
ARG NODE_IMAGE=node:24-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
# The bill of materials names what is in the image and what is in its bundle.
RUN npm run build \
 && node scripts/bill-of-materials.ts sbom.cdx.json \
 && npm prune --omit=dev \
 && node scripts/prune-modules.ts node_modules dist
# Compiled code for the user of the image, made at the path where it will run; a read-only root file system keeps it.
RUN mkdir /app && cp -r dist node_modules package.json /app/ \
 && node scripts/compile-cache.ts /app 1337

FROM ${NODE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="authbridge-proxy" \
      org.opencontainers.image.description="Data-plane proxy for AI agents: judged egress with token exchange, JWT-validated ingress" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Young objects get 8 MiB instead of 16: two thirds of the memory under load for a thirtieth of the processor time (docs/operations.md).
ENV NODE_ENV=production \
    NODE_OPTIONS=--max-semi-space-size=8
WORKDIR /app
# The proxy writes nowhere else, and there only where its file says so: the root file system can be read-only.
RUN install -d -o 1337 -g 1337 -m 0700 /var/lib/authbridge/ca \
 && install -d -o 1337 -g 1337 -m 0755 /var/lib/authbridge/trust
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY --from=build /build/sbom.cdx.json ./
COPY config/init ./config/init
COPY config/prices ./config/prices
COPY package.json LICENSE ./
# The numeric id lets Kubernetes see that it is not root; redirect rules of a sidecar exempt this one. Any other works too.
USER 1337:1337
EXPOSE 8080 8081 8082 9091 9093 9094
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["node", "/app/dist/main.js", "health", "--config", "/etc/authbridge/config.yaml"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "/app/dist/main.js"]
CMD ["--config", "/etc/authbridge/config.yaml"]
