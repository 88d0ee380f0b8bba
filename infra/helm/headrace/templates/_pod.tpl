{{/* Settings that every role shares, as variables. Takes the chart's context. */}}
{{- define "headrace.environment" -}}
{{- $kafka := .Values.kafka -}}
- {name: HEADRACE_CHAIN, value: {{ required "chain is missing: which one is indexed?" .Values.chain | quote }}}
{{- if kindIs "invalid" .Values.from }}{{ fail "from is missing: which block is the first to be shown?" }}{{ end }}
- {name: HEADRACE_FROM, value: {{ .Values.from | int64 | quote }}}
- {name: HEADRACE_KAFKA__BOOTSTRAP, value: {{ join "," $kafka.bootstrap | quote }}}
- {name: HEADRACE_KAFKA__TOPIC_PREFIX, value: {{ $kafka.topicPrefix | quote }}}
- {name: HEADRACE_KAFKA__PARTITIONS, value: {{ $kafka.partitions | quote }}}
- {name: HEADRACE_KAFKA__REPLICATION_FACTOR, value: {{ $kafka.replicationFactor | quote }}}
- {name: HEADRACE_KAFKA__SECURITY_PROTOCOL, value: {{ $kafka.securityProtocol | quote }}}
{{- if include "headrace.kafkaSasl" . }}
- {name: HEADRACE_KAFKA__SASL_MECHANISM, value: {{ required "kafka.saslMechanism is missing" $kafka.saslMechanism | quote }}}
{{- $secret := required "kafka.secret is missing: who logs in to the brokers?" $kafka.secret }}
- name: HEADRACE_KAFKA__SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $kafka.usernameKey | quote }}}}
- name: HEADRACE_KAFKA__SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $kafka.passwordKey | quote }}}}
{{- end }}
{{- if include "headrace.kafkaTls" . }}
{{- with $kafka.caKey }}
- {name: HEADRACE_KAFKA__SSL_CA, value: {{ printf "/etc/headrace-kafka/%s" . | quote }}}
{{- end }}
{{- with $kafka.certificateKey }}
- {name: HEADRACE_KAFKA__SSL_CERTIFICATE, value: {{ printf "/etc/headrace-kafka/%s" . | quote }}}
{{- end }}
{{- with $kafka.keyKey }}
- {name: HEADRACE_KAFKA__SSL_KEY, value: {{ printf "/etc/headrace-kafka/%s" . | quote }}}
{{- end }}
{{- with $kafka.keyPasswordKey }}
- name: HEADRACE_KAFKA__SSL_KEY_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $kafka.secret | quote }}, key: {{ . | quote }}}}
{{- end }}
{{- end }}
- name: HEADRACE_CLICKHOUSE__URL
  valueFrom: {secretKeyRef: {name: {{ .Values.clickhouse.secret | quote }}, key: {{ .Values.clickhouse.urlKey | quote }}}}
{{- if .Values.clickhouse.caSecret }}
- {name: HEADRACE_CLICKHOUSE__CA, value: {{ printf "/etc/headrace-clickhouse/%s" .Values.clickhouse.caKey | quote }}}
{{- end }}
- {name: HEADRACE_DATA, value: /var/lib/headrace}
- {name: HEADRACE_ROLES__DRAIN_SECONDS_MAX, value: {{ .Values.drainSeconds | quote }}}
{{- range $name, $value := .Values.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* The nodes, for those that speak to them. Takes the chart's context. */}}
{{- define "headrace.endpoints" -}}
- name: HEADRACE_RPC
  valueFrom: {secretKeyRef: {name: {{ .Values.rpc.secret | quote }}, key: {{ .Values.rpc.urlsKey | quote }}}}
{{- end }}

{{/* Volumes of every pod. Takes context and the name of the ConfigMap with the settings. */}}
{{- define "headrace.volumes" -}}
- {name: tmp, emptyDir: {}}
- {name: state, emptyDir: {}}
{{- if .context.Values.settings }}
- {name: settings, configMap: {name: {{ .settings }}}}
{{- end }}
{{- if and (include "headrace.kafkaTls" .context) .context.Values.kafka.secret }}
- {name: kafka, secret: {secretName: {{ .context.Values.kafka.secret }}, defaultMode: 0440}}
{{- end }}
{{- with .context.Values.clickhouse.caSecret }}
- {name: clickhouse, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end }}

{{/* Where they are mounted. Takes the chart's context. */}}
{{- define "headrace.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/headrace}
{{- if .Values.settings }}
- {name: settings, mountPath: /etc/headrace, readOnly: true}
{{- end }}
{{- if and (include "headrace.kafkaTls" .) .Values.kafka.secret }}
- {name: kafka, mountPath: /etc/headrace-kafka, readOnly: true}
{{- end }}
{{- if .Values.clickhouse.caSecret }}
- {name: clickhouse, mountPath: /etc/headrace-clickhouse, readOnly: true}
{{- end }}
{{- end }}

{{/* What every pod's spec begins with. Takes the chart's context. */}}
{{- define "headrace.podDefaults" -}}
automountServiceAccountToken: false
# Kubernetes would add HEADRACE_..._PORT for each Service, which look like misspelt settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Of every container. */}}
{{- define "headrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The pod of a role. Takes context, name, role (of headrace.roles) and values (of .Values.roles). */}}
{{- define "headrace.rolePod" -}}
metadata:
  labels:
    {{- include "headrace.labels" .context | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  annotations:
    checksum/settings: {{ include "headrace.settingsChecksum" .context }}
    {{- with .context.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "headrace.serviceAccount" .context }}
  {{- include "headrace.podDefaults" .context | nindent 2 }}
  terminationGracePeriodSeconds: {{ add .context.Values.drainSeconds 15 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "headrace.selector" .context | nindent 10 }}
          app.kubernetes.io/component: {{ .name }}
  containers:
    - name: {{ .role.command }}
      image: {{ include "headrace.image" .context | quote }}
      imagePullPolicy: {{ .context.Values.image.pullPolicy }}
      args: [--log-json, {{ .role.command }}]
      env:
        {{- include "headrace.environment" .context | nindent 8 }}
        - {name: HEADRACE_ROLES__HEALTH_HOST, value: 0.0.0.0}
        - {name: HEADRACE_ROLES__HEALTH_PORT, value: {{ .context.Values.healthPort | quote }}}
        {{- if eq .role.kind "StatefulSet" }}
        # The pod's stable name makes it a static member of its group: no rebalance when it restarts.
        - name: HEADRACE_KAFKA__INSTANCE
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- if get .role "lanes" }}
        - {name: HEADRACE_ROLES__LANES, value: {{ .role.lanes | quote }}}
        {{- end }}
        {{- if get .role "agents" }}
        - {name: HEADRACE_ROLES__AGENTS, value: {{ .role.agents | quote }}}
        {{- end }}
        {{- if eq .role.command "ingest" }}
        {{- include "headrace.endpoints" .context | nindent 8 }}
        {{- end }}
      ports:
        - {name: health, containerPort: {{ .context.Values.healthPort }}}
      startupProbe:
        httpGet: {path: /healthz, port: health}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: health}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: health}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      resources: {{- toYaml .values.resources | nindent 8 }}
      securityContext: {{- include "headrace.containerSecurity" .context | nindent 8 }}
      volumeMounts: {{- include "headrace.mounts" .context | nindent 8 }}
  volumes: {{- include "headrace.volumes" (dict "context" .context "settings" (include "headrace.name" .context)) | nindent 4 }}
{{- end }}
