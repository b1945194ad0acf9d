{{- define "consort.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Twelve characters are left for what is added to it. */ -}}
{{- define "consort.fullname" -}}
{{- $name := include "consort.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 51 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 51 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 51 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "consort.selector" -}}
app.kubernetes.io/name: {{ include "consort.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "consort.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "consort.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "consort.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "consort.configMap" -}}
{{ .Values.existingConfigMap | default (include "consort.fullname" .) }}
{{- end }}

{{- /* The Secret whose keys are files; empty without one. */ -}}
{{- define "consort.secret" -}}
{{- with .Values.secrets -}}
{{- if .existingSecret }}{{ .existingSecret }}{{ else if .files }}{{ include "consort.fullname" $ }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "consort.signingSecret" -}}
{{ .Values.signing.existingSecret | default (printf "%s-signing" (include "consort.fullname" .)) }}
{{- end }}

{{- define "consort.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "consort.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- /* consort.yaml. */ -}}
{{- define "consort.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if .Values.signing.enabled -}}
{{- $_ := set $config "signing" (dict "secret_files" (list (printf "/run/secrets/consort-signing/%s" .Values.signing.key))) -}}
{{- end -}}
{{ toYaml $config }}
{{- end }}

{{- /*
What Consort decides at its start (docs/operations.md, "Reload"), as far as the file says it: the only changes of the
file for which pods must be new.
*/ -}}
{{- define "consort.startup" -}}
{{- $http := .Values.config.http | default dict -}}
{{- $limits := .Values.config.limits | default dict -}}
{{- $log := .Values.config.log | default dict -}}
{{- dict
  "decisions" .Values.config.decisions
  "http" (pick $http "tls" "head_timeout_ms" "max_head_bytes" "max_headers" "idle_timeout_ms")
  "limits" (pick $limits "store" "max_request_bytes")
  "log" (pick $log "format")
| toJson -}}
{{- end }}

{{- /* What is spoken at the port for Envoy. Gateways speak HTTP/1.1 where they are not told. */ -}}
{{- define "consort.grpcProtocol" -}}
{{- if .Values.extProc.tls.existingSecret }}https{{ else }}kubernetes.io/h2c{{ end -}}
{{- end }}

{{- /* The door's protocol, for whoever balances load. */ -}}
{{- define "consort.doorProtocol" -}}
{{- if or .Values.http.tls (.Values.config.http | default dict).tls }}https{{ else }}http{{ end -}}
{{- end }}
