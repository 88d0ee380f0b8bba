{{/* The roles: what each is started as, and the group and topics by whose lag it is scaled. */}}
{{- define "headrace.roles" -}}
ingest:
  kind: Deployment
  command: ingest
process-history:
  kind: StatefulSet
  command: process
  lanes: history
  agents: decode,aggregate
  group: process.history
  topics: [raw.logs.history, events.history]
process-head:
  kind: StatefulSet
  command: process
  lanes: head
  agents: decode,aggregate,reorg
  group: process.head
  topics: [raw.logs.head, events.head, raw.heads]
sink-history:
  kind: StatefulSet
  command: sink
  lanes: history
  group: sink.history
  topics: [raw.blocks.history, raw.logs.history, events.history, aggregates.history]
sink-head:
  kind: StatefulSet
  command: sink
  lanes: head
  group: sink.head
  topics: [raw.blocks.head, raw.logs.head, events.head, aggregates.head]
publish:
  kind: Deployment
  command: publish
{{- end }}

{{/* What is done before the roles start. */}}
{{- define "headrace.hooks" -}}
topics:
  arguments: [topics, create]
  when: pre-install,pre-upgrade
  weight: "-5"
# Partitions, retention and limits as the values have them now.
topics-alter:
  arguments: [topics, alter]
  when: pre-upgrade
  weight: "-4"
migrate:
  arguments: [migrate]
  when: pre-install,pre-upgrade
  weight: "-3"
{{- end }}

{{- define "headrace.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "headrace.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{- define "headrace.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "headrace.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "headrace.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "headrace.kafkaTls" -}}
{{- if hasSuffix "SSL" .Values.kafka.securityProtocol }}yes{{ end -}}
{{- end }}

{{- define "headrace.kafkaSasl" -}}
{{- if hasPrefix "SASL" .Values.kafka.securityProtocol }}yes{{ end -}}
{{- end }}

{{/* The settings file; only where there is something in it. */}}
{{- define "headrace.settingsChecksum" -}}
{{- .Values.settings | sha256sum -}}
{{- end }}
