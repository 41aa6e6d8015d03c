{{/* The proxy's file. */}}
{{- define "ab.config" -}}
{{- include "ab.checks" . -}}
{{- $v := .Values -}}
{{- $ports := $v.proxy.ports -}}
{{- $isGateway := include "ab.isGateway" . -}}
{{- $every := $v.proxy.listenHost -}}
{{- $own := ternary $every "127.0.0.1" (ne $isGateway "") -}}
{{- $listener := dict
  "roles" (ternary (list "reverse" "forward") (list "forward") $v.inbound.enabled)
  "forward_proxy_addr" (printf "%s:%d" $own (int $ports.forward))
  "session_api_addr" (printf "127.0.0.1:%d" (int $ports.sessions))
  "health_addr" (printf "%s:%d" $every (int $ports.health)) -}}
{{- with $ports.socks -}}
{{- $_ := set $listener "socks_proxy_addr" (printf "%s:%d" $own (int .)) -}}
{{- end -}}
{{- if include "ab.isInboundCaptured" . -}}
{{- $_ := set $listener "inbound_interception" "transparent" -}}
{{- $_ := set $listener "transparent_inbound_addr" (printf ":%d" (int $ports.inbound)) -}}
{{- $_ := set $listener "inbound_passthrough_ports" $v.inbound.passthroughPorts -}}
{{- else if $v.inbound.enabled -}}
{{- $_ := set $listener "reverse_proxy_addr" (printf "%s:%d" $every (int $ports.reverse)) -}}
{{- $_ := set $listener "reverse_proxy_backend" $v.inbound.backend -}}
{{- end -}}
{{- if and (not $isGateway) (not (include "ab.isCooperative" .)) -}}
{{- $_ := set $listener "transparent_proxy_addr" (printf ":%d" (int $ports.transparent)) -}}
{{- else -}}
{{- $_ := set $listener "transparent_proxy_addr" "off" -}}
{{- end -}}
{{- $config := dict
  "listener" $listener
  "log" (dict "level" $v.proxy.logLevel)
  "stats" (dict "address" (printf "%s:%d" (ternary $every "127.0.0.1" $v.metrics.enabled) (int $ports.stats)))
  "pipeline" (dict
    "inbound" (dict "default" "deny" "plugins" (ternary $v.inbound.plugins list $v.inbound.enabled))
    "outbound" (dict "default" $v.outbound.default "plugins" $v.outbound.plugins)) -}}
{{- if include "ab.isCooperative" . -}}
{{- $_ := set $config "egress_enforcement" "none" -}}
{{- $_ := set $config "acknowledge_cooperative_mode" true -}}
{{- else if not $isGateway -}}
{{- $_ := set $config "egress_enforcement" "enforce-redirect" -}}
{{- end -}}
{{- if include "ab.isBridged" . -}}
{{- $bridge := dict "mode" "enabled" "ports" $v.tlsBridge.ports "passthrough_hosts" $v.tlsBridge.passthroughHosts "on_failure" $v.tlsBridge.onFailure -}}
{{- $_ := set $bridge "ca_dir" "/etc/authbridge-ca" -}}
{{- if $v.ca.ephemeral -}}
{{- $_ := set $bridge "generate_ca" true -}}
{{- end -}}
{{- $_ := set $config "tls_bridge" $bridge -}}
{{- end -}}
{{- if eq $v.mode "shared" -}}
{{- $_ := set $config "callers" (fromJson (include "ab.callers" .)) -}}
{{- if $v.callers.tls.existingSecret -}}
{{- $_ := set $listener "forward_proxy_tls" (dict "cert_file" "/etc/authbridge-tls/tls.crt" "key_file" "/etc/authbridge-tls/tls.key" "client_ca_file" "/etc/authbridge-tls/ca.crt") -}}
{{- end -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $v.config)) -}}
{{- end -}}

{{/* Who may use a shared gateway. */}}
{{- define "ab.callers" -}}
{{- $callers := dict -}}
{{- $clients := list -}}
{{- range .Values.agents -}}
{{- $client := dict "name" .name -}}
{{- if .certificate }}{{ $_ := set $client "certificate" .certificate }}{{ end -}}
{{- if $.Values.callers.existingSecret }}{{ $_ := set $client "password_file" (printf "/etc/authbridge-callers/%s" .name) }}{{ end -}}
{{- $clients = append $clients $client -}}
{{- end -}}
{{- toJson (dict "clients" $clients) -}}
{{- end -}}

{{/* Changes with the keys that the proxy cannot reload, and with nothing else. */}}
{{- define "ab.restartChecksum" -}}
{{- $config := include "ab.config" . | fromYaml -}}
{{- $kept := dict -}}
{{- range $path := list "mode" "workers" "listener" "egress_enforcement" "acknowledge_cooperative_mode" "limits.max_connections" "limits.max_header_bytes" "limits.max_headers" "limits.header_timeout" "limits.body_timeout" "limits.max_buffered" "limits.max_buffered_heads" "limits.keep_alive_timeout" "limits.max_requests_per_connection" "limits.max_streams_per_connection" "limits.max_tunnels" "session" "audit" "kill_switch" "approval" "state" "reload.enabled" "reload.debounce" "stats" "telemetry" "mtls.mode" "plugin_modules" }}
{{- $value := $config -}}
{{- range splitList "." $path }}{{ if kindIs "map" $value }}{{ $value = get $value . }}{{ end }}{{ end -}}
{{- $_ := set $kept $path $value -}}
{{- end -}}
{{- toJson $kept | sha256sum -}}
{{- end -}}

{{/* The files of the ConfigMap, by name. */}}
{{- define "ab.files" -}}
config.yaml: |
  {{- include "ab.config" . | nindent 2 }}
{{- range $name, $text := .Values.proxy.files }}
{{- if eq $name "config.yaml" }}{{ fail "proxy.files: config.yaml is the proxy's own file" }}{{ end }}
{{ $name }}: |
  {{- $text | nindent 2 }}
{{- end }}
{{- end -}}
