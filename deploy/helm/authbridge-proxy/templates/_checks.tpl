{{/* What cannot be rendered is refused in words; every template that renders an object includes this. */}}
{{- define "ab.checks" -}}
{{- $v := .Values -}}
{{- $isGateway := include "ab.isGateway" . -}}
{{- if and (include "ab.isCooperative" .) (not $v.acknowledgeCooperativeMode) -}}
{{- fail (printf "egressEnforcement: none is cooperative: the agent is only asked to use the proxy. %s Set acknowledgeCooperativeMode: true if that is what you want." (ternary "Without the network policy nothing keeps it from leaving directly." "A NetworkPolicy is L4 and cannot tell agent from proxy inside one pod: an agent that ignores HTTP_PROXY reaches whatever the pod may reach, without token exchange and without policy, and only the destination's own inbound check refuses it." (ne $isGateway ""))) -}}
{{- end -}}
{{- if and $v.acknowledgeCooperativeMode (not (include "ab.isCooperative" .)) -}}
{{- fail "acknowledgeCooperativeMode: true has no meaning without egressEnforcement: none" -}}
{{- end -}}
{{- if and $isGateway (not (include "ab.isCooperative" .)) (not $v.networkPolicy.enabled) (not $v.networkPolicy.managedElsewhere) -}}
{{- fail "topology egress-gateway is enforced by the network policy and by nothing else: keep networkPolicy.enabled: true, or set networkPolicy.managedElsewhere: true if you keep equal policies yourself, or choose egressEnforcement: none" -}}
{{- end -}}
{{- include "ab.checkAgents" . -}}
{{- include "ab.checkAuthority" . -}}
{{- include "ab.checkConfig" . -}}
{{- include "ab.checkPolicy" . -}}
{{- include "ab.checkPersistence" . -}}
{{- if eq $v.inbound.interception "transparent" -}}
{{- if or $isGateway (include "ab.isCooperative" .) -}}
{{- fail "inbound.interception: transparent needs topology sidecar and egressEnforcement: enforce-redirect: proxy-init redirects what others send to the agent's pod" -}}
{{- end -}}
{{- if not $v.inbound.enabled }}{{ fail "inbound.interception: transparent needs inbound.enabled: true" }}{{ end -}}
{{- if $v.inbound.backend }}{{ fail "inbound.backend is not used with inbound.interception: transparent: requests go to the port that they were sent to" }}{{ end -}}
{{- if not $v.inbound.ports }}{{ fail "inbound.interception: transparent needs inbound.ports: the ports of the agent that others may reach, such as [8000]" }}{{ end -}}
{{- else if or $v.inbound.ports $v.inbound.passthroughPorts -}}
{{- fail "inbound.ports and inbound.passthroughPorts need inbound.interception: transparent" -}}
{{- end -}}
{{- if $v.inbound.enabled -}}
{{- if not (or $v.inbound.backend (include "ab.isInboundCaptured" .)) -}}
{{- fail (printf "inbound.enabled needs inbound.backend: %s" (ternary "the URL of the agent's Service, such as http://my-agent.agents.svc:8000" "the agent in the same pod, such as http://127.0.0.1:8000" (ne $isGateway ""))) -}}
{{- end -}}
{{- if not $v.inbound.plugins -}}
{{- fail "inbound.enabled needs inbound.plugins, such as jwt-validation: without one every request to the agent is refused" -}}
{{- end -}}
{{- end -}}
{{- if and $isGateway (not $v.networkPolicy.dns.allowAgent) (not $v.gateway.service.clusterIP) -}}
{{- fail "networkPolicy.dns.allowAgent: false needs gateway.service.clusterIP: an agent without DNS cannot find the gateway by its name" -}}
{{- end -}}
{{- if and (not $isGateway) (not (include "ab.isCooperative" .)) -}}
{{- range $key, $uid := dict "proxy.uid" $v.proxy.uid "agentExample.uid" $v.agentExample.uid -}}
{{- if not $uid -}}
{{- fail (printf "%s is needed in topology sidecar: the redirect exempts the proxy's user and no other. Where the platform gives out users (OpenShift), choose topology egress-gateway, or name one of the namespace's range." $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (not $isGateway) $v.proxy.uid (eq (int $v.agentExample.uid) (int $v.proxy.uid)) -}}
{{- fail "agentExample.uid is proxy.uid: the redirect exempts that user, and the agent would leave around the proxy" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.metrics.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled: true" -}}
{{- end -}}
{{- if and $v.metrics.prometheusRule.enabled (not $v.metrics.enabled) -}}
{{- fail "metrics.prometheusRule.enabled needs metrics.enabled: true: nothing is scraped without it" -}}
{{- end -}}
{{- include "ab.checkPods" . -}}
{{- end -}}

{{- define "ab.checkAuthority" -}}
{{- $ca := .Values.ca -}}
{{- if and $ca.ephemeral (include "ab.isGateway" .) -}}
{{- fail "ca.ephemeral cannot be used with topology egress-gateway: the authority is made when a gateway pod starts and lives in its memory, so that agents in other pods cannot trust it beforehand and every replica has another one. Use ca.existingSecret, ca.certManager.enabled, or ca.selfSigned for a trial." -}}
{{- end -}}
{{- if and $ca.ephemeral (not .Values.sidecar.native) -}}
{{- fail "ca.ephemeral needs sidecar.native: true: the agent can only trust an authority that was made before it starts" -}}
{{- end -}}
{{- $sources := list -}}
{{- if $ca.existingSecret }}{{ $sources = append $sources "ca.existingSecret" }}{{ end -}}
{{- if $ca.certManager.enabled }}{{ $sources = append $sources "ca.certManager.enabled" }}{{ end -}}
{{- if $ca.selfSigned }}{{ $sources = append $sources "ca.selfSigned" }}{{ end -}}
{{- if $ca.ephemeral }}{{ $sources = append $sources "ca.ephemeral" }}{{ end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "%s exclude each other: the bridge signs with one authority" (join " and " $sources)) -}}
{{- end -}}
{{- if and $ca.certificate (not $ca.existingSecret) (not $ca.certManager.enabled) -}}
{{- fail "ca.certificate is the ca.crt of ca.existingSecret or of the cert-manager issuer, and has no meaning without one of them" -}}
{{- end -}}
{{- if and (include "ab.isBridged" .) (not $ca.ephemeral) (include "ab.hasExample" .) (not (include "ab.hasTrustConfigMap" .)) (ne (index (fromJson (include "ab.agents" .)).agents 0).namespace .Release.Namespace) -}}
{{- fail "agent.namespace is another one than the Secret's: set ca.certificate, so that its ConfigMap can be rendered there" -}}
{{- end -}}
{{- end -}}

{{- define "ab.checkAgents" -}}
{{- $v := .Values -}}
{{- if eq $v.mode "shared" -}}
{{- if not (include "ab.isGateway" .) }}{{ fail "mode: shared needs topology egress-gateway: a sidecar has one agent" }}{{ end -}}
{{- if not $v.agents }}{{ fail "mode: shared needs agents: a list of { name, podLabels, namespace }" }}{{ end -}}
{{- if not (or $v.callers.existingSecret $v.callers.tls.existingSecret) -}}
{{- fail "mode: shared needs callers.existingSecret (a password for each agent) or callers.tls.existingSecret (client certificates): without either the gateway cannot tell its agents apart" -}}
{{- end -}}
{{- if $v.inbound.enabled }}{{ fail "inbound.enabled needs mode: perAgent: the reverse proxy has one backend" }}{{ end -}}
{{- range $v.agents -}}
{{- if and (not $v.callers.existingSecret) (not .certificate) -}}
{{- fail (printf "agents: %s needs certificate, a name in its client certificate, for there are no passwords" .name) -}}
{{- end -}}
{{- if and .certificate (not $v.callers.tls.existingSecret) -}}
{{- fail (printf "agents: the certificate of %s needs callers.tls.existingSecret" .name) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if $v.agents }}{{ fail "agents is for mode: shared; the agent of mode perAgent is set with agent.namespace and agent.podLabels" }}{{ end -}}
{{- if or $v.callers.existingSecret $v.callers.tls.existingSecret }}{{ fail "callers is for mode: shared" }}{{ end -}}
{{- end -}}
{{- if and (include "ab.hasExample" .) (eq $v.mode "shared") -}}
{{- fail "agentExample shows the agent of mode perAgent; README.md shows the environment of agents of a shared gateway" -}}
{{- end -}}
{{- end -}}

{{/* Keys of the proxy's file that other parts of the chart depend on. */}}
{{- define "ab.checkConfig" -}}
{{- $config := .Values.config -}}
{{- $owned := dict "mode" "topology" "callers" "callers and agents" "stats" "metrics.enabled and proxy.ports.stats" "egress_enforcement" "egressEnforcement" "acknowledge_cooperative_mode" "acknowledgeCooperativeMode" "log" "proxy.logLevel" -}}
{{- range $key, $value := $owned -}}
{{- if hasKey $config $key }}{{ fail (printf "config.%s is decided by the chart: set %s" $key $value) }}{{ end -}}
{{- end -}}
{{- $listener := default dict $config.listener -}}
{{- range $key := list "roles" "reverse_proxy_addr" "reverse_proxy_backend" "forward_proxy_addr" "forward_proxy_tls" "socks_proxy_addr" "transparent_proxy_addr" "transparent_inbound_addr" "inbound_interception" "inbound_passthrough_ports" "session_api_addr" "health_addr" -}}
{{- if hasKey $listener $key }}{{ fail (printf "config.listener.%s is decided by the chart: set topology, proxy.ports, proxy.listenHost, inbound or callers.tls" $key) }}{{ end -}}
{{- end -}}
{{- $bridge := default dict $config.tls_bridge -}}
{{- if eq (default "" $bridge.ca) "ephemeral" -}}
{{- fail "config.tls_bridge.ca: ephemeral is refused: in a gateway agents in other pods cannot trust an authority that is made at its start, and every replica has another one; in a sidecar set ca.ephemeral: true" -}}
{{- end -}}
{{- range $key, $value := dict "mode" "ca" "ca" "ca" "ca_dir" "ca" "generate_ca" "ca.selfSigned for a trial" "ports" "tlsBridge.ports" "passthrough_hosts" "tlsBridge.passthroughHosts" "on_failure" "tlsBridge.onFailure" -}}
{{- if hasKey $bridge $key }}{{ fail (printf "config.tls_bridge.%s is decided by the chart: set %s" $key $value) }}{{ end -}}
{{- end -}}
{{- $pipeline := default dict $config.pipeline -}}
{{- if hasKey $pipeline "outbound" }}{{ fail "config.pipeline.outbound is decided by the chart: set outbound" }}{{ end -}}
{{- if hasKey $pipeline "inbound" }}{{ fail "config.pipeline.inbound is decided by the chart: set inbound" }}{{ end -}}
{{- end -}}

{{/* The root of the container is read-only. */}}
{{- define "ab.checkPersistence" -}}
{{- $v := .Values -}}
{{- $volume := $v.persistence -}}
{{- $session := default dict $v.config.session -}}
{{- range $key, $block := dict "config.audit" $v.config.audit "config.session.persist" $session.persist -}}
{{- if $block -}}
{{- if not $volume.enabled -}}
{{- fail (printf "%s writes a file, and the proxy's root is read-only: set persistence.enabled: true, and %s.path below /var/lib/authbridge" $key $key) -}}
{{- end -}}
{{- if not (hasPrefix "/var/lib/authbridge/" (default "" $block.path | clean)) -}}
{{- fail (printf "%s.path must be below /var/lib/authbridge, which is all that the proxy can write" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $volume.enabled (not $volume.ephemeral) (not (and (include "ab.isGateway" .) (eq $v.gateway.kind "StatefulSet"))) -}}
{{- fail "persistence.enabled needs topology egress-gateway with gateway.kind: StatefulSet, so that each pod has a claim of its own; persistence.ephemeral: true writes to an emptyDir, which goes with the pod" -}}
{{- end -}}
{{- end -}}

{{/* A rule of a NetworkPolicy that names no ports, no labels or no peers means all of them. */}}
{{- define "ab.checkPolicy" -}}
{{- if include "ab.hasPolicies" . -}}
{{- $policy := .Values.networkPolicy -}}
{{- $dns := $policy.dns -}}
{{- if not $dns.ports -}}
{{- fail "networkPolicy.dns.ports needs a port: a rule without ports opens all of them" -}}
{{- end -}}
{{- if and $policy.egress.internet.enabled (not $policy.egress.internet.ports) -}}
{{- fail "networkPolicy.egress.internet.ports needs a port: a rule without ports opens all of them; networkPolicy.egress.internet.enabled: false opens none" -}}
{{- end -}}
{{- if and $dns.namespaceLabels (not $dns.podLabels) -}}
{{- fail "networkPolicy.dns.podLabels needs a label: without one every pod of the namespace is taken for DNS" -}}
{{- end -}}
{{- if and $dns.podLabels (not $dns.namespaceLabels) -}}
{{- fail "networkPolicy.dns.namespaceLabels needs a label: without one every namespace can have pods that are taken for DNS" -}}
{{- end -}}
{{- if not (or $dns.podLabels $dns.ipBlocks) -}}
{{- fail "networkPolicy.dns needs namespaceLabels and podLabels, or networkPolicy.dns.ipBlocks: a rule that names nobody opens DNS ports everywhere" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is laid over the pods, where another value decides it or nothing would come of it. */}}
{{- define "ab.checkPods" -}}
{{- $v := .Values -}}
{{- range $path, $context := dict "proxy.securityContext" $v.proxy.securityContext "gateway.podSecurityContext" $v.gateway.podSecurityContext -}}
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- if hasKey (default dict $context) $key }}{{ fail (printf "%s.%s is decided by the chart: set proxy.uid" $path $key) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $path, $labels := dict "commonLabels" $v.commonLabels "gateway.podLabels" $v.gateway.podLabels -}}
{{- range $key, $_ := $labels -}}
{{- if has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") }}{{ fail (printf "%s: %s is the chart's own label: nameOverride and the release's name decide it" $path $key) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $v.proxy.extraVolumes -}}
{{- if or (hasPrefix "authbridge-" .name) (hasPrefix "secret-" .name) (eq .name "proxy-init-run") }}{{ fail (printf "proxy.extraVolumes: %s is a name of the chart's own volumes" .name) }}{{ end -}}
{{- end -}}
{{- $scaling := $v.gateway.autoscaling -}}
{{- if and $scaling.enabled (not $scaling.targetCPUUtilizationPercentage) (not $scaling.targetConnections) (not $scaling.metrics) -}}
{{- fail "gateway.autoscaling.enabled needs something to scale by: targetCPUUtilizationPercentage, targetConnections or metrics" -}}
{{- end -}}
{{- if and $scaling.targetConnections (not $v.metrics.enabled) -}}
{{- fail "gateway.autoscaling.targetConnections needs metrics.enabled: true: the adapter reads authbridge_client_connections" -}}
{{- end -}}
{{- if and (eq $v.gateway.kind "Deployment") (eq (default "" $v.gateway.updateStrategy.type) "OnDelete") -}}
{{- fail "gateway.updateStrategy.type: OnDelete is for a StatefulSet" -}}
{{- end -}}
{{- if and (eq $v.gateway.kind "StatefulSet") (eq (default "" $v.gateway.updateStrategy.type) "Recreate") -}}
{{- fail "gateway.updateStrategy.type: Recreate is for a Deployment" -}}
{{- end -}}
{{- if and (eq $v.gateway.dnsPolicy "None") (not $v.gateway.dnsConfig) -}}
{{- fail "gateway.dnsPolicy: None needs gateway.dnsConfig: the proxy resolves every name that it vets" -}}
{{- end -}}
{{- range concat $v.gateway.initContainers $v.gateway.extraContainers -}}
{{- if eq .name "authbridge-proxy" }}{{ fail "gateway.initContainers and gateway.extraContainers: authbridge-proxy is the proxy's own container" }}{{ end -}}
{{- end -}}
{{- end -}}
