{{/* The proxy's container, in a gateway or beside an agent. */}}
{{- define "ab.proxyContainer" -}}
{{- $v := .Values -}}
{{- $ports := $v.proxy.ports -}}
name: authbridge-proxy
image: {{ include "ab.image" (dict "image" $v.image "root" .) }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args: ["--config", "/etc/authbridge/config.yaml"]
{{- with $v.proxy.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.proxy.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - { name: forward, containerPort: {{ $ports.forward }} }
  {{- with $ports.socks }}
  - { name: socks, containerPort: {{ . }} }
  {{- end }}
  {{- if include "ab.isInboundCaptured" . }}
  - { name: inbound, containerPort: {{ $ports.inbound }} }
  {{- else if $v.inbound.enabled }}
  - { name: reverse, containerPort: {{ $ports.reverse }} }
  {{- end }}
  {{- if and (not (include "ab.isGateway" .)) (not (include "ab.isCooperative" .)) }}
  - { name: transparent, containerPort: {{ $ports.transparent }} }
  {{- end }}
  - { name: health, containerPort: {{ $ports.health }} }
  {{- if $v.metrics.enabled }}
  - { name: stats, containerPort: {{ $ports.stats }} }
  {{- end }}
{{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
{{- with get $v.proxy $probe }}
{{ $probe }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
resources:
  {{- toYaml $v.proxy.resources | nindent 2 }}
securityContext:
  {{- include "ab.proxySecurity" . | nindent 2 }}
volumeMounts:
  {{- include "ab.proxyMounts" . | nindent 2 }}
{{- end -}}

{{- define "ab.proxyMounts" -}}
{{- $v := .Values -}}
- { name: authbridge-config, mountPath: /etc/authbridge, readOnly: true }
{{- if include "ab.isBridged" . }}
- { name: authbridge-ca, mountPath: /etc/authbridge-ca{{ if not $v.ca.ephemeral }}, readOnly: true{{ end }} }
{{- end }}
{{- if $v.callers.existingSecret }}
- { name: authbridge-callers, mountPath: /etc/authbridge-callers, readOnly: true }
{{- end }}
{{- if $v.callers.tls.existingSecret }}
- { name: authbridge-tls, mountPath: /etc/authbridge-tls, readOnly: true }
{{- end }}
{{- if $v.persistence.enabled }}
- { name: authbridge-data, mountPath: /var/lib/authbridge }
{{- end }}
{{- range $v.proxy.secretMounts }}
- { name: {{ printf "secret-%s" .name }}, mountPath: {{ printf "/var/run/secrets/authbridge/%s" .name }}, readOnly: true }
{{- end }}
{{- with $v.proxy.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ab.proxyVolumes" -}}
- name: authbridge-config
  configMap:
    name: {{ include "ab.fullname" . }}
{{- with include "ab.dataVolumes" . | trim }}
{{ . }}
{{- end }}
{{- end -}}

{{/* The volumes of the proxy beside its file. */}}
{{- define "ab.dataVolumes" -}}
{{- $v := .Values -}}
{{- if $v.ca.ephemeral }}
- name: authbridge-ca
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- else if include "ab.isBridged" . }}
- name: authbridge-ca
  secret:
    secretName: {{ include "ab.caSecret" . }}
    defaultMode: 0440
{{- end }}
{{- with $v.callers.existingSecret }}
- name: authbridge-callers
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with $v.callers.tls.existingSecret }}
- name: authbridge-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if and $v.persistence.enabled $v.persistence.ephemeral }}
- name: authbridge-data
  emptyDir: { sizeLimit: {{ $v.persistence.size }} }
{{- end }}
{{- range $v.proxy.secretMounts }}
- name: {{ printf "secret-%s" .name }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
{{- end }}
{{- with $v.proxy.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ab.proxyInitContainer" -}}
{{- $v := .Values -}}
name: proxy-init
image: {{ include "ab.image" (dict "image" $v.proxyInit.image "root" .) }}
imagePullPolicy: {{ $v.proxyInit.image.pullPolicy }}
env:
  - { name: MODE, value: enforce-redirect }
  - { name: PROXY_UID, value: {{ $v.proxy.uid | int | quote }} }
  - { name: TRANSPARENT_PORT, value: {{ $v.proxy.ports.transparent | int | quote }} }
  {{- if include "ab.isInboundCaptured" . }}
  - { name: INBOUND_PROXY_PORT, value: {{ $v.proxy.ports.inbound | int | quote }} }
  - { name: INBOUND_PORTS_EXCLUDE, value: {{ ternary (printf "%d,%d" (int $v.proxy.ports.health) (int $v.proxy.ports.stats)) (printf "%d" (int $v.proxy.ports.health)) $v.metrics.enabled | quote }} }
  {{- end }}
  - { name: IPV6, value: {{ $v.proxyInit.ipv6 }} }
  - { name: IPTABLES_BACKEND, value: {{ $v.proxyInit.backend }} }
resources:
  {{- toYaml $v.proxyInit.resources | nindent 2 }}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  runAsNonRoot: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN, NET_RAW]
{{- if eq $v.proxyInit.backend "legacy" }}
volumeMounts:
  - { name: proxy-init-run, mountPath: /run }
{{- end }}
{{- end -}}

{{- define "ab.proxyScheme" -}}
{{- if .Values.callers.tls.existingSecret -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{- define "ab.proxyHost" -}}
{{- if include "ab.isGateway" . -}}
{{- default (printf "%s.%s.svc" (include "ab.fullname" .) .Release.Namespace) .Values.gateway.service.clusterIP -}}
{{- else -}}
127.0.0.1
{{- end -}}
{{- end -}}

{{/* The environment of an agent: what `authbridge-proxy env` prints, but for Java's trust store. */}}
{{- define "ab.agentEnv" -}}
{{- $host := include "ab.proxyHost" . -}}
{{- $port := int .Values.proxy.ports.forward -}}
{{- $written := ternary (printf "[%s]" $host) $host (contains ":" $host) -}}
{{- $url := printf "%s://%s:%d" (include "ab.proxyScheme" .) $written $port -}}
{{- $none := "localhost,127.0.0.1,::1" -}}
{{- range $name := list "HTTP_PROXY" "http_proxy" "HTTPS_PROXY" "https_proxy" "ALL_PROXY" "all_proxy" "npm_config_proxy" "npm_config_https_proxy" "YARN_HTTP_PROXY" "YARN_HTTPS_PROXY" "CARGO_HTTP_PROXY" }}
- { name: {{ $name }}, value: {{ $url | quote }} }
{{- end }}
{{- range $name := list "NO_PROXY" "no_proxy" "npm_config_noproxy" }}
- { name: {{ $name }}, value: {{ $none | quote }} }
{{- end }}
- { name: NODE_USE_ENV_PROXY, value: "1" }
- { name: CLOUDSDK_PROXY_TYPE, value: http }
- { name: CLOUDSDK_PROXY_ADDRESS, value: {{ $host | quote }} }
- { name: CLOUDSDK_PROXY_PORT, value: {{ $port | quote }} }
- name: JAVA_TOOL_OPTIONS
  value: {{ printf "-Dhttp.proxyHost=%s -Dhttp.proxyPort=%d -Dhttps.proxyHost=%s -Dhttps.proxyPort=%d -Dhttp.nonProxyHosts=localhost|127.*|[::1]" $written $port $written $port | quote }}
{{- if include "ab.isBridged" . }}
{{- range $name := list "NODE_EXTRA_CA_CERTS" "DENO_CERT" }}
- { name: {{ $name }}, value: /etc/authbridge/ca.crt }
{{- end }}
- { name: DENO_TLS_CA_STORE, value: "mozilla,system" }
{{- range $name := list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" "GIT_SSL_CAINFO" "PIP_CERT" "HTTPLIB2_CA_CERTS" "npm_config_cafile" "YARN_HTTPS_CA_FILE_PATH" "CARGO_HTTP_CAINFO" "AWS_CA_BUNDLE" "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" "NIX_SSL_CERT_FILE" }}
- { name: {{ $name }}, value: /etc/authbridge/ca-bundle.crt }
{{- end }}
{{- end }}
{{- end -}}

{{- define "ab.trustMounts" -}}
{{- if .Values.ca.ephemeral }}
- { name: authbridge-ca, mountPath: /etc/authbridge/ca.crt, subPath: ca.crt, readOnly: true }
- { name: authbridge-ca, mountPath: /etc/authbridge/ca-bundle.crt, subPath: ca.crt, readOnly: true }
{{- else if include "ab.isBridged" . }}
- { name: authbridge-trust, mountPath: /etc/authbridge, readOnly: true }
{{- end }}
{{- end -}}

{{/* Volumes of an agent that are not the proxy's. */}}
{{- define "ab.agentVolumes" -}}
{{- if and (include "ab.isBridged" .) (not .Values.ca.ephemeral) }}
- {{ include "ab.trustVolume" . | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* What stands before the agent in its pod, in the order in which it starts. */}}
{{- define "ab.sidecarInit" -}}
{{- if not (include "ab.isCooperative" .) }}
- {{ include "ab.proxyInitContainer" . | nindent 2 | trim }}
{{- end }}
{{- if .Values.sidecar.native }}
- {{ include "ab.proxyContainer" . | nindent 2 | trim }}
  restartPolicy: Always
{{- end }}
{{- end -}}

{{- define "ab.sidecarVolumes" -}}
{{ include "ab.proxyVolumes" . }}
{{- if and (not (include "ab.isCooperative" .)) (eq .Values.proxyInit.backend "legacy") }}
- name: proxy-init-run
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- end }}
{{- include "ab.agentVolumes" . }}
{{- end -}}

{{/* The fragment that makes a pod an agent's pod: merge it into spec.template.spec. */}}
{{- define "ab.podFragment" -}}
automountServiceAccountToken: false
securityContext:
  {{- with .Values.proxy.uid }}
  fsGroup: {{ int . }}
  {{- end }}
  seccompProfile: { type: RuntimeDefault }
{{- $init := include "ab.sidecarInit" . | trim }}
{{- if $init }}
initContainers:
  {{- $init | nindent 2 }}
{{- end }}
containers:
  {{- if not .Values.sidecar.native }}
  - {{ include "ab.proxyContainer" . | nindent 4 | trim }}
  {{- end }}
  - name: agent # yours: keep its image and command, and add what follows
    env:
      {{- include "ab.agentEnv" . | trim | nindent 6 }}
    securityContext:
      {{- with .Values.agentExample.uid }}
      runAsUser: {{ int . }}{{ with $.Values.proxy.uid }} # anything but {{ int . }}{{ end }}
      {{- end }}
      {{- include "ab.restricted" . | nindent 6 }}
    {{- with include "ab.trustMounts" . | trim }}
    volumeMounts:
      {{- . | nindent 6 }}
    {{- end }}
volumes:
  {{- include "ab.sidecarVolumes" . | trim | nindent 2 }}
{{- end -}}
